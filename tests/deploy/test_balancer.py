"""The balancer: never in the way of a stream, never one who closes too late or gives up too early."""

import contextlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from registry import server
from registry.api.endpoints import list_agents, watch_stream
from registry.api.request import queries
from tests.deploy.compose_files import (
    HAPROXY_FILE,
    compose_service,
    duration_s,
    haproxy_configuration,
    haproxy_durations_s,
    service_environment,
)
from tests.support.child_process import ChildProcess
from tests.support.http_calls import a_registration
from tests.support.polling import async_wait_until
from tests.support.ports import free_port
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica

needs_haproxy = pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")
TEMPLATE = re.compile(r"server-template replica 20 registry:(\d+) resolvers docker resolve-prefer ipv4 init-addr none")


def test_it_leads_to_the_port_the_replicas_listen_on() -> None:
    """In both backends, and is itself where compose.yaml publishes it."""
    assert TEMPLATE.findall(haproxy_configuration()) == [service_environment("registry")["REGISTRY_PORT"]] * 2
    assert "bind :8000 " in haproxy_configuration()
    assert compose_service("balancer")["ports"][0].endswith(":8000")


def test_it_asks_whether_a_replica_is_ready() -> None:
    """Not whether it lives."""
    assert "http-check send meth GET uri /ready " in haproxy_configuration()


def test_streams_and_waits_outlive_their_silence() -> None:
    """A stream may miss a sign of life, and a wait may last as long as the longest."""
    stream, wait = sorted(set(haproxy_durations_s("set-timeout server")))
    (client,) = haproxy_durations_s("timeout client")

    assert stream > 2 * watch_stream._KEEP_ALIVE_INTERVAL_S
    assert wait > queries._MAX_WAIT_S * (1 + list_agents._WAIT_JITTER_RATIO)
    assert client >= wait


def test_it_closes_idle_connections_before_a_replica_does() -> None:
    """Else a request could meet a connection that is just being closed."""
    (idle,) = haproxy_durations_s("timeout http-keep-alive")

    assert idle < server._KEEP_ALIVE_TIMEOUT_S


def test_it_is_gone_before_it_is_killed() -> None:
    """With all its streams."""
    (longest,) = haproxy_durations_s("hard-stop-after")

    assert longest < duration_s(compose_service("balancer")["stop_grace_period"])


def test_what_it_says_itself_has_the_form_of_an_error() -> None:
    """And tells whether a write may have happened."""
    said = {
        int(status): json.loads(body)
        for status, body in re.findall(r"http-error status (\d+).* '(.*)'", haproxy_configuration())
    }

    assert said.keys() == {502, 503, 504}
    for status, body in said.items():
        assert {"status", "error", "message", "details", "outcome", "request_id"} == body.keys()
        assert body["outcome"] == ("not_sent" if status == 503 else "unknown")


@needs_haproxy
def test_haproxy_understands_it() -> None:
    """Without a warning."""
    ran = subprocess.run(
        ["haproxy", "-c", "-q", "-f", HAPROXY_FILE], capture_output=True, check=False, timeout=20, text=True
    )

    assert (ran.returncode, ran.stderr) == (0, "")


@contextlib.contextmanager
def balancer(tmp_path: Path, *replicas: str) -> Iterator[str]:
    """Run haproxy with this very configuration, but for addresses: it leads to these, and listens on a free port."""
    port = free_port()
    text = HAPROXY_FILE.read_text(encoding="utf-8").replace("bind :8000", f"bind 127.0.0.1:{port}")
    for line in re.findall(r"^ +server-template .*$", text, re.MULTILINE):
        beside = TEMPLATE.sub("", line).strip()
        servers = (f"    server replica{at} {url.removeprefix('http://')} {beside}" for at, url in enumerate(replicas))
        text = text.replace(line, "\n".join(servers), 1)
    path = tmp_path / "haproxy.cfg"
    path.write_text(text, encoding="utf-8")
    with ChildProcess("haproxy", "-db", "-f", path):
        yield f"http://127.0.0.1:{port}"


@contextlib.asynccontextmanager
async def through(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """Provide a session that goes through the balancer, once that listens."""
    async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(total=10)) as session:

        async def listens() -> bool:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get("/health"):
                    return True
            return False

        await async_wait_until(listens, description="the balancer listens")
        yield session


@needs_haproxy
async def test_a_watch_gets_its_events_at_once_and_is_freed_at_once(redis_url: str, tmp_path: Path) -> None:
    """Nothing is held back, and who goes away is noticed before the next sign of life."""
    with Replica(redis_url) as replica, balancer(tmp_path, replica.url) as url:
        async with through(url) as session, aiohttp.ClientSession(replica.url) as direct:
            async with session.get("/agents?watch=true") as stream:
                await stream.content.readline()
                for number in range(5):
                    sent = time.monotonic()
                    async with session.post("/agents", json=a_registration(f"agent-{number}")) as answer:
                        assert answer.status == 200
                    assert json.loads(await stream.content.readline())["object"]["id"] == f"agent-{number}"
                    assert time.monotonic() - sent < 3
                stream.close()

            async def freed() -> bool:
                async with direct.get("/metrics/prometheus") as metrics:
                    return "mcp_registry_watchers 0.0" in await metrics.text()

            await async_wait_until(freed, description="the replica serves no watch", timeout=3)


@needs_haproxy
async def test_when_no_replica_is_ready_they_still_answer_from_memory(own_server: RedisServer, tmp_path: Path) -> None:
    """Stale reads beat none; writes are 503; all heals by itself."""
    with (
        Replica(own_server.url) as one,
        Replica(own_server.url) as two,
        balancer(tmp_path, one.url, two.url) as url,
    ):
        async with through(url) as session:

            async def stale() -> bool:
                async with session.get("/agents?resource_version=0") as answer:
                    assert answer.status == 200
                    return "x-registry-stale" in answer.headers

            async def ready(status: int) -> bool:
                async with session.get("/ready") as answer:
                    return answer.status == status

            own_server.kill()
            await async_wait_until(lambda: ready(503), description="no replica is ready", timeout=10)
            assert await stale()
            async with session.post("/agents", json=a_registration()) as answer:
                assert (answer.status, "retry-after" in answer.headers) == (503, True)
            # Long enough for the checks to find both of them down: 2 checks, a second apart, and one to spare.
            end = time.monotonic() + 3.5

            async def checks_are_through() -> bool:
                return await stale() and time.monotonic() >= end

            await async_wait_until(checks_are_through, description="stale reads go on")
            own_server.restart()
            await async_wait_until(lambda: ready(200), description="a replica is ready", timeout=10)


@needs_haproxy
async def test_a_dead_replica_costs_readers_nothing(redis_url: str, tmp_path: Path) -> None:
    """What could not be sent is sent to another; with none left the balancer says so in the registry's own form."""
    with Replica(redis_url) as one, Replica(redis_url) as two, balancer(tmp_path, one.url, two.url) as url:
        async with through(url) as session:
            one.kill()
            for _ in range(20):
                async with session.get("/agents") as answer:
                    assert answer.status == 200
            two.kill()
            async with session.get("/agents") as answer:
                assert answer.status == 503
                assert answer.headers["retry-after"] == "1"
                assert (await answer.json())["error"] == "not_ready"
