"""The bytes of responses: their head, and the headers that every response has."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httptools
import pytest
from starlette.types import Receive, Scope, Send

from registry.api.response.security_headers import SECURITY_HEADERS
from registry.http_server import refusals
from registry.http_server.listener import Listener
from registry.http_server.refusals import Refusal
from tests.support.http_calls import REQUEST_TIMEOUT_S

GET, HEAD = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n"
LAST_GET = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
LENGTH = (b"content-length", b"2")


@contextlib.asynccontextmanager
async def listener(status: int, *headers: tuple[bytes, bytes], body: bytes = b"hi") -> AsyncIterator[Listener]:
    """Provide a server whose every response has this status, headers and body."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [*headers]})
        await send({"type": "http.response.body", "body": body})

    with Listener("127.0.0.1", 0, "--port") as running:
        running.start(app)
        yield running
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            await running.stop()


async def exchange(server: Listener, request: bytes) -> bytes:
    """Send requests, of which the last one closes the connection; return all responses without their dates."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request)
    received = await reader.read()
    writer.close()
    return b"\r\n".join(line for line in received.split(b"\r\n") if not line.startswith(b"date: "))


async def test_each_response_on_a_connection_has_its_own_head() -> None:
    """Also of pipelined requests; the last one announces the end of the connection."""
    async with listener(200, LENGTH, (b"x-a", b"1")) as server:
        head = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-a: 1\r\n"

        received = await exchange(server, GET + HEAD + LAST_GET)

    assert received == head + b"\r\nhi" + head + b"\r\n" + head + b"connection: close\r\n\r\nhi"


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b"hi", b"HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
        (204, b"", b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"),
        (304, b"", b"HTTP/1.1 304 Not Modified\r\nconnection: close\r\n\r\n"),
        (
            421,
            b"",
            b"HTTP/1.1 421 Misdirected Request\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
    ],
)
async def test_a_response_without_a_length_is_chunked_if_it_may_have_a_body(
    status: int, body: bytes, expected: bytes
) -> None:
    """204 and 304 have none."""
    async with listener(status, body=body) as server:
        assert await exchange(server, LAST_GET) == expected


async def test_during_a_shutdown_each_response_closes_its_connection() -> None:
    """The header of the server is the only one."""
    async with listener(200, LENGTH) as server:
        assert (await exchange(server, LAST_GET)).count(b"connection: close") == 1
        server.disable_keep_alive()
        assert (await exchange(server, GET)).count(b"connection: close") == 1


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: x", b"a\nset-cookie: x", b"a\rb"])
async def test_a_header_with_a_line_break_is_not_sent(value: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """The connection ends without a response, and the log has the reason."""
    async with listener(200, LENGTH, (b"x-a", value)) as server:
        assert await exchange(server, GET) == b""
    assert "line break" in caplog.text


@pytest.mark.parametrize(
    "refusal",
    [each for each in vars(refusals).values() if isinstance(each, Refusal) and each.response],
    ids=lambda each: each.reason,
)
def test_a_response_without_an_application_has_the_security_headers(refusal: Refusal) -> None:
    """As every response."""
    found: list[tuple[bytes, bytes]] = []
    parser = httptools.HttpResponseParser(type("Collector", (), {"on_header": lambda _, *each: found.append(each)})())

    parser.feed_data(refusal.response)

    assert set(SECURITY_HEADERS) <= set(found)
