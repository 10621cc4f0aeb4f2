"""Wait for a condition of another process or task; no other test module sleeps."""

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, overload

from tests.support.machine_speed import scaled

T = TypeVar("T")

POLL_INTERVAL_S = 0.01
# No test that passes waits this long, so the tests have no limits of their own. `benchmarks/` measures speed.
_TIMEOUT_S = 60.0


def wait_until(predicate: Callable[[], T], *, description: str) -> T:
    """Call `predicate` every 10 ms until its result is true; return that result.

    `description` states the condition ("the server is ready"). An exception of the predicate passes through.

    Raises:
        AssertionError: the condition was not met within a minute, or longer on a slow machine.
    """
    deadline = _Deadline(description)
    while not (result := predicate()):
        deadline.check()
        time.sleep(POLL_INTERVAL_S)
    return result


@overload
async def async_wait_until(predicate: Callable[[], Coroutine[Any, Any, T]], *, description: str) -> T: ...
@overload
async def async_wait_until(predicate: Callable[[], T], *, description: str) -> T: ...
async def async_wait_until(predicate: Callable[[], Any], *, description: str) -> Any:
    """Like `wait_until`, without blocking the event loop; `predicate` may be a coroutine function.

    Raises:
        AssertionError: the condition was not met within a minute, or longer on a slow machine.
    """
    deadline = _Deadline(description)
    while True:
        result = predicate()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return result
        deadline.check()
        await asyncio.sleep(POLL_INTERVAL_S)


class _Deadline:
    def __init__(self, description: str) -> None:
        self._description = description
        self._timeout_s = scaled(_TIMEOUT_S)
        self._at = time.monotonic() + self._timeout_s

    def check(self) -> None:
        if time.monotonic() >= self._at:
            raise AssertionError(f"not within {self._timeout_s:.0f} s: {self._description}")
