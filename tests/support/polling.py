"""Wait for a condition of another process or task; no other test module sleeps."""

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, overload

T = TypeVar("T")

POLL_INTERVAL_S = 0.01


def wait_until(predicate: Callable[[], T], *, description: str, timeout: float = 5.0) -> T:
    """Call `predicate` every 10 ms until its result is true; return that result.

    `description` states the condition ("the server is ready"). An exception of the predicate passes through.

    Raises:
        AssertionError: the condition was not met within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not (result := predicate()):
        if time.monotonic() >= deadline:
            raise _timeout_error(description, timeout)
        time.sleep(POLL_INTERVAL_S)
    return result


@overload
async def async_wait_until(
    predicate: Callable[[], Coroutine[Any, Any, T]], *, description: str, timeout: float = 5.0
) -> T: ...
@overload
async def async_wait_until(predicate: Callable[[], T], *, description: str, timeout: float = 5.0) -> T: ...
async def async_wait_until(predicate: Callable[[], Any], *, description: str, timeout: float = 5.0) -> Any:
    """Like `wait_until`, without blocking the event loop; `predicate` may be a coroutine function.

    Raises:
        AssertionError: the condition was not met within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        result = predicate()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return result
        if time.monotonic() >= deadline:
            raise _timeout_error(description, timeout)
        await asyncio.sleep(POLL_INTERVAL_S)


def _timeout_error(description: str, timeout: float) -> AssertionError:
    return AssertionError(f"not within {timeout} s: {description}")
