"""The shared history, kept connected: across fills where the log still leads over, and backwards into the log."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from registry.cache.change_buffer import Entry, History
from registry.errors import StoreUnavailable
from registry.model.change import Change, Pulled
from registry.telemetry.logs import get_logger

log = get_logger(__name__)


class LogReader(Protocol):
    """What the trail needs of a store."""

    async def pull(self, after: int) -> Pulled:
        """Return version and history now, and the changes after entry `after`."""

    async def entry(self, version: int) -> Change | None:
        """Return one entry, None when it is not there."""

    async def sever(self, history: str, seen: int) -> bool:
        """Give up a history whose log lost entry `seen`, unless that was only trimmed; return whether that was done."""


class Trail:
    """The history all watchers of this replica share, and how it follows the view.

    `on_change` is told each entry as it comes, in order, none twice; `on_break` that what comes next does not follow on
    what came before, so that streams must end. At most `most` entries of `most_bytes` together are held.
    """

    def __init__(self, source: LogReader, most: int, most_bytes: int = 64 * 1024 * 1024) -> None:
        self.history = History(0, most, most_bytes)
        self.name = ""
        self.on_change: Callable[[Entry], None] = lambda _entry: None
        self.on_break: Callable[[], None] = lambda: None
        self._source = source
        self._most = most
        self._most_bytes = most_bytes
        self._newest: Change | None = None
        self._reaching = asyncio.Lock()

    def add(self, change: Change) -> None:
        """Take the next change of the view."""
        entry = Entry(change)
        self._newest = change
        self.history.append(entry)
        self.on_change(entry)

    async def lead_to(self, version: int, name: str) -> bool:
        """Connect to a view that was filled anew at `version` of the history `name`.

        Where the log still leads there from the newest entry, which must read as it did, those who follow notice
        nothing. Else the trail starts over. False where the log lost that entry, as after a failover: then its history
        was given up, since those who saw the entry may ask anywhere to go on from it.
        """
        if self.name == name and self._newest is not None:
            last = self.history.last
            if await self._source.entry(last) == self._newest:
                changes = await self._between(last, version)
                if changes is not None:
                    for change in changes:
                        self.add(change)
                    return True
            elif await self._source.sever(name, last):
                return False
        broke = self.name != ""
        newest = await self._source.entry(version)
        self.history = History(version, self._most, self._most_bytes)
        self.name, self._newest = name, newest
        if broke:
            log.warning("streams end: the log does not lead from what they have seen to what there is now")
            self.on_break()
        return True

    async def reach(self, version: int) -> bool:
        """Make the history hold `version`, reading the log backwards once for all who want it; tell whether it does."""
        async with self._reaching:
            history, start = self.history, self.history.start
            if self.history.holds(version) or version > start:
                return self.history.holds(version)
            if await self._source.entry(version) is None:
                return False
            changes = await self._between(version, start)
            if changes is None or self.history is not history or history.start != start:
                return self.history.holds(version)
            history.extend_back(version, [Entry(change) for change in changes])
            return True

    async def _between(self, after: int, to: int) -> list[Change] | None:
        """Return the changes after one entry up to another, None where the log does not hold all of them.

        Raises StoreUnavailable where that cannot be told.
        """
        changes: list[Change] = []
        while after < to:
            pulled = await self._source.pull(after)
            if not pulled.holds and await self._source.entry(after) is not None:
                # It is there, but behind another connection than the view was filled over: trouble, no loss.
                raise StoreUnavailable("The connection to the store was lost meanwhile", reason="reconnected")
            if not pulled.holds or not pulled.changes:
                return None
            for change in pulled.changes:
                if change.prev != after:
                    return None
                changes.append(change)
                after = change.version
                if after >= to:
                    break
        return changes if after == to else None
