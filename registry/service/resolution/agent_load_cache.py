"""A cache of the loads that agents report in heartbeats, for strategies that choose a provider by load."""

import time
from collections.abc import Sequence
from typing import Final

from registry.model.resolution import Provider
from registry.service.resolution.strategies import MAX_PROVIDERS_BY_LOAD
from registry.store.resolution_store import ResolutionStore

MAX_LOAD_AGE_S: Final = 2.0
"""Maximum age of a load when a provider is chosen by it."""
_MAX_CACHED_AGENTS: Final = 100_000


class LoadCache:
    """The last known load of each agent; the cache is emptied when it has more than 100,000 agents."""

    def __init__(self, resolution_store: ResolutionStore) -> None:
        self.by_agent: dict[str, float] = {}
        self._resolution_store = resolution_store
        self._refreshed_at: dict[str, float] = {}

    async def refresh(self, providers: Sequence[Provider]) -> None:
        """Read from Redis the loads of providers whose cached load is too old. Raises StoreUnavailable."""
        now = time.monotonic()
        due = [
            agent_id
            for agent_id in dict.fromkeys(provider.agent_id for provider in providers[:MAX_PROVIDERS_BY_LOAD])
            if self._refreshed_at.get(agent_id, 0.0) < now - MAX_LOAD_AGE_S
        ]
        if not due:
            return
        loads = await self._resolution_store.loads(due)
        if len(self._refreshed_at) > _MAX_CACHED_AGENTS:
            self._refreshed_at.clear()
            self.by_agent.clear()
        for agent_id, load in zip(due, loads, strict=True):
            self._refreshed_at[agent_id] = now
            if load is None:
                self.by_agent.pop(agent_id, None)
            else:
                self.by_agent[agent_id] = load
