"""The endless loop follows its schedule, survives every exception, and ends only when cancelled."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import structlog
from structlog.testing import LogCapture

from registry.concurrency import periodic
from registry.errors import StoreUnavailable

Body = Callable[[], Awaitable[None]]


class SimulatedTime:
    """A clock that advances while the loop sleeps or works; the sleep after the last round cancels the loop."""

    def __init__(self, rounds: int) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []
        self.rounds = rounds

    def clock(self) -> float:
        """Return the simulated time."""
        return self.now

    async def sleep(self, pause: float) -> None:
        """Advance the time, and cancel the loop after the last round."""
        self.pauses.append(pause)
        self.now += pause
        if len(self.pauses) == self.rounds:
            raise asyncio.CancelledError


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> LogCapture:
    """Capture the events that the loop logs."""
    capture = LogCapture()
    monkeypatch.setattr(periodic, "log", structlog.wrap_logger(None, processors=[capture]))
    return capture


async def run(
    body: Body,
    time: SimulatedTime,
    *,
    period: float = 1.0,
    max_pause: float | None = None,
    on_error: Callable[[str], None] | None = None,
) -> None:
    """Run a loop called `tick` until the given number of rounds is over."""
    with pytest.raises(asyncio.CancelledError):
        await periodic.every(
            period, "tick", body, max_pause=max_pause, on_error=on_error, clock=time.clock, sleep=time.sleep
        )


def body_taking(time: SimulatedTime, *seconds: float) -> Body:
    """Return a body whose rounds take the given durations; the last one repeats."""
    lengths = iter(seconds)

    async def body() -> None:
        time.now += next(lengths, seconds[-1])

    return body


def body_raising(*errors: Exception | None) -> Body:
    """Return a body whose rounds raise the given errors, and then succeed."""
    outcomes = iter(errors)

    async def body() -> None:
        if (error := next(outcomes, None)) is not None:
            raise error

    return body


async def test_the_first_round_starts_at_once_and_each_next_one_a_period_later() -> None:
    """The duration of a round is part of its period."""
    time = SimulatedTime(rounds=3)

    await run(body_taking(time, 0.25), time)

    assert time.pauses == [0.75, 0.75, 0.75]


async def test_a_sleep_that_ends_late_does_not_shift_the_schedule() -> None:
    """Delays do not add up over the rounds."""
    time = SimulatedTime(rounds=4)
    starts: list[float] = []

    async def body() -> None:
        starts.append(time.now)
        time.now += 0.1

    async def oversleep(pause: float) -> None:
        await time.sleep(pause)
        time.now += 0.2

    with pytest.raises(asyncio.CancelledError):
        await periodic.every(1.0, "tick", body, clock=time.clock, sleep=oversleep)

    assert starts == pytest.approx([1000, 1001.2, 1002.2, 1003.2])


async def test_a_sleep_that_ends_a_tick_early_causes_no_second_round() -> None:
    """Event loops round their timers, which must not affect the schedule."""
    time = SimulatedTime(rounds=3)

    async def undersleep(pause: float) -> None:
        await time.sleep(pause)
        time.now -= 1e-6

    with pytest.raises(asyncio.CancelledError):
        await periodic.every(1.0, "tick", body_taking(time, 0), clock=time.clock, sleep=undersleep)

    assert time.pauses == pytest.approx([1, 1, 1], abs=1e-5)


async def test_rounds_missed_during_a_long_one_are_skipped() -> None:
    """A process that stalled must not continue with a burst of rounds."""
    time = SimulatedTime(rounds=3)

    await run(body_taking(time, 3.25, 0), time)

    assert time.pauses == [0.75, 1, 1]


async def test_consecutive_failures_back_off_up_to_the_maximum_pause(
    events: LogCapture,
) -> None:
    """The upper bound of the pause doubles with each failure, and is reset by a success."""
    time = SimulatedTime(rounds=7)

    await run(body_raising(*[ValueError("no")] * 5, None, ValueError("again")), time, max_pause=5)

    bounds = [2, 4, 5, 5, 5, 1, 2]
    assert all(1 <= pause <= bound for pause, bound in zip(time.pauses, bounds, strict=True))
    assert [entry["failures"] for entry in events.entries] == [1, 2, 3, 4, 5, 1]


async def test_pauses_are_random_up_to_eight_periods_by_default(
    events: LogCapture,
) -> None:
    """Replicas that failed together recover one by one."""
    time = SimulatedTime(rounds=200)

    await run(body_raising(*[ValueError("no")] * 200), time, period=0.5)

    assert 0.5 <= min(time.pauses) <= max(time.pauses) <= 4
    assert len({*time.pauses}) > 100
    assert 1.8 < sum(time.pauses) / 200 < 2.7
    assert len(events.entries) == 200


async def test_an_unavailable_store_is_logged_as_a_warning_without_traceback(events: LogCapture) -> None:
    """An outage of Redis is not a bug."""
    time = SimulatedTime(rounds=1)

    await run(body_raising(StoreUnavailable("No answer within 2s", reason="timeout")), time)

    [entry] = events.entries
    assert entry["log_level"] == "warning"
    assert (entry["loop"], entry["reason"], entry["error"]) == ("tick", "timeout", "No answer within 2s")
    assert "exc_info" not in entry


async def test_any_other_exception_is_logged_as_an_error_with_traceback(events: LogCapture) -> None:
    """The traceback is required to find the bug."""
    time, error = SimulatedTime(rounds=1), KeyError("bug")

    await run(body_raising(error), time)

    [entry] = events.entries
    assert (entry["log_level"], entry["loop"], entry["exc_info"]) == ("error", "tick", error)


async def test_each_failure_is_counted_under_the_name_of_the_loop(events: LogCapture) -> None:
    """Errors of any kind count, successful rounds do not."""
    time = SimulatedTime(rounds=3)
    counted: list[str] = []

    await run(body_raising(ValueError("no"), None, StoreUnavailable("away")), time, on_error=counted.append)

    assert counted == ["tick", "tick"]
    assert len(events.entries) == 2


async def test_a_cancelled_body_ends_the_loop(events: LogCapture) -> None:
    """Cancellation is not a failure: no event is logged, and the loop does not pause."""
    time = SimulatedTime(rounds=3)

    async def body() -> None:
        raise asyncio.CancelledError

    await run(body, time)

    assert (time.pauses, events.entries) == ([], [])


async def test_a_real_loop_ends_when_its_task_is_cancelled() -> None:
    """By default the loop uses the real clock and the real sleep."""
    rounds = asyncio.Semaphore(0)

    async def body() -> None:
        rounds.release()

    task = asyncio.create_task(periodic.every(0.001, "tick", body))
    for _ in range(3):
        await rounds.acquire()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(("period", "max_pause"), [(0, None), (-1, None), (2, 1), (float("nan"), None)])
async def test_a_period_of_zero_or_above_the_maximum_pause_is_rejected(period: float, max_pause: float | None) -> None:
    """Either would be a loop without pauses."""
    with pytest.raises(ValueError, match="expected 0 < period <= max_pause"):
        await periodic.every(period, "tick", body_raising(), max_pause=max_pause)
