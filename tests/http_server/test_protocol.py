"""Limits of the HTTP protocol on bytes and on time; the test advances the clock of the deadlines."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import orjson
import pytest

from registry.http_server.refusals import MAX_HEAD_BYTES, MAX_HEADERS, MAX_TARGET_BYTES
from tests.support.http_calls import a_registration
from tests.support.polling import async_wait_until
from tests.support.raw_http import RawConnection, open_raw_connection
from tests.support.served_registry import ServedRegistry

GET = b"GET /agents HTTP/1.1\r\nhost: localhost\r\n\r\n"
HEAD_START = b"GET /agents HTTP/1.1\r\nhost: localhost\r\n"
BODY = orjson.dumps(a_registration())
POST_HEAD = b"POST /agents HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
LOST_POST_HEAD = POST_HEAD.replace(b"/agents", b"/no/such/path")
POST = POST_HEAD + b"content-length: %d\r\n\r\n" % len(BODY)
WATCH = b"GET /agents?watch=true HTTP/1.1\r\nhost: localhost\r\n\r\n"


@pytest.fixture
async def connection(served: ServedRegistry) -> AsyncIterator[RawConnection]:
    """Provide a connection, which the registry has accepted."""
    before = len(served.connections)
    async with open_raw_connection(served.url) as connection:
        await async_wait_until(lambda: len(served.connections) > before, description="the connection is accepted")
        yield connection


async def expect_refusal(connection: RawConnection, status: int, code: str) -> None:
    """Read an error response in the format of the registry, after which the connection ends."""
    response = await connection.read_response()
    assert (response.status, response.body["error"], response.body["status"]) == (status, code, "error")
    assert response.headers["connection"] == "close"
    assert await connection.read_to_end() == b""


async def received(served: ServedRegistry) -> None:
    """Wait until the registry has read the bytes that were sent before."""
    async with open_raw_connection(served.url) as connection:
        assert (await connection.request("GET", "/ready")).status == 200


@pytest.mark.parametrize("sliced", [False, True])
async def test_a_head_of_32_kib_is_accepted_and_a_longer_one_is_431(served: ServedRegistry, sliced: bool) -> None:  # noqa: FBT001
    """However it is divided into packets."""
    for size, status in ((MAX_HEAD_BYTES - 300, 200), (MAX_HEAD_BYTES + 300, 431)):
        head = HEAD_START + b"".join(b"x%d: %s\r\n" % (at, b"v" * (size // 10 - 7)) for at in range(10)) + b"\r\n"
        async with open_raw_connection(served.url) as connection:
            for start in range(0, len(head), 1000 if sliced else len(head)):
                connection.send_bytes(head[start : start + (1000 if sliced else len(head))])
                await asyncio.sleep(0)
            assert (await connection.read_response()).status == status


async def test_a_head_in_the_packet_of_an_earlier_body_has_the_same_limit(
    served: ServedRegistry, connection: RawConnection
) -> None:
    """The body does not count."""
    small = HEAD_START + b"x: %s\r\n\r\n" % (b"v" * (MAX_HEAD_BYTES - 2000))
    large = HEAD_START + b"x: %s\r\n\r\n" % (b"v" * (MAX_HEAD_BYTES + 10))
    connection.send_bytes(POST + BODY + small + large)

    assert (await connection.read_response()).status == 200
    assert (await connection.read_response()).status == 200
    await expect_refusal(connection, 431, "request_too_large")
    assert served.refused == {"head_too_large": 1}


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /agents?name=%s HTTP/1.1\r\nhost: localhost\r\n\r\n" % (b"n" * MAX_TARGET_BYTES), 414),
        (b"GET /agents?name=%s" % (b"n" * MAX_TARGET_BYTES), 414),
        (HEAD_START + b"x: y\r\n" * MAX_HEADERS + b"\r\n", 431),
        (HEAD_START + b"x: %s" % (b"v" * 2 * MAX_HEAD_BYTES), 431),
        (HEAD_START + b"x: %s" % (b" " * 2 * MAX_HEAD_BYTES), 431),
        (b"\r\n" * MAX_HEAD_BYTES, 431),
    ],
    ids=["target", "endless target", "101 headers", "endless header", "endless blanks", "endless lines"],
)
async def test_more_than_a_limit_is_414_or_431(
    served: ServedRegistry, connection: RawConnection, head: bytes, status: int
) -> None:
    """In the error format of the registry; the bytes that follow are discarded."""
    connection.send_bytes(head + GET)

    await expect_refusal(connection, status, "request_too_large")
    assert served.refused == {"head_too_large": 1}


async def test_a_trailer_is_no_header_and_has_the_limit_of_a_head(
    served: ServedRegistry, connection: RawConnection
) -> None:
    """A body ends at the trailer of its limit."""
    chunked = POST_HEAD + b"transfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n" % (len(BODY), BODY)
    connection.send_bytes(chunked + b"content-encoding: gzip\r\n\r\n")
    assert (await connection.read_response()).status == 200

    connection.send_bytes(chunked + b"x: " + b"v" * 2 * MAX_HEAD_BYTES)
    await expect_refusal(connection, 431, "request_too_large")
    assert served.refused == {"head_too_large": 1}


@pytest.mark.parametrize("extension", [b"", b";e=1"])
async def test_a_body_in_one_byte_chunks_is_read(
    served: ServedRegistry, connection: RawConnection, extension: bytes
) -> None:
    """Its framing is larger than the limit of a head."""
    padded = BODY + b" " * 10_000
    chunks = b"".join(b"1%s\r\n%c\r\n" % (extension, byte) for byte in padded)
    connection.send_bytes(POST_HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")

    assert (await connection.read_response()).status == 200
    assert not served.refused


async def test_a_client_that_sends_nothing_is_closed_after_10_s(
    served: ServedRegistry, connection: RawConnection
) -> None:
    """Without a response, as there is no request."""
    await served.advance(9)
    connection.send_bytes(b"\r\n")
    await received(served)
    assert not served.refused
    await served.advance(2)

    assert await connection.read_to_end() == b""
    assert served.refused == {"no_request": 1}


async def test_an_idle_connection_is_closed_after_75_s(served: ServedRegistry, connection: RawConnection) -> None:
    """It may send the next request until then; bytes that begin no request do not extend the time."""
    for _ in range(2):
        assert (await connection.request("GET", "/agents")).status == 200
        await served.advance(70)
    assert (await connection.request("GET", "/agents")).status == 200
    await served.advance(70)
    connection.send_bytes(b"\r\n")
    await received(served)
    await served.advance(7)

    assert await connection.read_to_end() == b""
    assert "no_request" not in served.refused


@pytest.mark.parametrize("first", [b"", GET], ids=["first request", "second request"])
async def test_a_head_that_is_incomplete_after_10_s_is_408(
    served: ServedRegistry, connection: RawConnection, first: bytes
) -> None:
    """Bytes that arrive in between do not extend the time."""
    if first:
        connection.send_bytes(first)
        assert (await connection.read_response()).status == 200
    connection.send_bytes(HEAD_START)
    for byte in (b"x", b":", b"y"):
        await received(served)
        await served.advance(3)
        connection.send_bytes(byte)
    await served.advance(2)

    await expect_refusal(connection, 408, "request_timeout")
    assert served.refused == {"head_timeout": 1}


async def test_a_body_may_take_30_s_and_then_needs_16_kib_per_second(
    served: ServedRegistry, connection: RawConnection
) -> None:
    """A slower one is 408; the time of a large body grows with the bytes that have arrived."""
    connection.send_bytes(POST_HEAD + b"content-length: 1000000\r\n\r\n")
    for part in range(1, 5):
        connection.send_bytes(b" " * 225_000)
        expected = part * 225_000
        await async_wait_until(partial(has_body_bytes, served, expected), description="it has arrived")
        await served.advance(12)
    assert not served.refused
    await served.advance(10)

    await expect_refusal(connection, 408, "request_timeout")
    assert served.refused == {"body_timeout": 1}


async def test_the_end_of_a_body_ends_its_deadline(served: ServedRegistry, connection: RawConnection) -> None:
    """A request that waits for a change is in progress for longer than any deadline."""
    connection.send_bytes(b"GET /agents?wait=5m&resource_version=0 HTTP/1.1\r\nhost: localhost\r\n\r\n")
    connection.send_bytes(b"GET /agents?wait=5m HTTP/1.1\r\nhost: localhost\r\n\r\n")
    await received(served)
    await served.advance(300)
    await received(served)

    assert "body_timeout" not in served.refused
    assert "head_timeout" not in served.refused


async def test_the_body_of_a_request_with_an_early_response_has_a_deadline(
    served: ServedRegistry, connection: RawConnection
) -> None:
    """It is discarded; without more of it the connection ends."""
    connection.send_bytes(LOST_POST_HEAD + b"content-length: 100\r\n\r\nx")
    assert (await connection.read_response()).status == 404
    await served.advance(31)

    assert await connection.read_to_end() == b""
    assert served.refused == {"body_timeout": 1}


async def test_the_next_request_follows_a_body_with_an_early_response(connection: RawConnection) -> None:
    """The body is no request."""
    connection.send_bytes(LOST_POST_HEAD + b"content-length: %d\r\n\r\n" % len(GET))
    assert (await connection.read_response()).status == 404
    connection.send_bytes(GET + GET)

    assert (await connection.read_response()).status == 200


async def test_a_client_that_does_not_read_its_response_is_dropped_after_60_s(
    served: ServedRegistry, connection: RawConnection
) -> None:
    """It requests more than fits into the buffers of the sockets."""
    for number in range(20):
        document = a_registration() | {"id": f"a{number}", "metadata": {"text": "x" * 500_000}}
        assert (await served.client.post("/agents", json=document)).status_code == 200
    connection.pause_reading()
    connection.send_bytes(GET)
    sockets = len(served.connections)
    await async_wait_until(lambda: any_unread(served), description="the response fills the buffers")
    await served.advance(58)
    assert len(served.connections) == sockets
    await served.advance(12)
    await async_wait_until(lambda: len(served.connections) < sockets, description="the connection is dropped")

    assert served.refused["unread_response"] == 1


def has_body_bytes(served: ServedRegistry, count: int) -> bool:
    """Return whether this number of bytes of bodies has arrived."""
    return count == sum(each._body_bytes for each in served.connections._connections)  # type: ignore[attr-defined]


def any_unread(served: ServedRegistry) -> bool:
    """Return whether a response waits for its client."""
    return any(each.transport.get_write_buffer_size() for each in served.connections._connections)  # type: ignore[attr-defined]


async def test_a_stream_has_no_deadline(served: ServedRegistry, connection: RawConnection) -> None:
    """A watch lasts for minutes."""
    connection.send_bytes(WATCH)
    head = await connection.read_until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    await served.advance(400)
    await served.client.post("/agents", json=a_registration())

    assert b"ADDED" in await connection.read_until(b"ADDED")


async def test_an_invalid_request_waits_for_the_response_to_an_earlier_one(
    served: ServedRegistry, connection: RawConnection
) -> None:
    """Otherwise its error would be the response to the earlier request."""
    connection.send_bytes(GET + POST + BODY + b"no request\r\n\r\n" + GET)

    assert (await connection.read_response()).status == 200
    assert (await connection.read_response()).body["agent_id"] == "a"
    await expect_refusal(connection, 400, "malformed_request")
    assert served.refused == {"invalid_request": 1}


async def test_an_invalid_chunk_is_400_for_its_request(served: ServedRegistry, connection: RawConnection) -> None:
    """Also behind another request."""
    chunked = POST_HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n"
    connection.send_bytes(chunked)
    await expect_refusal(connection, 400, "malformed_request")
    async with open_raw_connection(served.url) as second:
        second.send_bytes(GET + chunked)
        assert (await second.read_response()).status == 200
        await expect_refusal(second, 400, "malformed_request")

    assert served.refused == {"invalid_request": 2}


async def test_many_requests_in_one_packet_wait_unparsed(served: ServedRegistry, connection: RawConnection) -> None:
    """Memory does not grow with the number of requests that a client sends without reading."""
    connection.send_bytes(GET * 3000)
    queued = 0
    for _ in range(3000):
        assert (await connection.read_response()).status == 200
        queued = max(queued, *(len(each.pipeline) for each in served.connections._connections))  # type: ignore[attr-defined]

    assert 0 < queued < 500


async def test_the_body_of_a_queued_request_is_read(connection: RawConnection) -> None:
    """It arrives in the same packet, behind more bytes than are parsed at once."""
    body = BODY + b" " * 100_000
    head = POST_HEAD + b"content-length: %d\r\n\r\n" % len(body)
    connection.send_bytes(GET + head + body + GET)

    assert [(await connection.read_response()).status for _ in range(3)] == [200, 200, 200]


async def test_a_request_behind_a_watch_does_not_hide_that_its_client_disconnects(served: ServedRegistry) -> None:
    """The watch ends with the connection."""
    async with open_raw_connection(served.url) as connection:
        connection.send_bytes(WATCH + GET)
        await async_wait_until(lambda: len(served.registry.watch_service.watchers) == 1, description="it watches")

    await async_wait_until(lambda: not served.registry.watch_service.watchers, description="the watch has ended")
