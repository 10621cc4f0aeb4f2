"""Work in steps: all are taken, in order, and others come in between."""

import asyncio
import time

from registry.service.turns import in_turns


async def test_others_come_in_between_and_no_step_is_lost() -> None:
    """After steps that took long; quick ones are taken together."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def steps(seconds: float) -> list[float]:
        return [seconds] * 4

    def work(seconds: float) -> None:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            pass

    task = asyncio.create_task(others())
    taken = [step async for step in in_turns(steps(0.0))]
    between = turns
    async for step in in_turns(steps(0.006)):
        work(step)
    task.cancel()

    assert taken == steps(0.0)
    assert between <= 1
    assert turns >= 4
