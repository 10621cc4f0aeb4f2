"""A private Redis server for each worker: empty before each test, checked for consistency after it.

Fixtures: `redis_server`, `redis_url`, `redis_client` (to inspect the server), `settings`, `store`; `client` (of a
registry in this process), `served` (the same behind a socket); `dedicated_redis`, another server for tests that pause,
kill or misconfigure it; `directory`, a short path for files; `restored_log_configuration`, for tests that change it.
"""

import logging
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
import structlog

from registry.compat.mcpmesh.spec_fields import McpMeshSpec
from registry.config.settings import Settings
from registry.model.agent import use_spec_type
from registry.store.redis.connection import endpoint_from_url
from registry.store.redis.pipeline import Pipeline
from registry.store.store import Store
from tests.support.consistency import find_inconsistencies
from tests.support.docker_redis import DockerUnavailableError, docker_redis
from tests.support.in_process_registry import in_process_registry
from tests.support.machine_speed import slowness_factor
from tests.support.redis_server import RedisServer
from tests.support.served_registry import ServedRegistry, served_registry


class RunningServer(Protocol):
    """A running Redis server, embedded or in Docker."""

    @property
    def url(self) -> str:
        """The URL of the server, in the form of redis-py."""


class _DockerServer:
    def __init__(self, url: str) -> None:
        self.url = url


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that runs the tests against a Redis in Docker instead of the embedded server."""
    parser.addoption(
        "--redis",
        choices=("embedded", "docker"),
        default="embedded",
        help="docker: the shared test server is a container, if Docker is available; otherwise such tests are skipped",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Measure the machine, decode specs as a replica does, declare markers, and disable deadlines of hypothesis."""
    slowness_factor()
    use_spec_type(McpMeshSpec)
    checks = hypothesis.HealthCheck
    slow_or_shared = [checks.too_slow, checks.function_scoped_fixture]
    hypothesis.settings.register_profile("unhurried", deadline=None, suppress_health_check=slow_or_shared)
    hypothesis.settings.load_profile("unhurried")
    config.addinivalue_line(
        "markers", "leaves_damaged_data(why): damages data on purpose, so the check after the test is omitted"
    )
    config.addinivalue_line("markers", "fault(number, what): survives this fault; README.md has the table")
    config.addinivalue_line("markers", "slow: takes too long for each run; `make fleet` and `make wheel-test` run it")


def pytest_runtest_call(item: pytest.Item) -> None:
    """Record the faults of a test for the summary."""
    item.user_properties += [("fault", mark.args[0]) for mark in item.iter_markers("fault")]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the slowness of the machine, the survived faults, and the reasons of skipped tests."""
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
    if slowness_factor() > 1:
        terminalreporter.write_line(f"this machine is slow: time limits are multiplied by {slowness_factor():.1f}")
    skipped = terminalreporter.getreports("skipped")
    for reason in sorted({report.longrepr[2] for report in skipped if isinstance(report.longrepr, tuple)}):
        terminalreporter.write_line(reason)


@pytest.fixture(autouse=True, scope="session")
def long_store_timeouts() -> Iterator[None]:
    """Let the registries of this process wait longer for Redis, which may stall for seconds even on a fast machine."""
    defaults = Pipeline.__init__.__kwdefaults__
    assert defaults is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(defaults, "timeout", 8.0)
        patch.setattr("registry.cache.reflector._READ_TIMEOUT_S", 8.0)
        patch.setattr("registry.store.redis.connection._CONNECT_TIMEOUT_S", 6.0)
        patch.setattr("registry.store.redis.primary_locator._QUERY_TIMEOUT_S", 3.0)
        yield


@pytest.fixture(scope="session")
def worker_server(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    """Provide the server of this worker; tests use `redis_server`, which empties it."""
    if request.config.getoption("--redis") == "docker":
        try:
            with docker_redis() as url:
                yield _DockerServer(url)
        except DockerUnavailableError as error:
            pytest.skip(str(error))
    else:
        with RedisServer() as server:
            yield server


def reset(client: redis.Redis) -> None:
    """Delete all data and, at random, all scripts; restore the configuration that tests change."""
    client.flushall()
    client.config_set("notify-keyspace-events", "")
    if random.random() < 0.5:  # noqa: S311 - to flush in each test would hide what needs a warm cache
        client.script_flush()


@pytest.fixture
def redis_server(worker_server: RunningServer, request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    """Provide an empty server, which must be consistent after the test, unless it is marked `leaves_damaged_data`."""
    with redis.Redis.from_url(worker_server.url) as client:
        reset(client)
        yield worker_server
        if request.node.get_closest_marker("leaves_damaged_data") is None:
            assert not find_inconsistencies(client)


@pytest.fixture
def redis_url(redis_server: RunningServer) -> str:
    """Return the URL of the server."""
    return redis_server.url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """Provide a blocking client with text responses, to inspect the store and to write unusual data."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def dedicated_redis() -> Iterator[RedisServer]:
    """Provide a server for one test, which may pause, kill or misconfigure it; it is not checked afterwards."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    """Return settings for the test server, with short durations."""
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
    """Provide the store on the test server."""
    store = Store(endpoint_from_url(redis_url), settings, lambda _script, _seconds: None)
    yield store
    await store.close()


@pytest.fixture
def directory() -> Iterator[Path]:
    """Provide an empty directory with a path that is short enough for the socket of the embedded Redis."""
    path = Path(tempfile.mkdtemp(prefix="mesh-run-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[httpx2.AsyncClient]:
    """Provide an HTTP client of a registry in this process, with the test server and default settings."""
    async with in_process_registry(redis_url) as client:
        yield client


@pytest.fixture
def restored_log_configuration() -> Iterator[None]:
    """Restore the logging configuration of the process, which the other tests of this worker share."""
    names = ("uvicorn", "uvicorn.error", "uvicorn.access", "redis")
    loggers = [logging.getLogger(), *map(logging.getLogger, names)]
    before = [(logger, [*logger.handlers], logger.level, logger.propagate) for logger in loggers]
    # `basicConfig(force=True)` closes the handlers that it replaces; those of the test runner must stay open.
    logging.getLogger().handlers.clear()
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    for logger, handlers, level, propagate in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate


@pytest.fixture
async def served(redis_url: str) -> AsyncIterator[ServedRegistry]:
    """Provide a registry behind a socket."""
    async with served_registry(redis_url) as served:
        yield served
