"""A registry inside another program, without HTTP: what `main` opens, for those who watch from within."""

import contextlib
import os
from typing import Any

import orjson

from registry.cache.change_buffer import Entry
from registry.config.env import read_settings
from registry.config.settings import Settings
from registry.errors import VersionTooOld
from registry.main import Registry, open_registry
from registry.model.encoding.watch_event import EventKind
from registry.model.query import AgentQuery
from registry.service.watch.watch import Watcher, Watching


class EventWatcher:
    """Gives the changes of the mesh one by one, as the events of a watch."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._seen: list[tuple[EventKind, Entry]] = []

    async def get(self) -> dict[str, Any]:
        """Wait for the next event: `type`, `object`, `timestamp`, `resource_version`. Cancelling loses none.

        Raises VersionTooOld when the watch cannot go on, because it fell behind, the store lost its history, or the
        service was closed: list again.
        """
        watcher = self._watcher
        while not self._seen:
            self._seen = watcher.take()[::-1]
            if not self._seen:
                if watcher.over is not None:
                    raise VersionTooOld(watcher.reached, watcher.newest)
                await watcher.wait()
        kind, entry = self._seen.pop()
        event: dict[str, Any] = orjson.loads(entry.line(kind, "ndjson"))
        return event

    def close(self) -> None:
        """Stop watching."""
        self._watcher.close()


class Storage:
    """What is stored, to be watched."""

    def __init__(self, watching: Watching) -> None:
        self._watching = watching

    def create_watcher(self, query: AgentQuery | None = None) -> EventWatcher:
        """Begin to watch at the version held now; everything unless a query says otherwise."""
        return EventWatcher(self._watching.begin(query or AgentQuery()))


class RegistryService:
    """A whole registry in this process: `initialize()`, then use `storage`, at last `close()`.

    The settings are those of the environment unless given. It elects, sweeps and follows like any replica.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings
        self._opened = contextlib.AsyncExitStack()
        self._registry: Registry | None = None

    @property
    def storage(self) -> Storage:
        """The storage, once initialized; RuntimeError before."""
        if self._registry is None:
            raise RuntimeError("Call initialize() first")
        return Storage(self._registry.watching)

    async def initialize(self) -> None:
        """Open the store and fill the cache. Raises StartupError, or what keeps the store from answering."""
        settings = self._settings or read_settings(os.environ)[0]
        registry = await self._opened.enter_async_context(open_registry(settings))
        await registry.feed.fresh()
        self._registry = registry

    async def close(self) -> None:
        """End the watches, give up the lead, close the store."""
        registry, self._registry = self._registry, None
        if registry is not None:
            registry.watching.close()
        await self._opened.aclose()
