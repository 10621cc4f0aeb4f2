"""Watch over a raw socket: events with arrival times, the format, and how the stream ended."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import orjson

from tests.support.machine_speed import scaled

EVENT_TIMEOUT_S = scaled(30)


@dataclass(frozen=True)
class WatchEvent:
    """One event of a stream; `sse_id` is the `id:` line that came with it."""

    kind: str
    version: int
    object: dict[str, Any]
    timestamp: str
    sse_id: str | None

    @property
    def agent_id(self) -> str:
        """The id of the agent; empty for a bookmark."""
        return str(self.object.get("id", ""))

    @property
    def kind_and_id(self) -> tuple[str, str]:
        """The kind of the event, and the id of its agent."""
        return self.kind, self.agent_id


class WatchStream:
    """The response to a watch; `ended_cleanly` is True after the last chunk, `keep_alives` counts those received."""

    def __init__(self, reader: asyncio.StreamReader, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        self.headers = headers
        self.ended_cleanly = False
        self.keep_alives: list[str] = []
        self._reader = reader
        self._buffer = ""

    async def json_body(self) -> dict[str, Any]:
        """Return the JSON of a response that is not a stream."""
        raw = await self._reader.readexactly(int(self.headers["content-length"]))
        body: dict[str, Any] = orjson.loads(raw)
        return body

    async def next_event(self, timeout: float = EVENT_TIMEOUT_S) -> WatchEvent | None:
        """Return the next event, None at the end of the stream, whether it ended cleanly or not."""
        async with asyncio.timeout(timeout):
            while True:
                block = await self._next_block()
                if block is None:
                    return None
                found = self._parse_block(block)
                if found is not None:
                    return found

    async def next_events(self, count: int) -> list[WatchEvent]:
        """Return the next `count` events. Raises AssertionError if the stream ends before."""
        found: list[WatchEvent] = []
        for _ in range(count):
            event = await self.next_event()
            assert event is not None, f"the stream ended after {found}"
            found.append(event)
        return found

    async def remaining_events(self, timeout: float = EVENT_TIMEOUT_S) -> list[WatchEvent]:
        """Return all events until the end."""
        found: list[WatchEvent] = []
        while (event := await self.next_event(timeout)) is not None:
            found.append(event)
        return found

    async def wait_for_keep_alives(self, count: int = 1) -> list[str]:
        """Wait for `count` keep-alives; assert that no event arrives."""
        async with asyncio.timeout(EVENT_TIMEOUT_S):
            while len(self.keep_alives) < count:
                block = await self._next_block()
                assert block is not None, "the stream ended"
                assert self._parse_block(block) is None, f"not a keep-alive: {block}"
        return self.keep_alives

    @property
    def _is_sse(self) -> bool:
        return self.headers["content-type"].startswith("text/event-stream")

    async def _next_block(self) -> str | None:
        separator = "\n\n" if self._is_sse else "\n"
        while separator not in self._buffer:
            chunk = await self._next_chunk()
            if chunk is None:
                assert not (self.ended_cleanly and self._buffer), f"the stream ended within an event: {self._buffer!r}"
                return None
            self._buffer += chunk
        block, _, self._buffer = self._buffer.partition(separator)
        return block

    async def _next_chunk(self) -> str | None:
        try:
            size = int((await self._reader.readline()).strip() or b"-1", 16)
            if size < 0:
                return None
            data = await self._reader.readexactly(size + 2)
        except (ConnectionError, asyncio.IncompleteReadError):
            return None
        if size == 0:
            self.ended_cleanly = True
            return None
        return data[:-2].decode()

    def _parse_block(self, block: str) -> WatchEvent | None:
        if not block or block.startswith(":"):
            self.keep_alives.append(block)
            return None
        sse_id = None
        if self._is_sse:
            fields = dict(line.split(": ", 1) for line in block.splitlines())
            sse_id, block = fields.get("id"), fields["data"]
        document = orjson.loads(block)
        assert set(document) == {"type", "object", "timestamp", "resource_version"}, document
        return WatchEvent(
            document["type"], int(document["resource_version"]), document["object"], document["timestamp"], sse_id
        )


@contextlib.asynccontextmanager
async def open_stream(
    url: str,
    target: str,
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "GET",
    timeout: float = EVENT_TIMEOUT_S,
) -> AsyncIterator[WatchStream]:
    """Send one request over a new connection, and provide its response once the headers have arrived.

    Raises:
        TimeoutError: they did not arrive within `timeout` seconds.
    """
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=1 << 20)
    try:
        lines = [f"{method} {target} HTTP/1.1", f"host: {address.netloc}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        async with asyncio.timeout(timeout):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.split(": ", 1) for line in head[1:] if line)
        yield WatchStream(reader, int(head[0].split()[1]), {name.lower(): value for name, value in pairs})
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def open_watch(
    url: str, headers: Mapping[str, str] | None = None, /, **query: str | int
) -> AsyncIterator[WatchStream]:
    """Provide a running watch. Raises AssertionError with the response if it is rejected."""
    async with open_stream(url, f"/agents?{urlencode({'watch': 'true'} | query)}", headers) as stream:
        assert stream.status == 200, await stream.json_body()
        yield stream
