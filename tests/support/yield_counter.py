"""Count how often a long task yields to the event loop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass
class YieldCounter:
    """How many turns they had so far."""

    yields: int = 0


@contextlib.asynccontextmanager
async def count_yields() -> AsyncIterator[YieldCounter]:
    """Let others take every turn they can get, and count them."""
    them = YieldCounter()

    async def take_turns() -> None:
        while True:
            them.yields += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(take_turns())
    await asyncio.sleep(0)
    try:
        yield them
    finally:
        task.cancel()
