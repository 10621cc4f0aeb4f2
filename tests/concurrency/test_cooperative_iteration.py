"""Cooperative iteration: all steps in order, with time for other tasks in between."""

import pytest

from registry.concurrency import cooperative_iteration
from tests.support.yield_counter import count_yields


class Clock:
    """A clock that advances only when the test does."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        """Return the current time in seconds."""
        return self.now


@pytest.mark.parametrize(("seconds", "expected_yields"), [(0.0, 0), (0.001, 0), (0.003, 2), (0.006, 4)])
async def test_other_tasks_run_between_slow_steps(
    monkeypatch: pytest.MonkeyPatch, seconds: float, expected_yields: int
) -> None:
    """Slow steps are separated by a yield to the event loop, quick ones run together."""
    clock = Clock()
    monkeypatch.setattr(cooperative_iteration, "time", clock)
    steps = []

    async with count_yields() as counter:
        before = counter.yields
        async for step in cooperative_iteration.cooperative(range(4)):
            steps.append(step)
            clock.now += seconds

    assert steps == [0, 1, 2, 3]
    assert counter.yields == before + expected_yields
