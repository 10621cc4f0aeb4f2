"""Calls to agents passed on as they come, for those who reach the registry and not the agents."""

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from registry.api.endpoints.watch_stream import CONNECTION
from registry.compat.mcpmesh.errors import refuse
from registry.compat.mcpmesh.proxy.headers import Headers, Passing
from registry.compat.mcpmesh.proxy.targets import Addresses
from registry.compat.mcpmesh.proxy.upstream import (
    MOST,
    Answer,
    Ask,
    HttpLibraryMissingError,
    Outgoing,
    UnreachableError,
)
from registry.errors import RequestTooLarge

LARGEST: Final = 16 * 1024 * 1024
"""Bytes of a call's body, at most."""
MOST_EACH: Final = MOST // 2
"""How many of the calls that are passed on at a time may be one agent's: one that hangs must not stop the others."""
# Seconds that a call may take, connecting included: where it does not say, and at most.
_USUAL: Final = 60
_LONGEST: Final = 600
# Seconds that calls under way have when the replica stops: less than the server gives to any request.
_FAREWELL: Final = 2.0

# Decoded, and made of nothing that means anything in a URL: what is built from it cannot lead anywhere else.
_TARGET: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([1-9][0-9]{0,4})(/mcp(?:/[A-Za-z0-9._~-]+)*/?)")
_DOTS: Final = re.compile(r"/\.\.?(?:/|$)")
_NO_STATUS: Final = 600
_FORM: Final = "Invalid target: expected /proxy/{host}:{port}/mcp, or a plain path below that"
_FAILED: Final = "Failed to reach target agent: "
_OFF: Final = (
    "This registry passes no calls on: REGISTRY_PROXY is false. Call the agent itself, as --use-proxy=false does"
)
_NO_LIBRARY: Final = (
    "Passing calls on takes the extra: pip install 'mcp-mesh-registry[client]', or set REGISTRY_PROXY=false"
)
_BUSY: Final = f"This replica passes {MOST} calls on already; try again"
_BUSY_AGENT: Final = f"This replica passes {MOST_EACH} calls on to this agent already; try again"
_CLOSING: Final = "This replica is going down; try another one"


