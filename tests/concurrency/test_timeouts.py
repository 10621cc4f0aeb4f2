"""Nobody waits longer than it may, and one timer serves all."""

import asyncio

import pytest

from registry.concurrency.timeouts import FutureQueue


class OverdueError(Exception):
    """What a test's waiters fail with."""


def waiters(timeout: float) -> FutureQueue[str]:
    """Futures that fail after this many seconds."""
    return FutureQueue(timeout, lambda _future: OverdueError())


async def test_who_waits_too_long_fails_with_what_overdue_makes() -> None:
    """Each is asked about itself."""
    asked: list[asyncio.Future[str]] = []

    def overdue(future: asyncio.Future[str]) -> Exception:
        asked.append(future)
        return OverdueError()

    line: FutureQueue[str] = FutureQueue(0.01, overdue)
    futures = [line.add(), line.add()]

    assert [type(result) for result in await asyncio.gather(*futures, return_exceptions=True)] == [OverdueError] * 2
    assert asked == futures


async def test_who_is_served_in_time_is_left_alone() -> None:
    """A result stays, and so does a cancellation, when the timer of the others goes off."""
    line = waiters(0.02)
    served, cancelled, forgotten = line.add(), line.add(), line.add()

    served.set_result("here")
    cancelled.cancel()

    with pytest.raises(OverdueError):
        await forgotten
    assert served.result() == "here"
    assert cancelled.cancelled()


async def test_nobody_fails_before_the_time_is_over() -> None:
    """Those who came later wait as long as those who came first."""
    loop = asyncio.get_running_loop()
    line = waiters(0.03)
    first = line.add()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(first), 0.01)
    began, second = loop.time(), line.add()

    with pytest.raises(OverdueError):
        await first
    with pytest.raises(OverdueError):
        await second

    assert 0.029 < loop.time() - began < 1


async def test_the_line_starts_anew_after_everybody_has_failed() -> None:
    """The timer is set again by the next who comes."""
    line = waiters(0.01)
    for _ in range(3):
        with pytest.raises(OverdueError):
            await line.add()


async def test_one_timer_serves_ten_thousand() -> None:
    """And those who were served are forgotten as others come."""
    loop = asyncio.get_running_loop()
    line = waiters(60)
    timers = 0
    call_at = loop.call_at

    def counted(*args: object, **kwargs: object) -> asyncio.TimerHandle:
        nonlocal timers
        timers += 1
        return call_at(*args, **kwargs)  # type: ignore[arg-type]

    loop.call_at = counted  # type: ignore[method-assign]
    for _ in range(10_000):
        line.add().set_result("")

    assert timers == 1
    assert len(line._pending) == 1
    assert line._timer is not None
    line._timer.cancel()
