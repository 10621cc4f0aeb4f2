"""The demo's own HTTP client: what it takes for an answer, and when it keeps its connection."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest

from registry.cli.caller import Caller, CallFailed
from tests.support.polling import async_wait_until


class Scripted:
    """A server that gives its answers in turn, one per request; instead of an empty one it closes the connection.

    None is no answer at all, on a connection that stays open.
    """

    def __init__(self, answers: Sequence[bytes | None]) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.url = ""
        self._answers = iter(answers)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                _, has_body, length = head.partition(b"Content-Length: ")
                self.requests.append(head + (await reader.readexactly(int(length)) if has_body else b""))
                answer = next(self._answers)
                if answer == b"":
                    return
                writer.write(answer or b"")


@contextlib.asynccontextmanager
async def a_caller(*answers: bytes | None) -> AsyncIterator[tuple[Caller, Scripted]]:
    """Provide a caller and the scripted server it calls."""
    scripted = Scripted(answers)
    server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with contextlib.closing(Caller(f"http://127.0.0.1:{port}")) as caller:
            yield caller, scripted


def an_answer(body: bytes = b"{}", status: str = "200 OK", **headers: str) -> bytes:
    """Return an HTTP answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *(f"{name}: {headers[name]}" for name in headers)]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def test_calls_share_one_connection() -> None:
    """What is sent arrives, what is answered comes back, and the connection is kept."""
    async with a_caller(an_answer(b'{"a":1}'), an_answer(b"[2]")) as (caller, server):
        answers = [await caller.call("POST", "/agents", {"id": "x"}), await caller.call("GET", "/agents")]

    assert answers == [{"a": 1}, [2]]
    assert server.connections == 1
    assert server.requests[0].startswith(b"POST /agents HTTP/1.1\r\nHost: 127.0.0.1:")
    assert server.requests[0].endswith(b'\r\n\r\n{"id":"x"}')
    assert server.requests[1].startswith(b"GET /agents HTTP/1.1\r\n")


async def test_a_refusal_is_told_and_keeps_the_connection() -> None:
    """A status other than 200 fails with the words of the server."""
    refused = an_answer(b'{"error":"not_ready"}', "503 Service Unavailable")
    async with a_caller(refused, an_answer()) as (caller, server):
        with pytest.raises(CallFailed, match=r'GET http://127\.0\.0\.1:\d+/ready: 503 \{"error":"not_ready"\}'):
            await caller.call("GET", "/ready")
        await caller.call("GET", "/ready")

    assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b"HTTP/1.1 ??? OK\r\n\r\n",
        an_answer(b"no JSON"),
    ],
    ids=["closed", "cut off", "no length", "no status", "no JSON"],
)
async def test_a_bad_answer_fails_and_the_next_call_succeeds(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was left of a bad answer, the next call does not read it."""
    monkeypatch.setattr("registry.cli.caller._PATIENCE", 0.2)
    async with a_caller(answer, an_answer(b'{"b":2}')) as (caller, _):
        with pytest.raises(CallFailed):
            await caller.call("GET", "/")

        assert await caller.call("GET", "/") == {"b": 2}


async def test_a_connection_that_the_server_will_close_is_not_used_again() -> None:
    """The next call opens another."""
    async with a_caller(an_answer(Connection="close"), an_answer()) as (caller, server):
        await caller.call("GET", "/")
        await caller.call("GET", "/")

    assert server.connections == 2


async def test_a_cancelled_call_leaves_no_answer_for_the_next() -> None:
    """The answer to a call that nobody waits for any more must not be taken for the next one's."""
    async with a_caller(None, an_answer()) as (caller, server):
        call = asyncio.create_task(caller.call("GET", "/"))
        await async_wait_until(lambda: server.requests, description="the request arrives")
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await caller.call("GET", "/")

    assert server.connections == 2


async def test_no_server_is_a_failed_call() -> None:
    """A refused connection is told like any other failure."""
    with pytest.raises(CallFailed, match=r"GET http://127\.0\.0\.1:1/agents: .*failed"):
        await Caller("http://127.0.0.1:1").call("GET", "/agents")


async def test_a_token_goes_with_every_call() -> None:
    """As a bearer's."""
    async with a_caller(an_answer(), an_answer()) as (caller, server):
        with contextlib.closing(Caller(caller.url, "s3cret")) as known:
            await known.call("GET", "/agents")
            await known.call("POST", "/agents", {})

    assert all(b"\r\nAuthorization: Bearer s3cret\r\n" in request for request in server.requests)


async def test_a_path_of_the_url_goes_before_the_calls() -> None:
    """As behind a proxy; a slash at its end is none too many."""
    async with a_caller(an_answer()) as (caller, server):
        with contextlib.closing(Caller(f"{caller.url}/registry/")) as below:
            await below.call("GET", "/agents")

    assert server.requests[0].startswith(b"GET /registry/agents HTTP/1.1\r\n")
