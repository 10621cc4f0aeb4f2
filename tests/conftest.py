"""A private, real server for each worker: clean before each test, found consistent after it.

Fixtures: `redis_server`, `redis_url`, `raw` (a client to look into it), `settings`, `store`; `client` (of a registry in
this process); `own_server`, a second server for tests that pause, kill or misconfigure theirs; and `directory`, a short
path for files.
"""

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import httpx2
import hypothesis
import pytest
import redis

from registry.compat.mcpmesh.spec import McpMeshSpec
from registry.config.settings import Settings
from registry.model.agent import use_spec_type
from registry.store.redis.connection import endpoint_from_url
from registry.store.store import Store
from tests.support.consistency import find_inconsistencies
from tests.support.docker_redis import DockerUnavailableError, docker_redis
from tests.support.in_process_registry import in_process_registry
from tests.support.redis_server import RedisServer


class RunningServer(Protocol):
    """A server that runs somewhere."""

    @property
    def url(self) -> str:
        """Where it listens, as redis-py takes it."""


class _DockerServer:
    def __init__(self, url: str) -> None:
        self.url = url


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests run against a Redis in Docker instead of the embedded server."""
    parser.addoption(
        "--redis",
        choices=("embedded", "docker"),
        default="embedded",
        help="docker: the shared test server is a container, where Docker answers; else such tests are skipped",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Decode specs as a replica does, declare our markers, and remove deadlines: a busy machine is no defect."""
    use_spec_type(McpMeshSpec)
    checks = hypothesis.HealthCheck
    slow_or_shared = [checks.too_slow, checks.function_scoped_fixture]
    hypothesis.settings.register_profile("unhurried", deadline=None, suppress_health_check=slow_or_shared)
    hypothesis.settings.load_profile("unhurried")
    config.addinivalue_line(
        "markers", "poisoned(why): damages data on purpose, so the check after the test is left out"
    )
    config.addinivalue_line("markers", "fault(number, what): survives this fault; README.md has the table")
    config.addinivalue_line("markers", "slow: too long for every day; `make fleet` and `make wheel-test` run it")


def pytest_runtest_call(item: pytest.Item) -> None:
    """Note which faults a test survives, for the summary."""
    item.user_properties += [("fault", mark.args[0]) for mark in item.iter_markers("fault")]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what fleets survived, and why tests were skipped: for want of a server or a program that is not there."""
    faults: set[int] = set()
    counted: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "fault":
                faults.add(int(value))
            elif name == "tally":
                counted.update(value)
    if faults:
        terminalreporter.write_line(f"{len(faults)} faults survived: {', '.join(map(str, sorted(faults)))}")
        terminalreporter.write_line(", ".join(f"{count} {name}" for name, count in counted.items()) + "; nothing lost")
    skipped = terminalreporter.getreports("skipped")
    for reason in sorted({report.longrepr[2] for report in skipped if isinstance(report.longrepr, tuple)}):
        terminalreporter.write_line(reason)


@pytest.fixture(scope="session")
def server_of_worker(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    """One server for all tests of this worker; ask for `redis_server`, which cleans it."""
    if request.config.getoption("--redis") == "docker":
        try:
            with docker_redis() as url:
                yield _DockerServer(url)
        except DockerUnavailableError as error:
            pytest.skip(str(error))
    else:
        with RedisServer() as server:
            yield server


def wipe(client: redis.Redis) -> None:
    """Forget all data and, at random, all scripts; put back the configuration that tests change."""
    client.flushall()
    client.config_set("notify-keyspace-events", "")
    if random.random() < 0.5:  # noqa: S311 - to flush in each test would hide what needs a warm cache
        client.script_flush()


@pytest.fixture
def redis_server(server_of_worker: RunningServer, request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    """A running, empty server; what the test leaves in it must be consistent, unless it is marked as poisoned."""
    with redis.Redis.from_url(server_of_worker.url) as client:
        wipe(client)
        yield server_of_worker
        if request.node.get_closest_marker("poisoned") is None:
            assert not find_inconsistencies(client)


@pytest.fixture
def redis_url(redis_server: RunningServer) -> str:
    """Where the server listens."""
    return redis_server.url


@pytest.fixture
def raw(redis_url: str) -> Iterator[redis.Redis]:
    """A blocking client that answers in text, to look into the store and to write what no script would."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A server for this test alone, to be paused, killed or misconfigured; nothing is checked after it."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    """Settings for the test server, with everything that takes time short."""
    return Settings(
        port=0,
        redis_url=redis_url,
        data_dir=tmp_path,
        instance_id="test-replica",
        agent_timeout=timedelta(seconds=2),
        retention=timedelta(seconds=4),
        watch_history=1000,
        health_check_interval=timedelta(seconds=1),
        lease_duration=timedelta(seconds=1),
        renew_deadline=timedelta(seconds=0.6),
        retry_period=timedelta(seconds=0.2),
    )


@pytest.fixture
async def store(settings: Settings, redis_url: str) -> AsyncIterator[Store]:
    """The store on the test server."""
    store = Store(endpoint_from_url(redis_url), settings, lambda _script, _seconds: None)
    yield store
    await store.close()


@pytest.fixture
def directory() -> Iterator[Path]:
    """An empty directory with a short path, so that the embedded store's socket fits into it too."""
    made = Path(tempfile.mkdtemp(prefix="mesh-run-", dir="/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[httpx2.AsyncClient]:
    """Provide an HTTP client of a registry in this process, on the test's own store, with default settings."""
    async with in_process_registry(redis_url) as client:
        yield client
