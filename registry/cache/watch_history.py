"""The shared history, kept connected: across fills where the log still leads over, and backwards into the log."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from registry.cache.change_buffer import ChangeBuffer, ChangeEntry
from registry.errors import StoreUnavailable
from registry.model.change import Change, LogRead
from registry.telemetry.logs import get_logger

log = get_logger(__name__)


class LogReader(Protocol):
    """What the trail needs of a store."""

    async def read_since(self, after: int) -> LogRead:
        """Return version and history now, and the changes after entry `after`."""

    async def entry(self, version: int) -> Change | None:
        """Return one entry, None when it is not there."""

    async def invalidate(self, timeline: str, last_seen: int) -> bool:
        """Replace a timeline whose log lost entry `last_seen`; return False where the entry was only trimmed."""


class WatchHistory:
    """The history all watchers of this replica share, and how it follows the view.

    `on_entry` is called with each entry as it comes, in order, none twice; `on_gap` when the next entry does not follow
    the one before, so that streams must end. At most `max_entries` entries of `max_bytes` together are held.
    """

    def __init__(
        self,
        source: LogReader,
        max_entries: int,
        *,
        on_entry: Callable[[ChangeEntry], None],
        on_gap: Callable[[], None],
        max_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        self.buffer = ChangeBuffer(0, max_entries, max_bytes)
        self.timeline = ""
        self._source = source
        self._on_entry = on_entry
        self._on_gap = on_gap
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._last_change: Change | None = None
        self._extend_lock = asyncio.Lock()

    def append(self, change: Change) -> None:
        """Take the next change of the view."""
        entry = ChangeEntry(change)
        self._last_change = change
        self.buffer.append(entry)
        self._on_entry(entry)

    async def reconnect(self, version: int, timeline: str) -> bool:
        """Connect to a view that was filled anew at `version` of the history `timeline`.

        Where the log still leads there from the newest entry, which must read as it did, those who follow notice
        nothing. Else the trail starts over. False where the log lost that entry, as after a failover: then its history
        was given up, since those who saw the entry may ask anywhere to go on from it.
        """
        if self.timeline == timeline and self._last_change is not None:
            last = self.buffer.last_version
            if await self._source.entry(last) == self._last_change:
                changes = await self._read_between(last, version)
                if changes is not None:
                    for change in changes:
                        self.append(change)
                    return True
            elif await self._source.invalidate(timeline, last):
                return False
        broke = self.timeline != ""
        newest = await self._source.entry(version)
        self.buffer = ChangeBuffer(version, self._max_entries, self._max_bytes)
        self.timeline, self._last_change = timeline, newest
        if broke:
            log.warning("streams end: the log does not lead from what they have seen to what there is now")
            self._on_gap()
        return True

    async def extend_to(self, version: int) -> bool:
        """Make the history hold `version`, reading the log backwards once for all who want it; tell whether it does."""
        async with self._extend_lock:
            history, start = self.buffer, self.buffer.start_version
            if self.buffer.contains(version) or version > start:
                return self.buffer.contains(version)
            if await self._source.entry(version) is None:
                return False
            changes = await self._read_between(version, start)
            if changes is None or self.buffer is not history or history.start_version != start:
                return self.buffer.contains(version)
            history.prepend(version, [ChangeEntry(change) for change in changes])
            return True

    async def _read_between(self, after: int, to: int) -> list[Change] | None:
        """Return the changes after one entry up to another, None where the log does not hold all of them.

        Raises StoreUnavailable where that cannot be told.
        """
        changes: list[Change] = []
        while after < to:
            pulled = await self._source.read_since(after)
            if not pulled.contiguous and await self._source.entry(after) is not None:
                # It is there, but behind another connection than the view was filled over: trouble, no loss.
                raise StoreUnavailable("The connection to the store was lost meanwhile", reason="reconnected")
            if not pulled.contiguous or not pulled.changes:
                return None
            for change in pulled.changes:
                if change.prev != after:
                    return None
                changes.append(change)
                after = change.version
                if after >= to:
                    break
        return changes if after == to else None
