"""The loads agents tell of themselves: from Redis, the same for all replicas, when somebody chooses by them."""

import time
from collections.abc import Awaitable, Sequence
from typing import Final, Protocol

from registry.model.resolution import Provider
from registry.service.resolution.strategies import MAX_PROVIDERS_BY_LOAD

MAX_LOAD_AGE_S: Final = 2.0
"""How old a load may be when it is chosen by, in seconds."""
# Of so many agents loads are known.
_MAX_CACHED_AGENTS: Final = 100_000


class LoadSource(Protocol):
    """What loads need of a store."""

    def loads(self, agent_ids: Sequence[str]) -> Awaitable[list[float | None]]:
        """Return the load each agent told last, None where it told none."""


class LoadCache:
    """Knows the loads of agents, by id."""

    def __init__(self, source: LoadSource) -> None:
        self.by_agent: dict[str, float] = {}
        self._source = source
        self._refreshed_at: dict[str, float] = {}

    async def refresh(self, providers: Sequence[Provider]) -> None:
        """Make the loads of these no older than may be. Raises StoreUnavailable."""
        now = time.monotonic()
        due = [
            agent_id
            for agent_id in dict.fromkeys(provider.agent_id for provider in providers[:MAX_PROVIDERS_BY_LOAD])
            if self._refreshed_at.get(agent_id, 0.0) < now - MAX_LOAD_AGE_S
        ]
        if not due:
            return
        loads = await self._source.loads(due)
        if len(self._refreshed_at) > _MAX_CACHED_AGENTS:
            self._refreshed_at.clear()
            self.by_agent.clear()
        for agent_id, load in zip(due, loads, strict=True):
            self._refreshed_at[agent_id] = now
            if load is None:
                self.by_agent.pop(agent_id, None)
            else:
                self.by_agent[agent_id] = load
