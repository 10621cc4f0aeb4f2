"""Cooperative iteration: all steps in order, with time for other tasks in between."""

import time

from registry.concurrency.cooperative_iteration import cooperative
from tests.support.yield_counter import count_yields


async def test_other_tasks_run_between_slow_steps() -> None:
    """Slow steps are separated by a yield to the event loop, quick ones run together."""

    def steps(seconds: float) -> list[float]:
        return [seconds] * 4

    def work(seconds: float) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass

    async with count_yields() as counter:
        before = counter.yields
        steps_done = [step async for step in cooperative(steps(0.0))]
        between = counter.yields - before
        async for step in cooperative(steps(0.006)):
            work(step)

    assert steps_done == steps(0.0)
    assert between <= 1
    assert counter.yields >= before + 4
