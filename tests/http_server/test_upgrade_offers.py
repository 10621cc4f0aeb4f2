"""Clients that offer an upgrade of the connection, to HTTP/2 or to a WebSocket: the registry ignores the offer."""

import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.http_calls import a_registration
from tests.support.raw_http import RawConnection, open_raw_connection
from tests.support.replica import Replica
from tests.support.served_registry import ServedRegistry

JAVA_PROGRAM = Path(__file__).parent / "java" / "PostWithDefaults.java"
OFFER = "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA"
BODY = json.dumps(a_registration())
HEAD = f"POST /agents HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{OFFER}\r\n"
WITH_LENGTH = f"{HEAD}content-length: {len(BODY)}\r\n\r\n", BODY
CHUNKED = (
    f"{HEAD}transfer-encoding: chunked\r\n\r\n",
    f"5\r\n{BODY[:5]}\r\n{len(BODY) - 5:x}\r\n{BODY[5:]}\r\n0\r\n\r\n",
)
GET = f"GET /agents HTTP/1.1\r\nhost: localhost\r\n{OFFER}\r\n\r\n"


@pytest.fixture
async def connection(served: ServedRegistry) -> AsyncIterator[RawConnection]:
    """Provide a connection to the registry."""
    async with open_raw_connection(served.url) as connection:
        yield connection


@pytest.fixture
def replica(redis_url: str) -> Iterator[Replica]:
    """Provide a running replica."""
    with Replica(redis_url) as running:
        yield running


@pytest.mark.parametrize("request_parts", [WITH_LENGTH, CHUNKED], ids=["length", "chunked"])
@pytest.mark.parametrize("split_at", ["nowhere", "body", "upgrade", "method"])
async def test_the_body_of_a_request_with_an_offer_is_read(
    served: ServedRegistry, connection: RawConnection, request_parts: tuple[str, str], split_at: str
) -> None:
    """The request may arrive in one packet or in two; the connection stays usable."""
    text = "".join(request_parts)
    first = {"nowhere": 0, "body": len(request_parts[0]), "upgrade": text.index("grade: h2c"), "method": 2}[split_at]
    connection.send_bytes(text[:first].encode())
    # The response shows that the server has also read the bytes of the other connection.
    assert (await served.client.get("/ready")).status_code == 200
    connection.send_bytes(text[first:].encode())

    assert (await connection.read_response()).status == 200
    assert (await connection.request("GET", "/agents")).body["count"] == 1


async def test_many_requests_in_one_packet_are_all_answered(connection: RawConnection) -> None:
    """In their order."""
    count = 1000
    connection.send_bytes(("".join(WITH_LENGTH) + GET * count).encode())

    for _ in range(count + 1):
        assert (await connection.read_response()).status == 200


async def test_an_offer_of_a_websocket_is_ignored(connection: RawConnection) -> None:
    """For a list as for a watch."""
    response = await connection.request("GET", "/agents", headers={"connection": "upgrade", "upgrade": "websocket"})

    assert (response.status, response.body["count"]) == (200, 0)


async def test_an_invalid_request_with_an_offer_is_rejected(served: ServedRegistry) -> None:
    """As without the offer: 400, and the connection is closed."""
    for request in (GET.replace("/agents", "http://[/"), GET + "no request\r\n\r\n"):
        async with open_raw_connection(served.url) as connection:
            connection.send_bytes(request.encode())
            assert b"HTTP/1.1 400 " in await connection.read_to_end()
    assert served.refused == {"invalid_request": 2}


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed; apt-get install curl")
@pytest.mark.parametrize("path", ["/agents", "/mcp/tools/register_agent"])
@pytest.mark.parametrize("options", [(), ("-H", "transfer-encoding: chunked")], ids=["length", "chunked"])
def test_curl_with_http2(replica: Replica, path: str, options: tuple[str, ...]) -> None:
    """`curl --http2` offers h2c with each request."""
    body = a_registration() if path == "/agents" else {"registration_data": a_registration()}
    command = ["curl", "--silent", "--show-error", "--fail", "--http2", *options, "--header"]
    command += ["content-type: application/json", "--data", json.dumps(body), f"{replica.url}{path}"]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["agent_id"] == "a"


@pytest.mark.skipif(shutil.which("javac") is None, reason="no JDK is installed; apt-get install default-jdk-headless")
def test_the_http_client_of_java(replica: Replica) -> None:
    """The JDK's client, also used by Spring, offers h2c with each request by default."""
    done = subprocess.run(["java", str(JAVA_PROGRAM), replica.url], capture_output=True, text=True, check=False)

    assert done.stdout.split() == ["200", "200", "200"], done.stderr
