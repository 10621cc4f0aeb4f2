"""A replica as a process with a real socket: behaviour of the HTTP server and of the process."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis

from tests.support.endpoints import all_endpoints
from tests.support.faulty_tcp_proxy import FaultyTcpProxy
from tests.support.http_calls import (
    JSON_HEADERS,
    REQUEST_TIMEOUT_S,
    a_registration,
    expect_error,
    expect_success,
    list_agent_ids,
    register,
)
from tests.support.polling import async_wait_until, wait_until
from tests.support.ports import free_port
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica

TOKEN = "s3cret"  # noqa: S105 - it opens nothing but these tests


@pytest.fixture
def replica(redis_url: str) -> Iterator[Replica]:
    """Provide a running replica, which must exit cleanly."""
    with Replica(redis_url) as running:
        yield running


async def test_the_five_calls_of_the_workflow(replica: Replica) -> None:
    """Register, heartbeat, discover, status and unregister over a socket."""
    async with httpx2.AsyncClient(base_url=replica.url, timeout=REQUEST_TIMEOUT_S) as client:
        expect_success(await client.post("/mcp/tools/register_agent", json={"registration_data": a_registration()}))
        expect_success(await client.post("/mcp/tools/heartbeat", json={"agent_id": "a"}))
        found = expect_success(await client.post("/mcp/tools/discover_services", json={"query": {"status": "healthy"}}))
        status = expect_success(await client.post("/mcp/tools/get_agent_status", json={"agent_id": "a"}))
        expect_success(await client.post("/mcp/tools/unregister_agent", json={"agent_id": "a"}))

        assert found["agents"] == [status["agent"]]
        assert await list_agent_ids(client) == []


async def test_head_is_get_without_the_body(replica: Replica) -> None:
    """The same status and headers, no bytes."""
    async with httpx2.AsyncClient(base_url=replica.url, timeout=REQUEST_TIMEOUT_S) as client:
        await register(client)
        for path in (
            "/",
            "/agents",
            "/agents/a",
            "/agents/a/status",
            "/capabilities",
            "/health/a",
            "/ready",
            "/metrics",
        ):
            response = await client.head(path)
            assert (response.status_code, response.content) == (200, b""), path
            assert int(response.headers["content-length"]) > 0
        missing = await client.head("/agents/nobody")
        assert (missing.status_code, missing.content) == (404, b"")


async def test_ten_megabytes_are_413_declared_or_streamed(replica: Replica) -> None:
    """With a declared length or streamed, for every kind of call; the next request of the client is served."""
    body = b'{"id":"' + b"x" * 10_000_000 + b'"}'

    async def streamed() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 65536):
            yield body[at : at + 65536]

    async with httpx2.AsyncClient(base_url=replica.url, timeout=REQUEST_TIMEOUT_S) as client:
        for path in ("/agents", "/heartbeat", "/agents/batch", "/mcp/tools/register_agent"):
            for content in (body, streamed()):
                # The server may respond and close before it has received the whole body, so the client detects either
                # of them.
                with contextlib.suppress(httpx2.WriteError, httpx2.ReadError, httpx2.RemoteProtocolError):
                    expect_error(
                        await client.post(path, content=content, headers=JSON_HEADERS), 413, "request_too_large"
                    )
        await register(client)


def exchange(url: str, request: bytes) -> bytes:
    """Send bytes over a socket, and return all received bytes once the server closes it."""
    where = httpx2.URL(url)
    with socket.create_connection((where.host, where.port or 80), timeout=REQUEST_TIMEOUT_S) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        response = b""
        while chunk := connection.recv(65536):
            response += chunk
        return response


HALF_A_REQUEST = (
    b"POST /agents HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"
)
STRANGE = {
    "no http": b"hello\r\n\r\n",
    "no host": b"GET /agents HTTP/1.1\r\n\r\n",
    "nul in the path": b"GET /agents/\x00 HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "bytes in the path": b"GET /agents/\xff\xfe HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "bytes in the query": b"GET /agents?\xff=\xfe HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "broken escape": b"GET /agents/%zz HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "surrogate escape": b"GET /agents/%ED%A0%80 HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "whole url": b"GET http://a/agents HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "star": b"OPTIONS * HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "connect": b"CONNECT a:80 HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "bad length": b"POST /agents HTTP/1.1\r\nhost: localhost\r\ncontent-length: x\r\n\r\n",
    "negative length": b"POST /agents HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
    "half a body": HALF_A_REQUEST,
    "half a header": b"GET /agents HTTP/1.1\r\nhost",
    "http 1.0": b"GET /agents HTTP/1.0\r\n\r\n",
    "websocket": b"GET /agents HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
}


def test_malformed_requests_are_never_5xx(replica: Replica) -> None:
    """No bytes on the socket cause a 5xx or an error in the log."""
    for name, request in STRANGE.items():
        response = exchange(replica.url, request)
        assert not response.startswith(b"HTTP/1.1 5"), (name, response)

    assert httpx2.get(f"{replica.url}/agents", timeout=REQUEST_TIMEOUT_S).status_code == 200
    assert '"level":"error"' not in replica.output


def test_the_metrics_port_requires_no_token_and_shows_no_details(redis_url: str) -> None:
    """Text under /metrics and /metrics/prometheus, and probes; the metrics of the API port require the token."""
    port = free_port()
    with Replica(redis_url, METRICS_PORT=str(port), AUTH_TOKEN=TOKEN) as replica:
        scrape = f"http://127.0.0.1:{port}"

        for path in ("/metrics", "/metrics/prometheus"):
            response = httpx2.get(scrape + path, headers={"accept": "application/json"}, timeout=REQUEST_TIMEOUT_S)
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/plain")
            assert "mcp_registry_agents_total 0" in response.text
            assert httpx2.get(replica.url + path, timeout=REQUEST_TIMEOUT_S).status_code == 401
        for headers in ({}, {"authorization": f"Bearer {TOKEN}"}):
            health = httpx2.get(f"{scrape}/health", headers=headers, timeout=REQUEST_TIMEOUT_S).json()
            assert health == {"status": "healthy", "ready": True}
        assert httpx2.get(f"{scrape}/ready", timeout=REQUEST_TIMEOUT_S).json() == {"status": "ready"}
        for path in ("/agents", "/", "/health/a", "/mcp/tools"):
            expect_error(httpx2.get(scrape + path, timeout=REQUEST_TIMEOUT_S), 404, "not_found")
        assert TOKEN not in replica.output


def test_admin_is_404_on_the_api_port_if_it_has_a_port_of_its_own(redis_url: str) -> None:
    """Also below /api/v1; the token is required there, too, and each port describes only its own paths."""
    port = free_port()
    admin_paths = ("/admin/drain", "/api/v1/admin/drain", "/admin/self-preservation/end")
    with Replica(redis_url, REGISTRY_ADMIN_PORT=str(port), AUTH_TOKEN=TOKEN) as replica:
        authorized = {"authorization": f"Bearer {TOKEN}"}
        with (
            httpx2.Client(base_url=replica.url, headers=authorized, timeout=REQUEST_TIMEOUT_S) as api,
            httpx2.Client(base_url=f"http://127.0.0.1:{port}", headers=authorized, timeout=REQUEST_TIMEOUT_S) as admin,
        ):
            for path in admin_paths:
                expect_error(api.post(path), 404, "not_found")
                assert admin.post(path).status_code == 200
            assert api.get("/agents").status_code == admin.get("/ready").status_code == 200
            expect_error(admin.get("/agents"), 404, "not_found")
            expect_error(admin.post("/%61dmin/drain"), 404, "not_found")
            expect_error(httpx2.post(f"http://127.0.0.1:{port}/admin/drain"), 401, "unauthorized")

            described = {client: {*client.get("/").json()["endpoints"]} for client in (api, admin)}
            assert {*admin.get("/openapi.json").json()["paths"]} == {each.split()[1] for each in described[admin]}
        assert described[api] | described[admin] == {*all_endpoints()}
        assert {each for each in described[admin] if "/admin/" in each} == described[admin] - described[api]


def test_a_port_in_use_is_reported_with_a_remedy(redis_url: str) -> None:
    """The process exits at once, with one sentence and no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(AssertionError, match="ended with status 1") as failed:
            Replica(redis_url, REGISTRY_PORT=port).start()

    assert f"Cannot listen on 127.0.0.1:{port}" in str(failed.value)
    assert "--port" in str(failed.value)
    assert "Traceback" not in str(failed.value)