class Proxy:
    """Serves `/proxy/{host}:{port}/mcp`. Without `outgoing` it says that it does not.

    What it reaches is what a registered agent announced, and there only `/mcp`; it keeps nothing and retries nothing.
    """

    def __init__(self, addresses: Addresses, outgoing: Outgoing | None, passing: Passing) -> None:
        self._addresses = addresses
        self._outgoing = outgoing
        self._passing = passing
        self._each: Counter[str] = Counter()
        self._closing = asyncio.Event()
        self.routes = [Route("/proxy/{target:path}", self, methods=["GET", "POST"])]

    @property
    def under_way(self) -> int:
        """How many calls are being passed on."""
        return self._each.total()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one call on."""
        if self._outgoing is None:
            await refuse(send, 403, _OFF)
        elif scope["method"] not in ("GET", "POST"):
            await refuse(send, 405, "Calls are passed on by POST and GET", [(b"allow", b"GET, POST")])
        elif (target := _read(scope)) is None:
            await refuse(send, 400, _FORM)
        elif (address := await self._addresses.find(*target[:2])) is None:
            asked = scope["path_params"]["target"].partition("/")[0]
            await refuse(send, 403, f"Target host {asked!r} is not a registered agent")
        elif self._closing.is_set():
            await refuse(send, 503, _CLOSING, [(b"retry-after", b"1")])
        elif self.under_way >= MOST:
            await refuse(send, 503, _BUSY, [(b"retry-after", b"1")])
        elif self._each[address.url] >= MOST_EACH:
            await refuse(send, 503, _BUSY_AGENT, [(b"retry-after", b"1")])
        else:
            with self._counted(address.url):
                call = _Call(scope, receive, send, self._passing, self._closing)
                await call.carry(self._outgoing, f"{address.url}{target[2]}")

    @contextlib.contextmanager
    def _counted(self, url: str) -> Iterator[None]:
        self._each[url] += 1
        try:
            yield
        finally:
            self._each[url] -= 1
            if not self._each[url]:
                del self._each[url]

    def close(self) -> None:
        """Take no more calls, and let those under way end within two seconds."""
        self._closing.set()


class _CallerGoneError(Exception):
    """Whoever called is gone before the whole body had come."""


class _Call:
    """One call on its way: the body out as it comes in, the answer back as it comes."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, passing: Passing, closing: asyncio.Event) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._passing = passing
        self._closing = closing
        self._sent = asyncio.Event()
        self._began = self._streams = False
        self._tail = b""

    async def carry(self, outgoing: Outgoing, url: str) -> None:
        """Make the call; give it up when the caller is gone, or the replica is going. Raises RequestTooLarge."""
        passing = asyncio.create_task(self._pass(outgoing, url))
        gone, parting = asyncio.create_task(self._gone()), asyncio.create_task(self._part())
        try:
            await asyncio.wait([passing, gone, parting], return_when=asyncio.FIRST_COMPLETED)
            if not passing.done():
                passing.cancel()
                await asyncio.gather(passing, return_exceptions=True)
                whole = gone.done() or await self._end(503, _CLOSING, b"shutdown")
            else:
                whole = passing.result()
            if not whole:
                await self._break_off(gone)
        finally:
            for task in (passing, gone, parting):
                task.cancel()
            await asyncio.gather(passing, gone, parting, return_exceptions=True)

    async def _pass(self, outgoing: Outgoing, url: str) -> bool:
        """Tell whether the caller has a whole answer, were it that there is none."""
        budget = _budget(self._scope["headers"])
        try:
            async with asyncio.timeout(budget), outgoing.send(self._ask(url)) as answer:
                await self._begin(answer)
                async for part in answer.parts:
                    self._tail = part[-4:]
                    await self._send({"type": "http.response.body", "body": part, "more_body": True})
            await self._send({"type": "http.response.body", "body": b""})
        except _CallerGoneError:
            return True
        except HttpLibraryMissingError:
            await refuse(self._send, 501, _NO_LIBRARY)
        except TimeoutError:
            return await self._end(502, f"{_FAILED}it did not answer within {budget}s", b"timeout budget=%ds" % budget)
        except UnreachableError as error:
            return await self._end(502, f"{_FAILED}{error}", None)
        return True

    async def _end(self, status: int, sentence: str, comment: bytes | None) -> bool:
        """End what has no end of its own: refuse it, or say in a stream why it is over; tell whether that is whole.

        Who does not read would have to be waited for, and is told nothing.
        """
        connection = self._connection()
        if connection is not None and not connection.takes_now():
            return False
        if not self._began:
            await refuse(self._send, status, sentence)
        elif not self._streams or comment is None:
            return False
        else:
            await self._send({"type": "http.response.body", "body": self._cut_short(comment)})
        return True

    def _ask(self, url: str) -> Ask:
        headers = self._passing.asked(self._scope["headers"])
        # What is passed on is passed on as it is.
        headers.append((b"accept-encoding", b"identity"))
        size = _size(self._scope["headers"])
        if self._scope["method"] == "GET":
            return Ask("GET", url, headers, None)
        headers.append((b"transfer-encoding", b"chunked") if size is None else (b"content-length", b"%d" % size))
        return Ask("POST", url, headers, self._body())

    async def _body(self) -> AsyncIterator[bytes]:
        size, more = 0, True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise _CallerGoneError
            part, more = message.get("body", b""), message.get("more_body", False)
            size += len(part)
            if size > LARGEST:
                raise _too_large()
            if part:
                yield part
        self._sent.set()

    async def _begin(self, answer: Answer) -> None:
        if answer.status >= _NO_STATUS:
            raise UnreachableError(f"it answered with the status {answer.status}, which there is not")
        headers: Headers = self._passing.answered(answer.status, answer.headers)
        kinds = [value for name, value in headers if name == b"content-type"]
        self._streams = bool(kinds) and kinds[0].lower().startswith(b"text/event-stream")
        if self._streams and all(name != b"x-accel-buffering" for name, _ in headers):
            # nginx holds back what it proxies unless it is told not to.
            headers.append((b"x-accel-buffering", b"no"))
        self._began = True
        # An agent may answer without having read all of the body.
        self._sent.set()
        await self._send({"type": "http.response.start", "status": answer.status, "headers": headers})

    def _cut_short(self, why: bytes) -> bytes:
        """Return the comment that ends a stream. An event that is not whole stays so: no empty line comes after it."""
        comment = b": mesh-proxy-%s\n" % why
        if self._tail.endswith((b"\n\n", b"\r\n\r\n")) or not self._tail:
            return comment + b"\n"
        return comment if self._tail.endswith(b"\n") else b"\n" + comment

    async def _gone(self) -> None:
        """Wait until the caller is gone; while its body comes, whoever reads that will know."""
        if self._scope["method"] == "POST":
            await self._sent.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _part(self) -> None:
        """Wait until the replica goes, and the call has had its time since."""
        await self._closing.wait()
        await asyncio.sleep(_FAREWELL)

    async def _break_off(self, gone: "asyncio.Task[None]") -> None:
        """End an answer so that nobody takes it for whole."""
        connection = self._connection()
        if connection is None:
            raise UnreachableError("the agent broke off its answer")
        connection.abort()
        # Nobody reads the rest of the body any more.
        self._sent.set()
        await gone

    def _connection(self) -> Any:
        return self._scope.get("extensions", {}).get(CONNECTION)


def _read(scope: Scope) -> tuple[str, int, str] | None:
    """Return host, port and path of a target; None for what is not of that form."""
    found = _TARGET.fullmatch(scope["path_params"]["target"])
    if found is None or scope["query_string"] or _DOTS.search(found[3]) or int(found[2]) >= 1 << 16:
        return None
    return found[1].strip("[]"), int(found[2]), found[3]


def _budget(headers: Sequence[tuple[bytes, bytes]]) -> int:
    """Return the whole seconds a call may take."""
    asked = next((value.strip() for name, value in headers if name == b"x-mesh-timeout"), b"")
    seconds = int(asked) if asked.isdigit() and len(asked) < 10 else 0  # noqa: PLR2004
    return min(seconds, _LONGEST) or _USUAL


def _size(headers: Sequence[tuple[bytes, bytes]]) -> int | None:
    """Return how large the body is said to be. Raises RequestTooLarge."""
    said = next((value for name, value in headers if name == b"content-length"), b"")
    if not said.isdigit():
        return None
    if int(said) > LARGEST:
        raise _too_large()
    return int(said)


def _too_large() -> RequestTooLarge:
    return RequestTooLarge(f"The body is over the limit of {LARGEST} bytes; send less at once")
