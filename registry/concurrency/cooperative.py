"""Much work in small steps: whatever takes long lets others have their turn."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import Final, TypeVar

Item = TypeVar("Item")

# How long one works until others have their turn, in seconds.
_MAX_BLOCK_S: Final = 0.005


async def cooperative(items: Iterable[Item]) -> AsyncIterator[Item]:
    """Give one step after the other, and let others have their turn whenever some of them took long together."""
    began = time.perf_counter()
    for item in items:
        yield item
        if time.perf_counter() - began > _MAX_BLOCK_S:
            await asyncio.sleep(0)
            began = time.perf_counter()