def test_invalid_settings_are_reported_together(redis_url: str) -> None:
    """Each with its name, its value and the expected form."""
    with pytest.raises(AssertionError, match="ended with status 1") as failed:
        Replica(redis_url, AGENT_TIMEOUT="soon", REGISTRY_PORT="http", AUTH_TOKEN=" ").start()  # noqa: S106 - a bad one

    for name in ("AGENT_TIMEOUT", "REGISTRY_PORT", "AUTH_TOKEN"):
        assert name in str(failed.value)
    assert "Traceback" not in str(failed.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104 - the process does not start
def test_t21_a_replica_that_strangers_reach_does_not_start_without_a_credential(redis_url: str, host: str) -> None:
    """The message contains the settings that would help, and all other problems."""
    with pytest.raises(AssertionError, match="ended with status 1") as failed:
        Replica(redis_url, REGISTRY_HOST=host, AGENT_TIMEOUT="soon").start()

    for text in ("set AUTH_TOKEN, or REGISTRY_OPEN=true", "AGENT_TIMEOUT is 'soon'"):
        assert text in str(failed.value)
    assert "Traceback" not in str(failed.value)


def test_t21_an_open_replica_reports_that_strangers_may_use_it(redis_url: str) -> None:
    """In the log, in /health and in the metrics."""
    with Replica(redis_url, REGISTRY_HOST="0.0.0.0", REGISTRY_OPEN="true") as replica:  # noqa: S104
        health = httpx2.get(f"{replica.url}/health", timeout=REQUEST_TIMEOUT_S).json()
        metrics = httpx2.get(f"{replica.url}/metrics/prometheus", timeout=REQUEST_TIMEOUT_S).text
        log = replica.output

    warning = "Everyone who reaches 0.0.0.0 may read and change everything (REGISTRY_OPEN); set AUTH_TOKEN"
    assert warning in health["warnings"]
    assert 'mcp_registry_insecure{reason="open"} 1.0' in metrics
    assert 'mcp_registry_insecure{reason="sample_token"} 0.0' in metrics
    (line,) = [line for line in log.splitlines() if "insecure_registry" in line]
    assert '"level":"error"' in line
    assert warning in line


@pytest.mark.parametrize("setting", ["METRICS_PORT", "REGISTRY_ADMIN_PORT"])
def test_another_port_in_use_is_reported_with_its_setting(redis_url: str, setting: str) -> None:
    """The message names the setting of the port that is in use."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(AssertionError, match="ended with status 1") as failed:
            Replica(redis_url, **{setting: port}).start()

    assert f"Cannot listen on 127.0.0.1:{port}" in str(failed.value)
    assert f"another port with {setting}" in str(failed.value)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_an_unfinished_request_does_not_delay_the_shutdown(replica: Replica, number: signal.Signals) -> None:
    """The process waits its grace for the rest of a body, then exits in time with status 0."""
    where = httpx2.URL(replica.url)
    with socket.create_connection((where.host, where.port or 80), timeout=REQUEST_TIMEOUT_S) as connection:
        connection.sendall(HALF_A_REQUEST)
        httpx2.get(f"{replica.url}/ready", timeout=REQUEST_TIMEOUT_S)  # returns once the first half was read

        replica.send_signal(number)
        replica.stop()
        replica.start()


async def test_sigterm_finishes_calls_in_flight(redis_url: str) -> None:
    """A registration that waits for Redis is answered, then the process exits with status 0."""
    async with FaultyTcpProxy(redis_url) as proxy:
        replica = await asyncio.to_thread(_started, proxy.url)
        async with httpx2.AsyncClient(base_url=replica.url, timeout=REQUEST_TIMEOUT_S) as client:
            await register(client, "first")
            proxy.delay_s = 0.3
            before = proxy.requests
            response = asyncio.create_task(client.post("/agents", json=a_registration("last")))
            await async_wait_until(lambda: proxy.requests > before, description="the write is sent to Redis")

            replica.send_signal(signal.SIGTERM)
            done = expect_success(await response)
        proxy.delay_s = 0
        # A second SIGTERM could meet the process after it has removed its handlers.
        status = await asyncio.to_thread(replica.wait_for_exit)
        replica.kill()

    assert status == 0
    assert done["agent_id"] == "last"


def _started(url: str) -> Replica:
    replica = Replica(url)
    replica.start()
    return replica


async def test_sigterm_releases_the_leadership_despite_idle_connections(
    redis_url: str, redis_client: redis.Redis
) -> None:
    """The process exits in time despite open keep-alive connections, and the lock is free."""
    replica = await asyncio.to_thread(_started, redis_url)
    async with httpx2.AsyncClient(base_url=replica.url, timeout=REQUEST_TIMEOUT_S) as client:
        await asyncio.gather(*(client.get("/agents") for _ in range(5)))
        await async_wait_until(lambda: redis_client.get("{mesh}:leader"), description="the replica leads")

        await asyncio.to_thread(replica.stop)

    assert redis_client.get("{mesh}:leader") is None


def test_sigterm_stops_the_process_during_an_outage(dedicated_redis: RedisServer) -> None:
    """While Redis is frozen, the process also exits within its five seconds."""
    with Replica(dedicated_redis.url) as replica:
        dedicated_redis.pause()
        try:
            replica.stop()
        finally:
            dedicated_redis.resume()


def test_the_embedded_redis_preserves_acknowledged_writes(tmp_path: Path) -> None:
    """After a clean stop and after a kill: the agents and their versions are restored."""
    data = str(tmp_path / "data")
    with Replica(REGISTRY_DATA_DIR=data) as replica:
        response = httpx2.post(f"{replica.url}/agents", json=a_registration("a"), timeout=REQUEST_TIMEOUT_S)
        version = expect_success(response)["resource_version"]
    with Replica(REGISTRY_DATA_DIR=data) as replica:
        assert httpx2.get(f"{replica.url}/agents/a", timeout=REQUEST_TIMEOUT_S).json()["resource_version"] == version
        expect_success(httpx2.post(f"{replica.url}/agents", json=a_registration("b"), timeout=REQUEST_TIMEOUT_S))
        replica.kill()
    with Replica(REGISTRY_DATA_DIR=data) as replica:
        assert [
            agent["id"] for agent in httpx2.get(f"{replica.url}/agents", timeout=REQUEST_TIMEOUT_S).json()["agents"]
        ] == ["a", "b"]


async def test_three_replicas_share_one_mesh(redis_url: str) -> None:
    """100 agents register concurrently, round robin: each replica lists them all at once."""
    with Replica(redis_url) as one, Replica(redis_url) as two, Replica(redis_url) as three:
        async with contextlib.AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(httpx2.AsyncClient(base_url=replica.url, timeout=REQUEST_TIMEOUT_S))
                for replica in (one, two, three)
            ]
            await asyncio.gather(*(register(clients[n % 3], f"a{n:02}") for n in range(100)))
            lists: list[Any] = [await list_agent_ids(client) for client in clients]
            leaders = [(await client.get("/health")).json()["leader"]["instance"] for client in clients]

    assert lists[0] == lists[1] == lists[2] == [f"a{n:02}" for n in range(100)]
    assert len(set(leaders)) == 1


async def test_long_polls_end_in_time_on_uvloop(replica: Replica) -> None:
    """The timers of uvloop, which only the process uses, may fire early."""
    async with httpx2.AsyncClient(base_url=replica.url, timeout=REQUEST_TIMEOUT_S) as client:
        version = await register(client)
        path = f"/agents?agent_id=nobody&resource_version={version}"

        responses = await asyncio.gather(*(client.get(f"{path}&wait={at}ms") for at in range(200, 240)))

    assert {response.status_code for response in responses} == {200}


def test_log_lines_are_json_without_a_terminal(redis_url: str) -> None:
    """One object for each line, except for the lines for people."""
    with Replica(redis_url) as replica:
        wait_until(lambda: "cache_filled" in replica.output, description="the replica has filled its cache")
        lines = [line for line in replica.output.splitlines() if line and not line.startswith("  ")]

    assert lines
    assert all(line.startswith("{") for line in lines)
