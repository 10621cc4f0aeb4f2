"""The delays of the event loop."""

from registry.concurrency.loop_lag import TICK_INTERVAL_S, LoopLag


class Clock:
    """A clock that the test advances."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


async def test_delays_are_added_up() -> None:
    """A delay of a tenth of a second is usual, and does not count."""
    clock = Clock()
    lag = LoopLag(clock)
    for late in (0.0, 0.05, 3.0, 0.0, 2.0):
        clock.now += TICK_INTERVAL_S + late
        await lag.tick()

    assert round(lag.total_s(), 3) == 5.0
    assert round(lag.longest_s(), 3) == 3.0


async def test_a_delay_counts_before_it_is_over() -> None:
    """Another callback of the loop may run first after it."""
    clock = Clock()
    lag = LoopLag(clock)
    clock.now += TICK_INTERVAL_S + 13.0

    assert round(lag.total_s(), 3) == round(lag.longest_s(), 3) == 13.0
    await lag.tick()
    assert round(lag.total_s(), 3) == round(lag.longest_s(), 3) == 13.0


async def test_the_longest_delay_is_that_of_the_last_minute() -> None:
    """So that a scrape every 30 s reads each of them."""
    clock = Clock()
    lag = LoopLag(clock)
    clock.now += TICK_INTERVAL_S + 3.0
    await lag.tick()
    longest = []
    for _ in range(int(62 / TICK_INTERVAL_S)):
        clock.now += TICK_INTERVAL_S
        await lag.tick()
        longest.append(round(lag.longest_s(), 3))

    assert set(longest[: int(26 / TICK_INTERVAL_S)]) == {3.0}
    assert longest[-1] == 0.0
