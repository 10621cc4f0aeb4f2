"""Those who wait: futures in order of arrival, none of which waits longer than it may."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class FutureQueue(Generic[T]):
    """Hands out futures and fails each that is not done `timeout` seconds after it was handed out.

    One timer serves all, since they fall due in the order in which they came. `make_timeout_error` makes the exception
    for one of them.
    """

    def __init__(self, timeout: float, make_timeout_error: Callable[["asyncio.Future[T]"], Exception]) -> None:
        self._timeout = timeout
        self._make_timeout_error = make_timeout_error
        self._pending: deque[tuple[float, asyncio.Future[T]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def add(self) -> "asyncio.Future[T]":
        """Return a new future at the end of the line."""
        loop = asyncio.get_running_loop()
        line = self._pending
        while line and line[0][1].done():
            line.popleft()
        future: asyncio.Future[T] = loop.create_future()
        due = loop.time() + self._timeout
        line.append((due, future))
        if self._timer is None:
            self._timer = loop.call_at(due, self._fail_timed_out)
        return future

    def _fail_timed_out(self) -> None:
        loop = asyncio.get_running_loop()
        line, now = self._pending, loop.time()
        while line and (line[0][0] <= now or line[0][1].done()):
            future = line.popleft()[1]
            if not future.done():
                future.set_exception(self._make_timeout_error(future))
        self._timer = loop.call_at(line[0][0], self._fail_timed_out) if line else None
