"""The load balancer of compose.yaml: its timeouts suit watches and waits, and its errors have the registry's format."""

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

from registry.api.endpoints import list_agents, watch_stream
from registry.api.request import query_parsers
from registry.http_server import limited_connection
from tests.deploy.compose_files import (
    HAPROXY_FILE,
    compose_service,
    duration_s,
    haproxy_configuration,
    haproxy_durations_s,
    service_environment,
)
from tests.support.child_process import ChildProcess
from tests.support.http_calls import REQUEST_TIMEOUT_S, a_registration
from tests.support.polling import async_wait_until
from tests.support.ports import free_port
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica

needs_haproxy = pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")
TEMPLATE = re.compile(r"server-template replica 20 registry:(\d+) resolvers docker resolve-prefer ipv4 init-addr none")


def test_it_forwards_to_the_port_of_the_replicas() -> None:
    """Both backends use that port, and compose.yaml publishes the port of the balancer."""
    assert TEMPLATE.findall(haproxy_configuration()) == [service_environment("registry")["REGISTRY_PORT"]] * 2
    assert "bind :8000 " in haproxy_configuration()
    assert compose_service("balancer")["ports"][0].endswith(":8000")


def test_it_checks_readiness() -> None:
    """The check is /readiness_is, not /health."""
    assert "http-check send meth GET uri /ready " in haproxy_configuration()


def test_its_timeouts_are_longer_than_pauses_of_streams_and_waits() -> None:
    """A stream may miss one keep-alive, and the longest wait does not time out."""
    stream, wait = sorted(set(haproxy_durations_s("set-timeout server")))
    (client,) = haproxy_durations_s("timeout client")

    assert stream > 2 * watch_stream._KEEP_ALIVE_INTERVAL_S
    assert wait > query_parsers._MAX_WAIT_S * (1 + list_agents._WAIT_JITTER_RATIO)
    assert client >= wait


def test_it_closes_idle_connections_before_a_replica_does() -> None:
    """Otherwise it could send a request on a connection that the replica is closing."""
    (idle,) = haproxy_durations_s("timeout http-keep-alive")

    assert idle < limited_connection.KEEP_ALIVE_S


def test_it_stops_before_docker_kills_it() -> None:
    """All its streams end, too."""
    (longest,) = haproxy_durations_s("hard-stop-after")

    assert longest < duration_s(compose_service("balancer")["stop_grace_period"])


def test_its_own_errors_have_the_format_of_the_registry() -> None:
    """They include whether a write may have been applied."""
    errors = {
        int(status): json.loads(body)
        for status, body in re.findall(r"http-error status (\d+).* '(.*)'", haproxy_configuration())
    }

    assert errors.keys() == {502, 503, 504}
    for status, body in errors.items():
        assert {"status", "error", "message", "details", "outcome", "request_id"} == body.keys()
        assert body["outcome"] == ("not_sent" if status == 503 else "unknown")


@needs_haproxy
def test_haproxy_accepts_the_configuration() -> None:
    """It prints no warning."""
    result = subprocess.run(["haproxy", "-c", "-q", "-f", HAPROXY_FILE], capture_output=True, check=False, text=True)

    assert (result.returncode, result.stderr) == (0, "")


@contextlib.contextmanager
def balancer(tmp_path: Path, *replicas: str) -> Iterator[str]:
    """Run haproxy with this configuration, but with the addresses of these replicas and a free port."""
    port = free_port()
    text = HAPROXY_FILE.read_text(encoding="utf-8").replace("bind :8000", f"bind 127.0.0.1:{port}")
    for line in re.findall(r"^ +server-template .*$", text, re.MULTILINE):
        options = TEMPLATE.sub("", line).strip()
        servers = (f"    server replica{at} {url.removeprefix('http://')} {options}" for at, url in enumerate(replicas))
        text = text.replace(line, "\n".join(servers), 1)
    path = tmp_path / "haproxy.cfg"
    path.write_text(text, encoding="utf-8")
    with ChildProcess("haproxy", "-db", "-f", path):
        yield f"http://127.0.0.1:{port}"


@contextlib.asynccontextmanager
async def balancer_session(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """Provide a session to the balancer, once it listens."""
    async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)) as session:

        async def listens() -> bool:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get("/health"):
                    return True
            return False

        await async_wait_until(listens, description="the balancer listens")
        yield session


@needs_haproxy
async def test_a_watch_receives_each_event_and_is_closed(redis_url: str, tmp_path: Path) -> None:
    """Nothing is buffered: an event arrives although none follows it; a closed watch ends on the replica."""
    with Replica(redis_url) as replica, balancer(tmp_path, replica.url) as url:
        async with balancer_session(url) as session, aiohttp.ClientSession(replica.url) as direct:
            async with session.get("/agents?watch=true") as stream:
                await stream.content.readline()
                for number in range(5):
                    async with session.post("/agents", json=a_registration(f"agent-{number}")) as response:
                        assert response.status == 200
                    assert json.loads(await stream.content.readline())["object"]["id"] == f"agent-{number}"
                stream.close()

            async def no_watcher() -> bool:
                async with direct.get("/metrics/prometheus") as metrics:
                    return "mcp_registry_watchers 0.0" in await metrics.text()

            await async_wait_until(no_watcher, description="the replica has no watcher")


@needs_haproxy
async def test_replicas_that_are_not_ready_serve_stale_reads(dedicated_redis: RedisServer, tmp_path: Path) -> None:
    """Writes are 503, and all recovers when Redis is back."""
    with (
        Replica(dedicated_redis.url) as one,
        Replica(dedicated_redis.url) as two,
        balancer(tmp_path, one.url, two.url) as url,
    ):
        async with balancer_session(url) as session:

            async def is_stale() -> bool:
                async with session.get("/agents?resource_version=0") as response:
                    assert response.status == 200
                    return "x-registry-stale" in response.headers

            async def readiness_is(status: int) -> bool:
                async with session.get("/ready") as response:
                    return response.status == status

            dedicated_redis.kill()
            await async_wait_until(lambda: readiness_is(503), description="no replica is ready")
            assert await is_stale()
            async with session.post("/agents", json=a_registration()) as response:
                assert (response.status, "retry-after" in response.headers) == (503, True)
            # The checks detect both replicas as down within 2 s: two failures, one second apart.
            end = time.monotonic() + 3.5

            async def checks_completed() -> bool:
                return await is_stale() and time.monotonic() >= end

            await async_wait_until(checks_completed, description="stale reads continue")
            dedicated_redis.restart()
            await async_wait_until(lambda: readiness_is(200), description="a replica is ready")


@needs_haproxy
async def test_a_dead_replica_causes_no_failed_read(redis_url: str, tmp_path: Path) -> None:
    """Unsent requests go to another replica; without any, the balancer returns a 503 in the registry's format."""
    with Replica(redis_url) as one, Replica(redis_url) as two, balancer(tmp_path, one.url, two.url) as url:
        async with balancer_session(url) as session:
            one.kill()
            for _ in range(20):
                async with session.get("/agents") as response:
                    assert response.status == 200
            two.kill()
            async with session.get("/agents") as response:
                assert response.status == 503
                assert response.headers["retry-after"] == "1"
                assert (await response.json())["error"] == "not_ready"
