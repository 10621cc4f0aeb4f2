"""A watch over a bare socket: what came, when, in which form, and whether the end was a clean one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import orjson

PATIENCE = 5.0


@dataclass(frozen=True)
class Event:
    """One event of a stream; `sse_id` is the `id:` line that came with it."""

    kind: str
    version: int
    object: dict[str, Any]
    timestamp: str
    sse_id: str | None

    @property
    def agent_id(self) -> str:
        """Whom it is about; empty for a bookmark."""
        return str(self.object.get("id", ""))

    @property
    def brief(self) -> tuple[str, str]:
        """What happened to whom."""
        return self.kind, self.agent_id


class WatchStream:
    """The answer to a watch. `clean` tells whether it ended with the last chunk; `keep_alives` those that came."""

    def __init__(self, reader: asyncio.StreamReader, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        self.headers = headers
        self.clean = False
        self.keep_alives: list[str] = []
        self._reader = reader
        self._text = ""

    async def body(self) -> dict[str, Any]:
        """Return the JSON of an answer that is no stream."""
        raw = await self._reader.readexactly(int(self.headers["content-length"]))
        body: dict[str, Any] = orjson.loads(raw)
        return body

    async def event(self, patience: float = PATIENCE) -> Event | None:
        """Return the next event, None at the end of the stream, clean or not."""
        async with asyncio.timeout(patience):
            while True:
                block = await self._block()
                if block is None:
                    return None
                found = self._read(block)
                if found is not None:
                    return found

    async def take(self, count: int) -> list[Event]:
        """Return the next so many events, which must come."""
        found: list[Event] = []
        for _ in range(count):
            event = await self.event()
            assert event is not None, f"the stream ended after {found}"
            found.append(event)
        return found

    async def rest(self, patience: float = PATIENCE) -> list[Event]:
        """Return all events until the end."""
        found: list[Event] = []
        while (event := await self.event(patience)) is not None:
            found.append(event)
        return found

    async def keep_alive(self, count: int = 1) -> list[str]:
        """Wait until so many keep-alives have come, and nothing else."""
        async with asyncio.timeout(PATIENCE):
            while len(self.keep_alives) < count:
                block = await self._block()
                assert block is not None, "the stream ended"
                assert self._read(block) is None, f"not a keep-alive: {block}"
        return self.keep_alives

    @property
    def _is_sse(self) -> bool:
        return self.headers["content-type"].startswith("text/event-stream")

    async def _block(self) -> str | None:
        separator = "\n\n" if self._is_sse else "\n"
        while separator not in self._text:
            chunk = await self._chunk()
            if chunk is None:
                assert not (self.clean and self._text), f"the stream ended within an event: {self._text!r}"
                return None
            self._text += chunk
        block, _, self._text = self._text.partition(separator)
        return block

    async def _chunk(self) -> str | None:
        try:
            size = int((await self._reader.readline()).strip() or b"-1", 16)
            if size < 0:
                return None
            data = await self._reader.readexactly(size + 2)
        except (ConnectionError, asyncio.IncompleteReadError):
            return None
        if size == 0:
            self.clean = True
            return None
        return data[:-2].decode()

    def _read(self, block: str) -> Event | None:
        if not block or block.startswith(":"):
            self.keep_alives.append(block)
            return None
        sse_id = None
        if self._is_sse:
            fields = dict(line.split(": ", 1) for line in block.splitlines())
            sse_id, block = fields.get("id"), fields["data"]
        read = orjson.loads(block)
        assert set(read) == {"type", "object", "timestamp", "resource_version"}, read
        return Event(read["type"], int(read["resource_version"]), read["object"], read["timestamp"], sse_id)


@contextlib.asynccontextmanager
async def asking(
    url: str, target: str, headers: Mapping[str, str] | None = None, *, method: str = "GET"
) -> AsyncIterator[WatchStream]:
    """Send one request over a connection of its own, and provide its answer once the headers are there."""
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port, limit=1 << 20)
    try:
        lines = [f"{method} {target} HTTP/1.1", f"host: {where.netloc}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        async with asyncio.timeout(PATIENCE):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.split(": ", 1) for line in head[1:] if line)
        yield WatchStream(reader, int(head[0].split()[1]), {name.lower(): value for name, value in pairs})
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def watch(
    url: str, headers: Mapping[str, str] | None = None, /, **query: str | int
) -> AsyncIterator[WatchStream]:
    """Provide a running watch; AssertionError with the answer when it is refused."""
    async with asking(url, f"/agents?{urlencode({'watch': 'true'} | query)}", headers) as stream:
        assert stream.status == 200, await stream.body()
        yield stream
