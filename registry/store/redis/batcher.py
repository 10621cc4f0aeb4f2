"""Batches calls to Redis: items that arrive while one call is in flight are sent together as the next call."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from registry.concurrency.timeouts import FutureQueue
from registry.errors import StoreUnavailable, WriteOutcome
from registry.store.scripts import MAX_AGENTS_PER_CALL

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Collects items while one call is in flight, then sends up to `max_batch` items as the next call.

    There is no timer: a single item is sent immediately. `send` returns one result or one exception for each item, in
    order, so that a bad item fails alone; if `send` raises, every item of the call fails. At most `max_queued` items
    wait, each at most `timeout` seconds; beyond that they fail with StoreUnavailable.

    A separate task sends, and callers hold futures: cancelling a caller does not affect the call.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        max_batch: int = MAX_AGENTS_PER_CALL,
        max_queued: int = 1000,
        timeout: float = 2.0,
    ) -> None:
        self._send = send
        self._max_batch = max_batch
        self._max_queued = max_queued
        self._futures: FutureQueue[Result] = FutureQueue(timeout, self._timeout_error)
        self._queue: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._in_flight: set[asyncio.Future[Result]] = set()
        self._task: asyncio.Task[None] | None = None

    def submit(self, item: Item) -> "asyncio.Future[Result]":
        """Queue one item and return the future of its result. Raises StoreUnavailable if the queue is full."""
        if len(self._queue) >= self._max_queued:
            raise StoreUnavailable("Too many requests are queued for Redis; retry shortly", reason="queue_full")
        future = self._futures.add()
        self._queue.append((item, future))
        if self._task is None:
            self._task = asyncio.create_task(self._send_queue())
        return future

    async def close(self) -> None:
        """Wait until every submitted item has its result."""
        while self._task is not None:
            await self._task

    async def _send_queue(self) -> None:
        queue = self._queue
        try:
            while queue:
                batch = [queue.popleft() for _ in range(min(len(queue), self._max_batch))]
                batch = [(item, future) for item, future in batch if not future.done()]
                if batch:
                    await self._send_batch(batch)
        finally:
            self._task = None

    async def _send_batch(self, batch: list[tuple[Item, "asyncio.Future[Result]"]]) -> None:
        self._in_flight.update(future for _, future in batch)
        try:
            results = await self._send([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - every caller of this batch receives it
            results = [error] * len(batch)
        finally:
            self._in_flight.clear()
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

    def _timeout_error(self, future: "asyncio.Future[Result]") -> StoreUnavailable:
        outcome: WriteOutcome = "unknown" if future in self._in_flight else "not_sent"
        return StoreUnavailable("Redis did not respond in time", outcome=outcome, reason="timeout")
