"""GET /agents?watch=true: the event stream, as NDJSON or server-sent events."""

import asyncio
import contextlib
import random
import time
from collections.abc import Iterator
from functools import partial
from typing import Protocol

from starlette.types import Receive, Scope, Send

from registry.api.error_responses import body_of
from registry.errors import VersionTooOld
from registry.model.encoding.watch_event import Form, bookmark_line, error_line, keep_alive, state_line
from registry.service.watch.watch import Watcher

# Seconds. Balancers cut what is silent for longer; a client may count on a bookmark every half minute.
_KEEP_ALIVE = 15.0
_BOOKMARK = 25.0
# Every stream ends after a while, each at another moment, so that watches spread over replicas that came later.
_SHORTEST, _LONGEST = 300.0, 600.0
_AT_ONCE = 32
# Where the server leaves the connection in a scope's extensions.
CONNECTION = "mcp_mesh_registry.connection"
_TYPES: dict[Form, bytes] = {"ndjson": b"application/x-ndjson", "sse": b"text/event-stream"}


def form_of(accept: str) -> Form:
    """Return the form a client wants: server-sent events only where it names them."""
    kinds = {entry.partition(";")[0].strip().lower() for entry in accept.split(",")}
    return "sse" if "text/event-stream" in kinds else "ndjson"


class Connection(Protocol):
    """What a stream needs of the connection under it, besides ASGI."""

    def takes_now(self) -> bool:
        """Tell whether a message that is sent now is written without waiting for the client."""

    def abort(self) -> None:
        """Drop the connection at once."""


class Stream:
    """Writes one watch to one client, as an ASGI application, until either ends it.

    `longest` bounds it in seconds, on top of the registry's own random bound.
    """

    def __init__(self, watcher: Watcher, form: Form, longest: float | None) -> None:
        self._watcher = watcher
        self._form = form
        now = time.monotonic()
        bound = random.uniform(_SHORTEST, _LONGEST)  # noqa: S311 - spreads watches, guards nothing
        self._end = now + (bound if longest is None else min(longest, bound))
        self._told = self._bookmarked = now
        self._connection: Connection | None = None
        if longest is not None:
            watcher.wake_at(self._end)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream."""
        self._connection = scope.get("extensions", {}).get(CONNECTION)
        self._watcher.abandon = self._watcher.wake if self._connection is None else self._connection.abort
        gone = asyncio.create_task(self._gone(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _headers(self._form)})
            for chunk in self._beginning():
                await self._write(send, chunk)
            while not gone.done() and await self._go_on(send):
                pass
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._watcher.close()
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await gone

    def _beginning(self) -> Iterator[bytes]:
        """Give the state first, where it was asked for, then a bookmark; else something, so that the headers go out."""
        watcher, form = self._watcher, self._form
        records, watcher.initial = watcher.initial, None
        if records is None:
            yield keep_alive(form)
            return
        for at in range(0, len(records), _AT_ONCE):
            yield b"".join(
                state_line(record.body, record.agent.version, form) for record in records[at : at + _AT_ONCE]
            )
        yield bookmark_line(watcher.reached, form)

    async def _go_on(self, send: Send) -> bool:
        """Write what there is, or wait for it; tell whether the stream goes on."""
        watcher, form = self._watcher, self._form
        chunk = b"".join([entry.line(kind, form) for kind, entry in watcher.take()])
        now = time.monotonic()
        ends = watcher.over is not None or now >= self._end
        if watcher.over == "broken":
            error = body_of(VersionTooOld(watcher.reached, watcher.newest)) | {"code": 410}
            chunk += error_line(error, watcher.reached, form)
        elif ends or now - self._bookmarked >= _BOOKMARK:
            self._bookmarked = now
            chunk += bookmark_line(watcher.reached, form)
        elif not chunk and now - self._told >= _KEEP_ALIVE:
            chunk = keep_alive(form)
        if chunk:
            self._told = now
            await self._write(send, chunk)
        elif not ends:
            watcher.due = min(self._end, self._told + _KEEP_ALIVE, self._bookmarked + _BOOKMARK)
            await watcher.wait(partial(self._push, send))
        return not ends

    def _push(self, send: Send) -> bool:
        """Write what came without waking the task, where nothing else is to be done and the client takes it.

        A thousand tasks that wake for one change would take ten times as long.
        """
        watcher, now = self._watcher, time.monotonic()
        if self._connection is None or not self._connection.takes_now() or watcher.over or now >= watcher.due:
            return False
        chunk = b"".join([entry.line(kind, self._form) for kind, entry in watcher.take()])
        if chunk:
            self._told = now
            _send_now(send, chunk)
        return watcher.drained

    async def _write(self, send: Send, chunk: bytes) -> None:
        self._watcher.writing_since = time.monotonic()
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        self._watcher.writing_since = None

    async def _gone(self, receive: Receive) -> None:
        """Wait until the client is gone, then wake the stream."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._watcher.wake()


def _send_now(send: Send, chunk: bytes) -> None:
    """Send what is written without waiting."""
    step = send({"type": "http.response.body", "body": chunk, "more_body": True}).__await__()
    with contextlib.suppress(StopIteration):
        next(step)
        raise RuntimeError("The connection said that it takes more, and does not")


def _headers(form: Form) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", _TYPES[form]),
        (b"cache-control", b"no-cache"),
        # nginx holds back what it proxies unless it is told not to.
        (b"x-accel-buffering", b"no"),
    ]
