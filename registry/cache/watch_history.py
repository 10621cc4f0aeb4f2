"""The changes that watches can resume from; they survive cache refills and are extended backwards from the log."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from registry.cache.change_buffer import ChangeBuffer, ChangeEntry
from registry.errors import StoreUnavailable
from registry.model.change import Change, LogRead
from registry.telemetry.logs import get_logger

log = get_logger(__name__)


class LogReader(Protocol):
    """The part of the store that reads the change log."""

    async def read_since(self, after: int, last_entry: object = None) -> LogRead:
        """Return the current version and timeline, and the changes after entry `after` of the log.

        `last_entry` is that entry as it was read before; the result shows whether it is unchanged.
        """

    async def entry(self, version: int) -> Change | None:
        """Return one entry of the change log; None if the log does not have it."""

    async def invalidate(self, timeline: str, last_seen: int) -> bool:
        """Invalidate the timeline if the log lost entry `last_seen`; return False if the entry was only trimmed."""


class WatchHistory:
    """The buffer of changes that all watches of this replica share.

    `on_entry` is called once for each entry, in order; `on_gap` if the next entry does not follow the last one, so that
    streams must end. The buffer has at most `max_entries` entries and `max_bytes` bytes.
    """

    def __init__(
        self,
        source: LogReader,
        max_entries: int,
        *,
        on_entry: Callable[[ChangeEntry], None],
        on_gap: Callable[[], None],
        max_bytes: int = 256 * 1024**2,
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
        """Add the next change of the view to the buffer."""
        self._append(ChangeEntry(change))

    def _append(self, entry: ChangeEntry) -> None:
        self._last_change = entry.change
        self.buffer.append(entry)
        self._on_entry(entry)

    async def reconnect(self, version: int, timeline: str) -> bool:
        """Connect the buffer to a view that was filled again at `version` of `timeline`.

        If the log still connects the newest entry with `version`, the entries between them are added, and watches
        continue. Otherwise the buffer starts again at `version`. Returns False if the log lost the newest entry, as
        after a failover. The timeline is then invalidated: watchers that received the entry can resume on any replica.
        """
        if self.timeline == timeline and self._last_change is not None:
            last = self.buffer.last_version
            if await self._source.entry(last) == self._last_change:
                entries = await self._read_between(last, version, self._max_bytes)
                if entries is not None:
                    for entry in entries:
                        self._append(entry)
                    return True
            elif await self._source.invalidate(timeline, last):
                return False
        is_refill = self.timeline != ""
        newest = await self._source.entry(version)
        self.buffer = ChangeBuffer(version, self._max_entries, self._max_bytes)
        self.timeline, self._last_change = timeline, newest
        if is_refill:
            log.warning("watches_reset", cause="log_not_contiguous")
            self._on_gap()
        return True

    async def extend_to(self, version: int) -> bool:
        """Extend the buffer back to `version`, one call at a time; return whether it has all changes after it.

        It has not if the log does not contain them any more, or if they exceed the bytes of the buffer.
        """
        async with self._extend_lock:
            buffer, start = self.buffer, self.buffer.start_version
            if self.buffer.contains(version) or version > start:
                return self.buffer.contains(version)
            if await self._source.entry(version) is None:
                return False
            entries = await self._read_between(version, start, buffer.free_bytes)
            if entries is None or self.buffer is not buffer or buffer.start_version != start:
                return self.buffer.contains(version)
            buffer.prepend(version, entries)
            return True

    async def _read_between(self, after: int, to: int, max_bytes: int) -> list[ChangeEntry] | None:
        """Return the changes between two log entries, None if some are missing or they exceed `max_bytes`.

        Raises StoreUnavailable if unknown.
        """
        entries: list[ChangeEntry] = []
        while after < to:
            read = await self._source.read_since(after)
            if not read.contiguous and await self._source.entry(after) is not None:
                # The entry exists, but the connection is not the one the view was filled over: no entry was lost.
                raise StoreUnavailable("The connection to Redis was lost during the read", reason="reconnected")
            if not read.contiguous or not read.changes:
                return None
            for change in read.changes:
                if change.prev != after:
                    return None
                entries.append(ChangeEntry(change))
                max_bytes -= entries[-1].approximate_bytes
                after = change.version
                if after >= to:
                    break
            if max_bytes < 0:
                return None
        return entries if after == to else None
