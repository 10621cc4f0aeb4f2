"""Iterate over many items without blocking the event loop."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import Final, TypeVar

Item = TypeVar("Item")

_MAX_BLOCK_S: Final = 0.005


async def cooperative(items: Iterable[Item]) -> AsyncIterator[Item]:
    """Yield the items in order, and let other tasks run whenever the processing of items has taken 5 ms."""
    started_at = time.perf_counter()
    for item in items:
        yield item
        if time.perf_counter() - started_at > _MAX_BLOCK_S:
            await asyncio.sleep(0)
            started_at = time.perf_counter()
