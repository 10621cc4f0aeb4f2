"""`FutureQueue`: creates futures that share one timeout and one timer."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class FutureQueue(Generic[T]):
    """Creates futures and fails each that is not done after `timeout` seconds, with `make_timeout_error(future)`.

    One timer is enough, because the futures time out in the order of their creation.
    """

    def __init__(self, timeout: float, make_timeout_error: Callable[["asyncio.Future[T]"], Exception]) -> None:
        self._timeout = timeout
        self._make_timeout_error = make_timeout_error
        self._pending: deque[tuple[float, asyncio.Future[T]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def add(self) -> "asyncio.Future[T]":
        """Return a new future, which fails after the timeout of this queue."""
        loop = asyncio.get_running_loop()
        pending = self._pending
        while pending and pending[0][1].done():
            pending.popleft()
        future: asyncio.Future[T] = loop.create_future()
        due = loop.time() + self._timeout
        pending.append((due, future))
        if self._timer is None:
            self._timer = loop.call_at(due, self._fail_timed_out)
        return future

    def _fail_timed_out(self) -> None:
        loop = asyncio.get_running_loop()
        pending, now = self._pending, loop.time()
        while pending and (pending[0][0] <= now or pending[0][1].done()):
            future = pending.popleft()[1]
            if not future.done():
                future.set_exception(self._make_timeout_error(future))
        self._timer = loop.call_at(pending[0][0], self._fail_timed_out) if pending else None
