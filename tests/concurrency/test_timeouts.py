"""Futures with a time limit, which share one timer."""

import asyncio

import pytest

from registry.concurrency.timeouts import FutureQueue


class OverdueError(Exception):
    """The error of futures whose time is over."""


def queue_with_timeout(timeout: float) -> FutureQueue[str]:
    """Return a queue whose futures fail after the timeout."""
    return FutureQueue(timeout, lambda _future: OverdueError())


async def test_an_overdue_future_fails_with_the_error_of_the_factory() -> None:
    """The factory of the error receives each future."""
    received: list[asyncio.Future[str]] = []

    def make_error(future: asyncio.Future[str]) -> Exception:
        received.append(future)
        return OverdueError()

    queue: FutureQueue[str] = FutureQueue(0.01, make_error)
    futures = [queue.add(), queue.add()]

    assert [type(result) for result in await asyncio.gather(*futures, return_exceptions=True)] == [OverdueError] * 2
    assert received == futures


async def test_a_future_completed_in_time_does_not_change() -> None:
    """The timer of other futures changes neither a result nor a cancellation."""
    queue = queue_with_timeout(0.02)
    served, cancelled, pending = queue.add(), queue.add(), queue.add()

    served.set_result("here")
    cancelled.cancel()

    with pytest.raises(OverdueError):
        await pending
    assert served.result() == "here"
    assert cancelled.cancelled()


async def test_no_future_fails_before_its_timeout() -> None:
    """A future that was added later also waits for the whole timeout."""
    loop = asyncio.get_running_loop()
    queue = queue_with_timeout(0.03)
    first = queue.add()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(first), 0.01)
    added_at, second = loop.time(), queue.add()

    with pytest.raises(OverdueError):
        await first
    with pytest.raises(OverdueError):
        await second

    assert loop.time() - added_at > 0.029


async def test_the_queue_works_after_all_futures_failed() -> None:
    """The next future starts the timer again."""
    queue = queue_with_timeout(0.01)
    for _ in range(3):
        with pytest.raises(OverdueError):
            await queue.add()


async def test_one_timer_serves_ten_thousand_futures() -> None:
    """Completed futures are removed when others are added."""
    loop = asyncio.get_running_loop()
    queue = queue_with_timeout(60)
    timers = 0
    call_at = loop.call_at

    def counting_call_at(*args: object, **kwargs: object) -> asyncio.TimerHandle:
        nonlocal timers
        timers += 1
        return call_at(*args, **kwargs)  # type: ignore[arg-type]

    loop.call_at = counting_call_at  # type: ignore[method-assign]
    for _ in range(10_000):
        queue.add().set_result("")

    assert timers == 1
    assert len(queue._pending) == 1
    assert queue._timer is not None
    queue._timer.cancel()
