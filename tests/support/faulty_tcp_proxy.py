"""TCP proxy in front of a server that delays, drops, cuts or refuses connections on demand."""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

_CHUNK_BYTES = 65_536

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class FaultyTcpProxy:
    """Listens on a free loopback port and forwards everything to the server at a redis:// or unix:// URL.

    With `tls` its clients connect with TLS. `switch_upstream` forwards new connections to another server.

    Faults are set while it runs:

    * `delay_s`: delay of each chunk in seconds, in both directions;
    * `swallow_requests`, `swallow_replies`: chunks in that direction are dropped, the connection stays open;
    * `cut_requests`, `cut_replies`: the number of next chunks in that direction that close their connection instead of
      passing. The server has executed the request of a reply that is cut, but not a request that is cut;
    * `spare_replies`: the number of next replies that pass despite all other faults;
    * `cut()`: close every connection now; `refuse()`: cut, and refuse new connections until `accept()`;
    * `refuse_with_next_reply`: refuse when the next reply arrives, and drop that reply.

    `connections` counts accepted connections, `requests` the chunks that reached the server, `delayed_requests` the
    chunks that are waiting now.
    """

    def __init__(self, upstream: str, tls: ssl.SSLContext | None = None) -> None:
        self.delay_s = 0.0
        self.swallow_requests = False
        self.swallow_replies = False
        self.cut_requests = 0
        self.cut_replies = 0
        self.spare_replies = 0
        self.refuse_with_next_reply = False
        self.connections = 0
        self.requests = 0
        self.delayed_requests = 0
        self.port = 0
        self._tls = tls
        self._connect_upstream = _upstream_connector(upstream)
        self._server: asyncio.Server | None = None
        self._open_writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The URL of the proxy, for redis-py."""
        return f"redis://127.0.0.1:{self.port}/0"

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def switch_upstream(self, upstream: str) -> None:
        """Forward new connections to this server; existing ones keep their server."""
        self._connect_upstream = _upstream_connector(upstream)

    async def accept(self) -> None:
        """Accept connections, on the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Close every connection and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    def cut(self) -> None:
        """Close every connection now."""
        for writer in tuple(self._open_writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open_writers.add(writer)
        self.connections += 1
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._relay((reader, writer), await self._connect_upstream())
        finally:
            self._open_writers.discard(writer)
            self._tasks.discard(task)
            writer.transport.abort()

    async def _relay(self, client: Streams, server: Streams) -> None:
        """Forward chunks in both directions until either side ends."""
        pumps = [
            asyncio.create_task(self._pump(client[0], server[1], self._take_request)),
            asyncio.create_task(self._pump(server[0], client[1], self._take_reply)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            server[1].transport.abort()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, take: Callable[[], bool]) -> None:
        while chunk := await source.read(_CHUNK_BYTES):
            if self.delay_s:
                await self._delay_chunk(is_request=take == self._take_request)
            if take():
                sink.write(chunk)
                await sink.drain()

    async def _delay_chunk(self, *, is_request: bool) -> None:
        self.delayed_requests += is_request
        try:
            await asyncio.sleep(self.delay_s)
        finally:
            self.delayed_requests -= is_request

    def _take_request(self) -> bool:
        """Return whether to forward this chunk. Raises ConnectionAbortedError to cut the connection."""
        if self.cut_requests:
            self.cut_requests -= 1
            raise ConnectionAbortedError
        self.requests += not self.swallow_requests
        return not self.swallow_requests

    def _take_reply(self) -> bool:
        if self.spare_replies:
            self.spare_replies -= 1
            return True
        if self.refuse_with_next_reply:
            self.refuse_with_next_reply = False
            self.refuse()
        if self.cut_replies:
            self.cut_replies -= 1
            raise ConnectionAbortedError
        return not self.swallow_replies


def _upstream_connector(upstream: str) -> Callable[[], Awaitable[Streams]]:
    address = urlsplit(upstream)
    if address.scheme == "unix":
        return lambda: asyncio.open_unix_connection(unquote(address.path))
    return lambda: asyncio.open_connection(address.hostname, address.port)
