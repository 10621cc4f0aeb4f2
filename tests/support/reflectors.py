"""Reflectors built as `main` builds them, over a store or a fake change log."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from registry.cache.reflector import ChangeSignal, ChangeSource, Reflector
from registry.cache.watch_history import WatchHistory
from registry.service.watch.fanout import WatchFanout


def make_reflector(
    source: ChangeSource,
    max_entries: int = 20_000,
    *,
    fanout: WatchFanout | None = None,
    signal: ChangeSignal | None = None,
    on_unannounced: Callable[[], None] = lambda: None,
) -> Reflector:
    """Return a reflector that is not running yet; its changes are published to `fanout`."""
    fanout = fanout or WatchFanout()
    history = WatchHistory(source, max_entries, on_entry=fanout.publish, on_gap=fanout.end_with_log_gap)
    return Reflector(source, history, signal or ChangeSignal(), on_unannounced=on_unannounced)


@contextlib.asynccontextmanager
async def running_reflector(
    source: ChangeSource,
    max_entries: int = 20_000,
    *,
    fanout: WatchFanout | None = None,
    signal: ChangeSignal | None = None,
    on_unannounced: Callable[[], None] = lambda: None,
) -> AsyncIterator[Reflector]:
    """Provide a reflector that runs, with at most `max_entries` changes in its watch history."""
    reflector = make_reflector(source, max_entries, fanout=fanout, signal=signal, on_unannounced=on_unannounced)
    task = asyncio.create_task(reflector.run())
    try:
        yield reflector
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
