"""Count how often a long task yields to the event loop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass
class YieldCounter:
    """The number of yields so far."""

    yields: int = 0


@contextlib.asynccontextmanager
async def count_yields() -> AsyncIterator[YieldCounter]:
    """Run a task that counts how often the event loop runs other tasks."""
    counter = YieldCounter()

    async def count() -> None:
        while True:
            counter.yields += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(count())
    await asyncio.sleep(0)
    try:
        yield counter
    finally:
        task.cancel()
