"""The limits on the number of connections, and the log of refused ones."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from registry.http_server.connection_table import ConnectionLimits
from registry.telemetry.logs import configure_logs
from tests.support.polling import async_wait_until
from tests.support.raw_http import RawConnection, open_raw_connection
from tests.support.served_registry import ServedRegistry, served_registry

WATCH = b"GET /agents?watch=true HTTP/1.1\r\nhost: localhost\r\n\r\n"
LIMITS = {"all": ConnectionLimits(4), "one address": ConnectionLimits(100, per_address=4)}


@pytest.fixture(params=LIMITS)
async def served(redis_url: str, request: pytest.FixtureRequest) -> AsyncIterator[ServedRegistry]:
    """Provide a registry that accepts four connections, of which its own client uses one."""
    async with served_registry(redis_url, LIMITS[request.param]) as served:
        assert (await served.client.get("/ready")).status_code == 200
        yield served


@contextlib.asynccontextmanager
async def open_connections(served: ServedRegistry, count: int) -> AsyncIterator[list[RawConnection]]:
    """Provide connections that the registry has accepted, in this order."""
    async with contextlib.AsyncExitStack() as stack:
        connections = []
        for _ in range(count):
            connection = await stack.enter_async_context(open_raw_connection(served.url))
            assert (await connection.request("GET", "/ready")).status == 200
            connections.append(connection)
        yield connections


async def test_at_the_limit_the_connection_that_is_idle_longest_is_closed(served: ServedRegistry) -> None:
    """It may be between two requests, or within the head of one."""
    async with open_connections(served, 3) as (half_open, oldest, used):
        assert (await served.client.get("/ready")).status_code == 200
        half_open.send_bytes(b"GET /agents HTTP/1.1\r\n")
        assert (await used.request("GET", "/ready")).status == 200
        async with open_connections(served, 1) as (first,):
            assert await half_open.read_to_end() == b""
            async with open_connections(served, 1):
                assert await oldest.read_to_end() == b""
                assert (await used.request("GET", "/ready")).status == 200
                assert (await first.request("GET", "/ready")).status == 200

    assert served.refused == {"evicted": 2}


async def test_without_an_idle_connection_the_new_one_is_503(served: ServedRegistry) -> None:
    """With a time after which it may try again; then a connection that became idle makes room."""
    async with open_connections(served, 4) as connections:
        for connection in connections:
            connection.send_bytes(WATCH)
        await async_wait_until(
            lambda: len(served.registry.watch_service.watchers) == 4, description="four watches are open"
        )
        async with open_raw_connection(served.url) as refused:
            response = await refused.read_response()
            assert (response.status, response.body["error"]) == (503, "not_ready")
            assert response.headers["retry-after"] == "1"
            refused.send("GET", "/agents")
            assert await refused.read_to_end() == b""
        assert served.refused["too_many_connections"] == 1

    await async_wait_until(lambda: len(served.connections) <= 1, description="the connections are closed")
    async with open_connections(served, 3):
        assert served.refused["too_many_connections"] == 1


async def test_connections_above_the_limit_are_bounded(served: ServedRegistry) -> None:
    """Clients that do not close refused connections take no more descriptors."""
    async with open_connections(served, 4) as connections, contextlib.AsyncExitStack() as stack:
        for connection in connections:
            connection.send_bytes(WATCH)
        await async_wait_until(
            lambda: len(served.registry.watch_service.watchers) == 4, description="four watches are open"
        )
        refused = [await stack.enter_async_context(open_raw_connection(served.url)) for _ in range(60)]
        for each in refused:
            assert (await each.read_response()).status == 503
        assert len(served.connections) <= 4 + 16 + 1
        await served.advance(5)
        await async_wait_until(lambda: len(served.connections) == 4, description="the refused ones are closed")


async def test_one_address_has_no_limit_by_default(redis_url: str) -> None:
    """A balancer opens all connections from its own address."""
    async with served_registry(redis_url) as served, open_connections(served, 50):
        assert not served.refused


@pytest.mark.usefixtures("restored_log_configuration")
async def test_refused_connections_are_logged_once_a_minute(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The first at once, the others with their number; a client that tries TLS alone causes no warning."""
    configure_logs("info", "json")
    async with served_registry(redis_url) as served:

        async def send_garbage(count: int, garbage: bytes) -> None:
            for _ in range(count):
                async with open_raw_connection(served.url) as connection:
                    connection.send_bytes(garbage)
                    await connection.read_to_end()

        capsys.readouterr()
        await send_garbage(1, b"\x16\x03\x01")
        await served.advance(1)
        assert refused_lines(capsys) == [{"level": "info", "tls": 1}]
        await send_garbage(300, b"garbage\r\n\r\n")
        await send_garbage(2, b"\x16\x03\x01")
        await served.advance(40)
        assert refused_lines(capsys) == []
        await served.advance(80)
        assert refused_lines(capsys) == [{"level": "warning", "invalid_request": 300, "tls": 2}]


def refused_lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return the log lines on refused connections since the last call, without time and name."""
    lines = [orjson.loads(line) for line in capsys.readouterr().err.splitlines() if "connections_refused" in line]
    hidden = {"timestamp", "event", "logger"}
    return [{name: value for name, value in line.items() if name not in hidden} for line in lines]
