"""The event stream of GET /agents?watch=true, as NDJSON or server-sent events."""

import asyncio
import contextlib
import random
import time
from collections.abc import Iterator
from functools import partial

from starlette.types import Receive, Scope, Send

from registry.api.error_responses import error_body
from registry.api.response.client_connection import NO_BUFFERING_HEADER, Connection
from registry.errors import VersionTooOld
from registry.model.encoding.watch_event import (
    StreamFormat,
    encode_bookmark,
    encode_error,
    encode_initial_agent,
    encode_keep_alive,
)
from registry.service.watch.watch_service import Watcher

# Load balancers close connections that are idle for longer. Clients can rely on a bookmark every 30 s.
_KEEP_ALIVE_INTERVAL_S = 15.0
_BOOKMARK_INTERVAL_S = 25.0
# Every stream ends after a random time in this range, so that watches spread over new replicas.
_MIN_STREAM_S, _MAX_STREAM_S = 300.0, 600.0
_MAX_AGENTS_PER_CHUNK = 32
_MEDIA_TYPES: dict[StreamFormat, bytes] = {"ndjson": b"application/x-ndjson", "sse": b"text/event-stream"}


def negotiate_stream_format(accept: str) -> StreamFormat:
    """Return the stream format that an Accept header requests: server-sent events if named, otherwise NDJSON."""
    media_types = {entry.partition(";")[0].strip().lower() for entry in accept.split(",")}
    return "sse" if "text/event-stream" in media_types else "ndjson"


class WatchStream:
    """An ASGI application that writes one watch to one client until the client disconnects or the watch ends.

    `max_seconds` limits its duration, in addition to the registry's own random limit. `connection` is the client
    connection, None if the server does not provide it.
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
        limit = random.uniform(_MIN_STREAM_S, _MAX_STREAM_S)  # noqa: S311 - jitter, not security
        self._end_at = now + (limit if max_seconds is None else min(max_seconds, limit))
        self._last_write_at = self._last_bookmark_at = now
        self._connection = connection
        if max_seconds is not None:
            watcher.wake_at(self._end_at)

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Write the response headers and then events, until the client disconnects or the watch ends."""
        disconnected = asyncio.create_task(self._wait_for_disconnect(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _stream_headers(self._format)})
            for chunk in self._initial_chunks():
                await self._write(send, chunk)
            while not disconnected.done() and await self._write_or_wait(send):
                pass
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._watcher.close()
            disconnected.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await disconnected

    def _initial_chunks(self) -> Iterator[bytes]:
        """Yield the first chunks of a stream: the initial agents and a bookmark, or a keep-alive.

        A keep-alive is sent without an initial state, so that the client receives the headers.
        """
        watcher, stream_format = self._watcher, self._format
        records, watcher.initial = watcher.initial, None
        if records is None:
            yield encode_keep_alive(stream_format)
            return
        for start in range(0, len(records), _MAX_AGENTS_PER_CHUNK):
            yield b"".join(
                encode_initial_agent(record.json, record.agent.version, stream_format)
                for record in records[start : start + _MAX_AGENTS_PER_CHUNK]
            )
        yield encode_bookmark(watcher.delivered_version, stream_format)

    async def _write_or_wait(self, send: Send) -> bool:
        """Write the pending events of the watch, or wait for new ones; return whether the stream continues."""
        watcher, stream_format = self._watcher, self._format
        chunk = b"".join([entry.encode(kind, stream_format) for kind, entry in watcher.take()])
        now = time.monotonic()
        ends = watcher.end_reason is not None or now >= self._end_at
        if watcher.end_reason == "log_gap":
            error = error_body(VersionTooOld(watcher.delivered_version, watcher.latest_version)) | {"code": 410}
            chunk += encode_error(error, watcher.delivered_version, stream_format)
        elif ends or now - self._last_bookmark_at >= _BOOKMARK_INTERVAL_S:
            self._last_bookmark_at = now
            chunk += encode_bookmark(watcher.delivered_version, stream_format)
        elif not chunk and now - self._last_write_at >= _KEEP_ALIVE_INTERVAL_S:
            chunk = encode_keep_alive(stream_format)
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
        """Write new events without waking the stream's task, which takes ten times as long for a thousand streams."""
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
        """Wait until the client disconnects, then wake the stream so that it ends."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._watcher.wake()


def _send_without_waiting(send: Send, chunk: bytes) -> None:
    """Send a chunk of the stream without waiting. Raises RuntimeError if the connection would block."""
    step = send({"type": "http.response.body", "body": chunk, "more_body": True}).__await__()
    with contextlib.suppress(StopIteration):
        next(step)
        raise RuntimeError("The connection was writable, but the write blocked")


def _stream_headers(stream_format: StreamFormat) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", _MEDIA_TYPES[stream_format]),
        (b"vary", b"accept"),
        NO_BUFFERING_HEADER,
    ]
