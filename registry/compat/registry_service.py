"""`RegistryService`: runs a registry inside another program without HTTP, with the names of older guides."""

import contextlib
import os
from typing import Any

import orjson

from registry.cache.change_buffer import ChangeEntry
from registry.config.env import load_settings
from registry.config.settings import Settings
from registry.errors import VersionTooOld
from registry.main import Registry, open_registry
from registry.model.encoding.watch_event import EventKind
from registry.model.query import AgentQuery
from registry.service.watch.watch_service import Watcher, WatchService


class EventWatcher:
    """Returns the changes of agents one by one, as events of a watch."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._pending_events: list[tuple[EventKind, ChangeEntry]] = []

    async def get(self) -> dict[str, Any]:
        """Return the next event of the watch; a cancelled call loses no event.

        An event has `type`, `object`, `timestamp` and `resource_version`. Raises VersionTooOld if the watch has ended,
        because it fell too far behind, the timeline changed, or the service was closed: create a new watcher.
        """
        watcher = self._watcher
        while not self._pending_events:
            self._pending_events = watcher.take()[::-1]
            if not self._pending_events:
                if watcher.end_reason is not None:
                    raise VersionTooOld(watcher.delivered_version, watcher.latest_version)
                await watcher.wait()
        kind, entry = self._pending_events.pop()
        event: dict[str, Any] = orjson.loads(entry.encode(kind, "ndjson"))
        return event

    def close(self) -> None:
        """End the watch."""
        self._watcher.close()


class Storage:
    """The stored agents of a registry inside this program, which can be watched."""

    def __init__(self, watch_service: WatchService) -> None:
        self._watch_service = watch_service

    def create_watcher(self, query: AgentQuery | None = None) -> EventWatcher:
        """Watch the agents that match a query, by default all agents, from the current version on."""
        return EventWatcher(self._watch_service.start(query or AgentQuery()))


class RegistryService:
    """A registry inside this program: call `initialize()`, use `storage`, then call `close()`.

    Without `settings` it reads the environment. It takes part in leader election and sweeps like any replica.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings
        self._exit_stack = contextlib.AsyncExitStack()
        self._registry: Registry | None = None

    @property
    def storage(self) -> Storage:
        """The stored agents; raises RuntimeError before `initialize()`."""
        if self._registry is None:
            raise RuntimeError("Call initialize() first")
        return Storage(self._registry.watch_service)

    async def initialize(self) -> None:
        """Open the store and fill the cache. Raises StartupError or StoreUnavailable."""
        settings = self._settings or load_settings(os.environ)[0]
        registry = await self._exit_stack.enter_async_context(open_registry(settings))
        await registry.reflector.wait_fresh()
        self._registry = registry

    async def close(self) -> None:
        """End the watches, resign as leader and close the store."""
        registry, self._registry = self._registry, None
        if registry is not None:
            registry.watch_service.close()
        await self._exit_stack.aclose()
