"""Much work in small steps: whatever takes long lets others have their turn."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import Final, TypeVar

Step = TypeVar("Step")

# How long one works until others have their turn, in seconds.
_TURN: Final = 0.005


async def in_turns(steps: Iterable[Step]) -> AsyncIterator[Step]:
    """Give one step after the other, and let others have their turn whenever some of them took long together."""
    began = time.perf_counter()
    for step in steps:
        yield step
        if time.perf_counter() - began > _TURN:
            await asyncio.sleep(0)
            began = time.perf_counter()
