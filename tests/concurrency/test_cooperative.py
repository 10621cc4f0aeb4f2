"""Work in steps: all are taken, in order, and others come in between."""

import time

from registry.concurrency.cooperative import cooperative
from tests.support.yield_counter import count_yields


async def test_others_come_in_between_and_no_step_is_lost() -> None:
    """After steps that took long; quick ones are taken together."""

    def steps(seconds: float) -> list[float]:
        return [seconds] * 4

    def work(seconds: float) -> None:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            pass

    async with count_yields() as them:
        before = them.yields
        taken = [step async for step in cooperative(steps(0.0))]
        between = them.yields - before
        async for step in cooperative(steps(0.006)):
            work(step)

    assert taken == steps(0.0)
    assert between <= 1
    assert them.yields >= before + 4
