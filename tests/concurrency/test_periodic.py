"""The endless loop keeps its schedule, survives every exception, and ends only when cancelled."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import structlog
from structlog.testing import LogCapture

from registry.concurrency import periodic
from registry.errors import StoreUnavailable

Body = Callable[[], Awaitable[None]]


class Time:
    """A clock that only sleeping and working move; the sleep after the last round cancels the loop."""

    def __init__(self, rounds: int) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []
        self.rounds = rounds

    def clock(self) -> float:
        """Give the time."""
        return self.now

    async def sleep(self, pause: float) -> None:
        """Move the time on, and cancel after the last round."""
        self.pauses.append(pause)
        self.now += pause
        if len(self.pauses) == self.rounds:
            raise asyncio.CancelledError


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> LogCapture:
    """The events that the loop logs."""
    capture = LogCapture()
    monkeypatch.setattr(periodic, "log", structlog.wrap_logger(None, processors=[capture]))
    return capture


async def run(
    body: Body,
    time: Time,
    *,
    period: float = 1.0,
    longest: float | None = None,
    on_error: Callable[[str], None] | None = None,
) -> None:
    """Run a loop called `tick` until the given number of rounds is over."""
    with pytest.raises(asyncio.CancelledError):
        await periodic.every(
            period, "tick", body, max_pause=longest, on_error=on_error, clock=time.clock, sleep=time.sleep
        )


def working(time: Time, *seconds: float) -> Body:
    """A body whose rounds take so long, the last length again and again."""
    lengths = iter(seconds)

    async def body() -> None:
        time.now += next(lengths, seconds[-1])

    return body


def failing(*errors: Exception | None) -> Body:
    """A body whose rounds end so, and then well."""
    outcomes = iter(errors)

    async def body() -> None:
        if (error := next(outcomes, None)) is not None:
            raise error

    return body


async def test_the_first_round_is_at_once_and_each_next_one_a_period_later() -> None:
    """The work of a round is part of its period."""
    time = Time(rounds=3)

    await run(working(time, 0.25), time)

    assert time.pauses == [0.75, 0.75, 0.75]


async def test_a_sleep_that_ends_late_does_not_shift_the_schedule() -> None:
    """Lateness is not added up over the rounds."""
    time = Time(rounds=4)
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
    """Event loops round their timers; the grid must not notice."""
    time = Time(rounds=3)

    async def undersleep(pause: float) -> None:
        await time.sleep(pause)
        time.now -= 1e-6

    with pytest.raises(asyncio.CancelledError):
        await periodic.every(1.0, "tick", working(time, 0), clock=time.clock, sleep=undersleep)

    assert time.pauses == pytest.approx([1, 1, 1], abs=1e-5)


async def test_rounds_missed_in_a_long_one_are_not_made_up_for() -> None:
    """A stalled process must not come back with a burst."""
    time = Time(rounds=3)

    await run(working(time, 3.25, 0), time)

    assert time.pauses == [0.75, 1, 1]


async def test_failures_in_a_row_back_off_up_to_the_longest_pause_and_a_good_round_ends_that(
    events: LogCapture,
) -> None:
    """The bound doubles, and starts afresh after success."""
    time = Time(rounds=7)

    await run(failing(*[ValueError("no")] * 5, None, ValueError("again")), time, longest=5)

    bounds = [2, 4, 5, 5, 5, 1, 2]
    assert all(1 <= pause <= bound for pause, bound in zip(time.pauses, bounds, strict=True))
    assert [entry["failures"] for entry in events.entries] == [1, 2, 3, 4, 5, 1]


async def test_the_longest_pause_is_eight_periods_unless_said_and_pauses_are_random(
    events: LogCapture,
) -> None:
    """Replicas that failed together come back one by one."""
    time = Time(rounds=200)

    await run(failing(*[ValueError("no")] * 200), time, period=0.5)

    assert 0.5 <= min(time.pauses) <= max(time.pauses) <= 4
    assert len({*time.pauses}) > 100
    assert 1.8 < sum(time.pauses) / 200 < 2.7
    assert len(events.entries) == 200


async def test_a_store_that_is_away_is_a_warning_without_a_traceback(events: LogCapture) -> None:
    """It is weather, not a bug."""
    time = Time(rounds=1)

    await run(failing(StoreUnavailable("No answer within 2s", reason="timeout")), time)

    [entry] = events.entries
    assert entry["log_level"] == "warning"
    assert (entry["loop"], entry["reason"], entry["error"]) == ("tick", "timeout", "No answer within 2s")
    assert "exc_info" not in entry


async def test_anything_else_is_an_error_with_its_traceback(events: LogCapture) -> None:
    """It is a bug, and somebody has to find it."""
    time, error = Time(rounds=1), KeyError("bug")

    await run(failing(error), time)

    [entry] = events.entries
    assert (entry["log_level"], entry["loop"], entry["exc_info"]) == ("error", "tick", error)


async def test_each_failure_is_counted_under_the_name_of_the_loop(events: LogCapture) -> None:
    """Whatever its kind; good rounds are not counted."""
    time = Time(rounds=3)
    counted: list[str] = []

    await run(failing(ValueError("no"), None, StoreUnavailable("away")), time, on_error=counted.append)

    assert counted == ["tick", "tick"]
    assert len(events.entries) == 2


async def test_a_cancelled_body_ends_the_loop(events: LogCapture) -> None:
    """Cancellation is no failure: nothing is logged, nothing waited for."""
    time = Time(rounds=3)

    async def body() -> None:
        raise asyncio.CancelledError

    await run(body, time)

    assert (time.pauses, events.entries) == ([], [])


async def test_a_real_loop_ends_when_its_task_is_cancelled() -> None:
    """The defaults are the real clock and the real sleep."""
    rounds = asyncio.Semaphore(0)

    async def body() -> None:
        rounds.release()

    task = asyncio.create_task(periodic.every(0.001, "tick", body))
    for _ in range(3):
        await rounds.acquire()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(("period", "longest"), [(0, None), (-1, None), (2, 1), (float("nan"), None)])
async def test_a_period_of_no_length_or_above_the_longest_pause_is_refused(
    period: float, longest: float | None
) -> None:
    """Either would be a loop that spins."""
    with pytest.raises(ValueError, match="expected 0 < period <= max_pause"):
        await periodic.every(period, "tick", failing(), max_pause=longest)
