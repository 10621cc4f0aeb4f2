"""Iterate over many items, and join many bytes, without blocking the event loop."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final, TypeVar

Item = TypeVar("Item")

_MAX_BLOCK_S: Final = 0.005
# Python joins more bytes than this without its global lock.
_THREAD_THRESHOLD_BYTES: Final = 1024 * 1024


async def cooperative(items: Iterable[Item]) -> AsyncIterator[Item]:
    """Yield the items in order, and let other tasks run whenever the processing of items has taken 5 ms."""
    started_at = time.perf_counter()
    for item in items:
        yield item
        if time.perf_counter() - started_at > _MAX_BLOCK_S:
            await asyncio.sleep(0)
            started_at = time.perf_counter()


async def cooperative_join(separator: bytes, parts: Sequence[bytes]) -> bytes:
    """Return the parts with the separator between them; many bytes are joined in a thread."""
    if sum(map(len, parts)) <= _THREAD_THRESHOLD_BYTES:
        return separator.join(parts)
    return await asyncio.to_thread(separator.join, parts)
