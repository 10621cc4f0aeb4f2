"""GET /agents?watch=true: the event stream, as NDJSON or server-sent events."""

import asyncio
import contextlib
import random
import time
from collections.abc import Iterator
from functools import partial

from starlette.types import Receive, Scope, Send

from registry.api.error_responses import error_body
from registry.api.response.connection import NO_BUFFERING_HEADER, Connection
from registry.errors import VersionTooOld
from registry.model.encoding.watch_event import (
    StreamFormat,
    encode_bookmark,
    encode_error,
    encode_initial_agent,
    encode_keep_alive,
)
from registry.service.watch.watch import Watcher

# Seconds. Balancers cut what is silent for longer; a client may count on a bookmark every half minute.
_KEEP_ALIVE_INTERVAL_S = 15.0
_BOOKMARK_INTERVAL_S = 25.0
# Every stream ends after a while, each at another moment, so that watches spread over replicas that came later.
_MIN_STREAM_S, _MAX_STREAM_S = 300.0, 600.0
_MAX_AGENTS_PER_CHUNK = 32
_MEDIA_TYPES: dict[StreamFormat, bytes] = {"ndjson": b"application/x-ndjson", "sse": b"text/event-stream"}


def negotiate_stream_format(accept: str) -> StreamFormat:
    """Return the form a client wants: server-sent events only where it names them."""
    kinds = {entry.partition(";")[0].strip().lower() for entry in accept.split(",")}
    return "sse" if "text/event-stream" in kinds else "ndjson"


class WatchStream:
    """Writes one watch to one client, as an ASGI application, until either ends it.

    `max_seconds` bounds it in seconds, on top of the registry's own random bound. `connection` is the connection under
    it, None where the server offers none.
    """

    def __init__(
        self,
        watcher: Watcher,
        stream_format: StreamFormat,
        max_seconds: float | None,
        connection: Connection | None,
    ) -> None:
        self._watcher = watcher
        self._format = stream_format
        now = time.monotonic()
        bound = random.uniform(_MIN_STREAM_S, _MAX_STREAM_S)  # noqa: S311 - spreads watches, guards nothing
        self._end_at = now + (bound if max_seconds is None else min(max_seconds, bound))
        self._last_write_at = self._last_bookmark_at = now
        self._connection = connection
        if max_seconds is not None:
            watcher.wake_at(self._end_at)

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream."""
        gone = asyncio.create_task(self._wait_for_disconnect(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _stream_headers(self._format)})
            for chunk in self._initial_chunks():
                await self._write(send, chunk)
            while not gone.done() and await self._write_or_wait(send):
                pass
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._watcher.close()
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await gone

    def _initial_chunks(self) -> Iterator[bytes]:
        """Give the state first, where it was asked for, then a bookmark; else something, so that the headers go out."""
        watcher, form = self._watcher, self._format
        records, watcher.initial = watcher.initial, None
        if records is None:
            yield encode_keep_alive(form)
            return
        for at in range(0, len(records), _MAX_AGENTS_PER_CHUNK):
            yield b"".join(
                encode_initial_agent(record.json, record.agent.version, form)
                for record in records[at : at + _MAX_AGENTS_PER_CHUNK]
            )
        yield encode_bookmark(watcher.delivered_version, form)

    async def _write_or_wait(self, send: Send) -> bool:
        """Write what there is, or wait for it; tell whether the stream goes on."""
        watcher, form = self._watcher, self._format
        chunk = b"".join([entry.encode(kind, form) for kind, entry in watcher.take()])
        now = time.monotonic()
        ends = watcher.end_reason is not None or now >= self._end_at
        if watcher.end_reason == "log_gap":
            error = error_body(VersionTooOld(watcher.delivered_version, watcher.latest_version)) | {"code": 410}
            chunk += encode_error(error, watcher.delivered_version, form)
        elif ends or now - self._last_bookmark_at >= _BOOKMARK_INTERVAL_S:
            self._last_bookmark_at = now
            chunk += encode_bookmark(watcher.delivered_version, form)
        elif not chunk and now - self._last_write_at >= _KEEP_ALIVE_INTERVAL_S:
            chunk = encode_keep_alive(form)
        if chunk:
            self._last_write_at = now
            await self._write(send, chunk)
        elif not ends:
            watcher.wake_after = min(
                self._end_at,
                self._last_write_at + _KEEP_ALIVE_INTERVAL_S,
                self._last_bookmark_at + _BOOKMARK_INTERVAL_S,
            )
            await watcher.wait(partial(self._write_inline, send))
        return not ends

    def _write_inline(self, send: Send) -> bool:
        """Write what came without waking the task, where nothing else is to be done and the client takes it.

        A thousand tasks that wake for one change would take ten times as long.
        """
        watcher, now = self._watcher, time.monotonic()
        if (
            self._connection is None
            or not self._connection.writable()
            or watcher.end_reason
            or now >= watcher.wake_after
        ):
            return False
        chunk = b"".join([entry.encode(kind, self._format) for kind, entry in watcher.take()])
        if chunk:
            self._last_write_at = now
            _send_without_waiting(send, chunk)
        return watcher.caught_up

    async def _write(self, send: Send, chunk: bytes) -> None:
        self._watcher.writing_since = time.monotonic()
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        self._watcher.writing_since = None

    async def _wait_for_disconnect(self, receive: Receive) -> None:
        """Wait until the client is gone, then wake the stream."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._watcher.wake()


def _send_without_waiting(send: Send, chunk: bytes) -> None:
    """Send what is written without waiting."""
    step = send({"type": "http.response.body", "body": chunk, "more_body": True}).__await__()
    with contextlib.suppress(StopIteration):
        next(step)
        raise RuntimeError("The connection was writable, but the write blocked")


def _stream_headers(stream_format: StreamFormat) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", _MEDIA_TYPES[stream_format]),
        (b"cache-control", b"no-cache"),
        NO_BUFFERING_HEADER,
    ]
