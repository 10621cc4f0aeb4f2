"""Others who want their turn while something long is done on the same event loop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass
class Others:
    """How many turns they had so far."""

    turns: int = 0


@contextlib.asynccontextmanager
async def others() -> AsyncIterator[Others]:
    """Let others take every turn they can get, and count them."""
    them = Others()

    async def take_turns() -> None:
        while True:
            them.turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(take_turns())
    await asyncio.sleep(0)
    try:
        yield them
    finally:
        task.cancel()
