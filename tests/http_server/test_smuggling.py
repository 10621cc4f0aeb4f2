"""Request smuggling: 60 requests that two parsers may divide differently, directly and through balancers.

A form is sent on a connection of its own, with a probe hidden in it; clients on other connections send numbered
requests meanwhile. No response may belong to another request.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.deploy.test_balancer import balancer
from tests.support.load_balancers import HAPROXY_PATH, NGINX_PATH, nginx, wait_until_it_forwards
from tests.support.raw_http import open_raw_connection
from tests.support.replica import Replica

FORM_ID, PROBE_ID, LAST_ID = b"form", b"probe", b"last"
PROBE = b"GET /agents/smuggled HTTP/1.1\r\nhost: localhost\r\nx-request-id: %s\r\n\r\n" % PROBE_ID
HEAD = b"POST /agents HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nx-request-id: form\r\n"
CHUNKED = b"0\r\n\r\n" + PROBE
IN_CHUNK = b"%x\r\n%s\r\n0\r\n\r\n" % (len(PROBE), PROBE)
LENGTH = b"content-length: %d\r\n" % len(CHUNKED)
ENCODINGS = [
    b"transfer-encoding: chunked",
    b"transfer-encoding:chunked",
    b"Transfer-Encoding : chunked",
    b"transfer-encoding:\tchunked",
    b"transfer-encoding: \x0bchunked",
    b"transfer-encoding: chunked\x0b",
    b"transfer-encoding: xchunked",
    b"transfer-encoding: chunked, identity",
    b"transfer-encoding: identity, chunked",
    b"transfer-encoding: identity",
    b"transfer-encoding: gzip, chunked",
    b"transfer-encoding: chunked\r\ntransfer-encoding: identity",
    b"transfer-encoding: chunked\r\ntransfer-encoding: chunked",
    b'transfer-encoding: "chunked"',
    b"transfer-encoding: CHUNKED",
    b"transfer-encoding:\r\n chunked",
    b"x: y\r\n transfer-encoding: chunked",
    b"x: y\ntransfer-encoding: chunked",
    b"x: y\rtransfer-encoding: chunked",
    b"\ttransfer-encoding: chunked",
    b"transfer_encoding: chunked",
    b"transfer-encoding\x00: chunked",
]
LENGTHS = [b"+%d", b"-%d", b"0x%x", b"%d,%d", b"%d, 0", b"0, %d", b"%d ", b"\t%d", b"%d.0", b"%d;", b"00%d", b"%d\x0b"]
SECOND_LENGTHS = [
    b"content-length: 0",
    b"Content-Length: 5",
    b"content-length : 0",
    b"content_length: 0",
    b"content-length:",
]
CHUNKS = [
    b"0;x=y\r\n\r\n" + PROBE,
    b"0;\n\r\n\r\n" + PROBE,
    b"0\n\n" + PROBE,
    b"0\r\nx: y\r\n\r\n" + PROBE,
    b"0\r\ncontent-length: 5\r\n\r\n" + PROBE,
    b"0x0\r\n\r\n" + PROBE,
    b"+0\r\n\r\n" + PROBE,
    b"-1\r\n\r\n" + PROBE,
    b"00000000000000000000\r\n\r\n" + PROBE,
    b"10000000000000000\r\n" + PROBE,
    b"1;\r\na\r\n0\r\n\r\n" + PROBE,
    b"1\r\nab\r\n0\r\n\r\n" + PROBE,
    b"1 \r\na\r\n0\r\n\r\n" + PROBE,
]


def length(text: bytes) -> bytes:
    """Return a Content-Length header whose value is written in some way."""
    return b"content-length: " + text.replace(b"%d", b"%d" % len(PROBE)).replace(b"%x", b"%x" % len(PROBE))


FORMS = [
    *(HEAD + LENGTH + encoding + b"\r\n\r\n" + CHUNKED for encoding in ENCODINGS),
    *(HEAD + length(text) + b"\r\n\r\n" + PROBE for text in LENGTHS),
    *(HEAD + b"content-length: %d\r\n" % len(PROBE) + second + b"\r\n\r\n" + PROBE for second in SECOND_LENGTHS),
    *(HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunks for chunks in CHUNKS),
    HEAD + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n" + IN_CHUNK,
    HEAD.replace(b"1.1", b"1.0") + b"transfer-encoding: chunked\r\n\r\n" + CHUNKED,
    HEAD.replace(b"1.1", b"0.9") + LENGTH + b"\r\n" + CHUNKED,
    HEAD.replace(b"POST", b"GET") + LENGTH + b"\r\n" + CHUNKED,
    HEAD.replace(b"POST", b"HEAD") + LENGTH + b"transfer-encoding: chunked\r\n\r\n" + CHUNKED,
    HEAD + b"expect: 100-continue\r\n" + LENGTH + b"\r\n" + CHUNKED,
    HEAD + b"connection: upgrade\r\nupgrade: h2c\r\n" + LENGTH + b"transfer-encoding: chunked\r\n\r\n" + CHUNKED,
    HEAD + b"connection: content-length\r\n" + LENGTH + b"\r\n" + CHUNKED,
]


@pytest.fixture
async def replica(redis_url: str) -> AsyncIterator[Replica]:
    """Provide a replica that responds to any name."""
    with Replica(redis_url) as running:
        yield running


async def response_ids(url: str, form: bytes) -> list[bytes]:
    """Send a form, then another request; return the ids of the requests whose responses arrive on its connection."""
    received = b""
    async with open_raw_connection(url) as connection:
        connection.send_bytes(form + PROBE.replace(PROBE_ID, LAST_ID) + b"no request\r\n\r\n")
        # A form whose body is incomplete has no response.
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(1):
                while data := await connection._reader.read(65536):
                    received += data
    return re.findall(rb"\r\nx-request-id: ([^\r]+)\r\n", received, re.IGNORECASE)


async def numbered_requests(url: str, name: str, ended: asyncio.Event) -> int:
    """Send numbered requests over one connection after the other; each response must have the number of its request."""
    count = 0
    while not ended.is_set() or not count:
        async with open_raw_connection(url) as connection:
            for _ in range(5):
                count += 1
                expected = f"{name}-{count}"
                response = await connection.request("GET", f"/agents/{expected}", headers={"x-request-id": expected})
                assert (response.status, response.headers["x-request-id"]) == (404, expected)
                assert expected in response.body["message"]
    return count


async def check(url: str) -> None:
    """Send all forms while other clients send requests through the same balancer."""
    ended = asyncio.Event()
    others = [asyncio.create_task(numbered_requests(url, f"client{number}", ended)) for number in range(4)]
    found = await asyncio.gather(*(response_ids(url, form) for form in FORMS))
    ended.set()
    assert all(count > 0 for count in await asyncio.gather(*others))
    assert any(LAST_ID in ids for ids in found)
    for form, ids in zip(FORMS, found, strict=True):
        # Each response belongs to the next request that was answered, on the connection of the form, too.
        assert ids == [each for each in (FORM_ID, PROBE_ID, LAST_ID) if each in ids], form


def test_there_are_sixty_forms() -> None:
    """Each once."""
    assert len(FORMS) == len({*FORMS}) == 60


async def test_smuggling_directly(replica: Replica) -> None:
    """To a replica."""
    await check(replica.url)


@pytest.mark.skipif(HAPROXY_PATH is None, reason="haproxy is not installed; apt-get install haproxy")
async def test_smuggling_through_haproxy(replica: Replica, tmp_path: Path) -> None:
    """With the configuration of compose.yaml, which shares connections to the replica among clients."""
    with balancer(tmp_path, replica.url) as url:
        await wait_until_it_forwards(url)
        await check(url)


@pytest.mark.skipif(NGINX_PATH is None, reason="nginx is not installed; apt-get install nginx")
async def test_smuggling_through_nginx(replica: Replica, tmp_path: Path) -> None:
    """With keep-alive connections to the replica."""
    async with nginx([replica.url], tmp_path, 'proxy_set_header Connection "";') as url:
        await check(url)
