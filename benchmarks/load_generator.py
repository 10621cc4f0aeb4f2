"""A load generator that costs little: raw protocols, requests built beforehand, every answer checked."""

import asyncio
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Self, cast

Check = Callable[[bytes], bool]
"""Tells whether the body of an answer is right."""

Exchange = tuple[bytes, Check]
"""A whole request, ready to be written, and the check of its answer."""

_HEADERS_END = b"\r\n\r\n"
_CONTENT_LENGTH = b"content-length: "
# An answer without a body; a check that wants one fails on its emptiness.
_NOT_MODIFIED = b"HTTP/1.1 304 "
# Of wrong answers the first few are shown, this much of each.
_MAX_SAMPLES, _MAX_SAMPLE_BYTES = 3, 600


class WrongResponseError(Exception):
    """Some answers were not what they had to be, so there is no figure."""


class _Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request on its way."""

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
        """Send a request; its latency counts from `started`, seconds on `time.perf_counter`."""
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
        known = whole.startswith((b"HTTP/1.1 200 ", _NOT_MODIFIED))
        right = known and self._size == self._total and self._check(whole[self._body_at :])
        parts.clear()
        self._size = self._total = 0
        self._clients.on_response(self, None if right else whole)

    def connection_lost(self, exc: Exception | None) -> None:
        self._clients.on_connection_lost(exc)

    def close(self) -> None:
        self._transport.close()


class Clients:
    """So many clients of servers on loopback, each on a connection of its own, the ports in turn; a context manager.

    `latencies` are seconds, in the order in which the answers came; `due_times` the moments from which they count,
    seconds on `time.perf_counter`. Both begin anew with `forget()`.
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
        for at in range(self._count):
            port = self._ports[at % len(self._ports)]
            _, connection = await loop.create_connection(lambda: _Connection(self), "127.0.0.1", port)
            self._connections.append(connection)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        for connection in self._connections:
            connection.close()

    async def closed_loop(self, source: Iterable[Exchange]) -> None:
        """Keep every client busy until the source ends or `stop()`; return when every answer has come.

        Raises WrongAnswerError if one of them was wrong.
        """
        self._source = iter(source)
        self._finished = drained = asyncio.get_running_loop().create_future()
        self._in_flight = len(self._connections)
        for connection in self._connections:
            self._send_next(connection)
        await drained
        self._raise_if_wrong()

    async def at_once(self, exchanges: Iterable[Exchange]) -> None:
        """Send one request on each connection without waiting; all of them count from the moment before the first."""
        asked = list(zip(self._connections, exchanges, strict=True))
        self._source = iter(())
        self._finished = drained = asyncio.get_running_loop().create_future()
        self._in_flight = len(asked)
        now = time.perf_counter()
        for connection, exchange in asked:
            connection.send(exchange, now)
        await drained
        self._raise_if_wrong()

    async def open_loop(self, source: Iterable[Exchange], *, rate: float, seconds: float, spin: bool) -> None:
        """Send `rate` requests a second for so long, whether or not the ones before them were answered.

        What falls due while no client is idle waits, and that is part of its latency. With `spin` the generator never
        sleeps, so that its own timers, which are good to a millisecond, are not measured; it wants a core for that.
        """
        exchanges = iter(source)
        self._source = iter(())
        self._open_loop = True
        self._idle.extend(self._connections)
        began, sent, total = time.perf_counter() + 0.1, 0, round(rate * seconds)
        while sent < total:
            now = time.perf_counter()
            while sent < total and (due := began + sent / rate) <= now:
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
        """Send nothing more; the loop that runs ends with the answers that are still to come."""
        self._source = iter(())

    def reset(self) -> None:
        """Begin to measure anew."""
        self.latencies, self.due_times = array("d"), array("d")

    def on_response(self, connection: _Connection, wrong: bytes | None) -> None:
        """Take an answer, with its bytes if it was wrong."""
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
        """Take the end of a connection, which is wrong unless we closed it."""
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
            raise WrongResponseError(f"{self._wrong} wrong answers, for example:\n{shown}")


def quantile(values: Iterable[float], fraction: float) -> float:
    """Return the value below which this share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]


def _content_length(whole: bytes, end: int) -> int:
    if whole.startswith(_NOT_MODIFIED):
        return 0
    at = whole.find(_CONTENT_LENGTH, 0, end)
    if at < 0:
        raise WrongResponseError(f"An answer without a length: {whole[:_MAX_SAMPLE_BYTES]!r}")
    return int(whole[at + len(_CONTENT_LENGTH) : whole.find(b"\r", at)])
