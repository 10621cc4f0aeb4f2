"""A cheap load generator: raw protocols, requests built in advance, every response checked."""

import asyncio
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Self, cast

Check = Callable[[bytes], bool]
"""Returns whether the body of a response is correct."""

Exchange = tuple[bytes, Check]
"""A complete request and the check of its response."""

_HEADERS_END = b"\r\n\r\n"
_CONTENT_LENGTH = b"content-length: "
# A response without a body; a check that expects one fails.
_NOT_MODIFIED = b"HTTP/1.1 304 "
# Wrong responses printed in an error, and bytes of each.
_MAX_SAMPLES, _MAX_SAMPLE_BYTES = 3, 600


class WrongResponseError(Exception):
    """Some responses were wrong, so there is no result."""


class _Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request in flight."""

    def __init__(self, clients: "Clients") -> None:
        self._clients = clients
        self._transport: asyncio.WriteTransport
        self._check: Check = bool
        self._parts: list[bytes] = []
        self._size = self._total = self._body_at = 0
        self.started = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def send(self, exchange: Exchange, started: float) -> None:
        """Send a request; its latency counts from `started`, a value of `time.perf_counter`."""
        request, self._check = exchange
        self.started = started
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        parts = self._parts
        parts.append(data)
        self._size += len(data)
        if self._size < self._total:
            return
        whole = data if len(parts) == 1 else b"".join(parts)
        if not self._total:
            end = whole.find(_HEADERS_END)
            if end < 0:
                return
            self._body_at = end + len(_HEADERS_END)
            self._total = self._body_at + _content_length(whole, end)
            if self._size < self._total:
                return
        is_expected_status = whole.startswith((b"HTTP/1.1 200 ", _NOT_MODIFIED))
        is_correct = is_expected_status and self._size == self._total and self._check(whole[self._body_at :])
        parts.clear()
        self._size = self._total = 0
        self._clients.on_response(self, None if is_correct else whole)

    def connection_lost(self, exc: Exception | None) -> None:
        self._clients.on_connection_lost(exc)

    def close(self) -> None:
        self._transport.close()


class Clients:
    """Connections to servers on loopback, round robin over the ports; a context manager.

    `latencies` are in seconds, in the order of the responses. `due_times` are the values of `time.perf_counter` from
    which they count. `reset()` clears both.
    """

    def __init__(self, *ports: int, connections: int = 100) -> None:
        self.latencies = array("d")
        self.due_times = array("d")
        self._ports = ports
        self._count = connections
        self._connections: list[_Connection] = []
        self._source: Iterator[Exchange] = iter(())
        self._idle: deque[_Connection] = deque()
        self._waiting: deque[tuple[Exchange, float]] = deque()
        self._in_flight = 0
        self._open_loop = False
        self._closing = False
        self._wrong = 0
        self._samples: list[bytes] = []
        self._finished: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for index in range(self._count):
            port = self._ports[index % len(self._ports)]
            _, connection = await loop.create_connection(lambda: _Connection(self), "127.0.0.1", port)
            self._connections.append(connection)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        for connection in self._connections:
            connection.close()

    async def closed_loop(self, source: Iterable[Exchange]) -> None:
        """Send requests on all connections until the source ends or `stop()`; return after the last response.

        Raises WrongResponseError if a response was wrong.
        """
        self._source = iter(source)
        self._finished = drained = asyncio.get_running_loop().create_future()
        self._in_flight = len(self._connections)
        for connection in self._connections:
            self._send_next(connection)
        await drained
        self._raise_if_wrong()

    async def at_once(self, exchanges: Iterable[Exchange]) -> None:
        """Send one request on each connection without waiting; all latencies count from before the first."""
        pairs = list(zip(self._connections, exchanges, strict=True))
        self._source = iter(())
        self._finished = drained = asyncio.get_running_loop().create_future()
        self._in_flight = len(pairs)
        now = time.perf_counter()
        for connection, exchange in pairs:
            connection.send(exchange, now)
        await drained
        self._raise_if_wrong()

    async def open_loop(self, source: Iterable[Exchange], *, rate: float, seconds: float, spin: bool) -> None:
        """Send `rate` requests a second for `seconds`, independent of earlier responses.

        A request that is due while no connection is idle waits, and its latency includes the wait. With `spin` the
        generator never sleeps, so that timers with a resolution of a millisecond add no latency; it needs its own core.
        """
        exchanges = iter(source)
        self._source = iter(())
        self._open_loop = True
        self._idle.extend(self._connections)
        started, sent, total = time.perf_counter() + 0.1, 0, round(rate * seconds)
        while sent < total:
            now = time.perf_counter()
            while sent < total and (due := started + sent / rate) <= now:
                sent += 1
                self._in_flight += 1
                if self._idle:
                    self._idle.popleft().send(next(exchanges), due)
                else:
                    self._waiting.append((next(exchanges), due))
            await asyncio.sleep(0 if spin else 0.001)
        self._finished = asyncio.get_running_loop().create_future()
        if self._in_flight:
            await self._finished
        self._open_loop = False
        self._idle.clear()
        self._raise_if_wrong()

    def stop(self) -> None:
        """Send no more requests; the running loop ends after the outstanding responses."""
        self._source = iter(())

    def reset(self) -> None:
        """Clear the recorded latencies."""
        self.latencies, self.due_times = array("d"), array("d")

    def on_response(self, connection: _Connection, wrong: bytes | None) -> None:
        """Record a response, with its bytes if it was wrong."""
        self.latencies.append(time.perf_counter() - connection.started)
        self.due_times.append(connection.started)
        if wrong is not None:
            self._wrong += 1
            if len(self._samples) < _MAX_SAMPLES:
                self._samples.append(wrong[:_MAX_SAMPLE_BYTES])
        if not self._open_loop:
            self._send_next(connection)
            return
        if self._waiting:
            connection.send(*self._waiting.popleft())
        else:
            self._idle.append(connection)
        self._on_request_finished()

    def on_connection_lost(self, error: Exception | None) -> None:
        """Record the end of a connection, an error unless this side closed it."""
        if self._closing:
            return
        failure = ConnectionError(f"The server closed a connection: {error}")
        self._closing = True
        if self._finished is not None and not self._finished.done():
            self._finished.set_exception(failure)

    def _send_next(self, connection: _Connection) -> None:
        exchange = next(self._source, None)
        if exchange is None:
            self._on_request_finished()
        else:
            connection.send(exchange, time.perf_counter())

    def _on_request_finished(self) -> None:
        self._in_flight -= 1
        if not self._in_flight and self._finished is not None and not self._finished.done():
            self._finished.set_result(None)

    def _raise_if_wrong(self) -> None:
        if self._wrong:
            shown = "\n".join(repr(sample) for sample in self._samples)
            raise WrongResponseError(f"{self._wrong} wrong responses, for example:\n{shown}")


def quantile(values: Iterable[float], fraction: float) -> float:
    """Return the value below which this share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]


def _content_length(whole: bytes, end: int) -> int:
    if whole.startswith(_NOT_MODIFIED):
        return 0
    at = whole.find(_CONTENT_LENGTH, 0, end)
    if at < 0:
        raise WrongResponseError(f"A response without a length: {whole[:_MAX_SAMPLE_BYTES]!r}")
    return int(whole[at + len(_CONTENT_LENGTH) : whole.find(b"\r", at)])
