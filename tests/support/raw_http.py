"""One HTTP request over a raw connection: for many at once, and for requests that are cut off."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson


@dataclass(frozen=True)
class RawResponse:
    """A response; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: Any


class RawConnection:
    """A connection for one request after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> None:
        """Send a request without waiting for its response."""
        self.send_raw(method, path, b"" if body is None else orjson.dumps(body), headers)

    def send_raw(self, method: str, path: str, raw: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send a request with arbitrary bytes as its body."""
        lines = [f"{method} {path} HTTP/1.1", "host: localhost", f"content-length: {len(raw)}"]
        lines += ["content-type: application/json"] if raw else []
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + raw)

    def send_bytes(self, data: bytes) -> None:
        """Send arbitrary bytes, for example a part of a request."""
        self._writer.write(data)

    async def read_to_end(self) -> bytes:
        """Return all bytes until the server closes the connection."""
        return await self._reader.read()

    async def read_until(self, text: bytes) -> bytes:
        """Return all bytes up to a text. Raises IncompleteReadError if the connection ends before it."""
        return await self._reader.readuntil(text)

    def pause_reading(self) -> None:
        """Read nothing from now on, so that the server's buffers fill."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    async def read_response(self) -> RawResponse:
        """Return the next response. Raises ConnectionError or IncompleteReadError if there is none."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.split(": ", 1) for line in head[1:] if line)
        headers = {name.lower(): value for name, value in pairs}
        raw = await self._reader.readexactly(int(headers["content-length"]))
        return RawResponse(int(head[0].split()[1]), headers, orjson.loads(raw))

    async def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> RawResponse:
        """Send a request and return its response."""
        self.send(method, path, body, headers)
        return await self.read_response()


@contextlib.asynccontextmanager
async def open_raw_connection(url: str) -> AsyncIterator[RawConnection]:
    """Provide a connection, which is dropped at the end even with a request in flight."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=1 << 24)
    try:
        yield RawConnection(reader, writer)
    finally:
        writer.transport.abort()
