"""Agents that only say that they are alive, and are only told whether to ask for more."""

import asyncio
from functools import partial
from typing import Final, Literal, TypeAlias

from registry.cache.reflector import Reflector
from registry.cache.view import View
from registry.errors import NotReady, StoreUnavailable
from registry.model.resolution import CachedResolution
from registry.service.resolution.resolver import DependencyResolver
from registry.store.agents import Agents, HeartbeatResult

# What became of an agent that is to be kept: `moved` when its answer would be another, `gone` when it must register.
FastHeartbeatResult: TypeAlias = Literal["unchanged", "changed", "unknown"]

# How long the store is waited for, in seconds: whoever says that it is alive does nothing else meanwhile.
_REDIS_TIMEOUT_S: Final = 0.03


class FastHeartbeats:
    """Keeps agents."""

    def __init__(self, reflector: Reflector, agents: Agents, resolver: DependencyResolver) -> None:
        self._reflector = reflector
        self._agents = agents
        self._resolver = resolver

    async def extend(self, agent_id: str) -> FastHeartbeatResult:
        """Prolong a healthy agent's life without reviving any other; tell whether its answer would be another by now.

        That is so exactly when what it was told last is not what it would be told, by whichever replica it was: nothing
        that happened in between can be missed, and nothing has to be remembered. Where the store does not answer soon,
        an agent that is known to be healthy is told by what this replica knows, and is kept where the store is away: a
        failure would only make it ask for more, and what it would then ask for would fail as well. Raises
        StoreUnavailable for any other.
        """
        try:
            beat = self._agents.heartbeat(agent_id, "extend")
            # It goes on when nobody waits for it any more, and tells what the agent has for the next time.
            beat.add_done_callback(partial(self._store_sent_digest, agent_id))
            async with asyncio.timeout(_REDIS_TIMEOUT_S):
                return await self._evaluate(agent_id, await asyncio.shield(beat))
        except (NotReady, StoreUnavailable, TimeoutError) as error:
            resolution = await self._cached_resolution(agent_id)
            if resolution is not None and resolution.agent.status == "healthy":
                slow = isinstance(error, TimeoutError) and self._reflector.following
                if slow and resolution.sent_digest:
                    return self._compare(resolution, resolution.sent_digest)
                return "unchanged"
            if isinstance(error, TimeoutError):
                raise StoreUnavailable(
                    "The store did not answer in time", outcome="unknown", reason="timeout"
                ) from None
            raise

    async def _evaluate(self, agent_id: str, heartbeat: HeartbeatResult) -> FastHeartbeatResult:
        if heartbeat.outcome == "bad_record":
            raise StoreUnavailable.damaged_record(agent_id)
        if heartbeat.outcome != "healthy":
            return "unknown"
        resolution = await self._cached_resolution(agent_id)
        if resolution is None or resolution.digest != heartbeat.response_digest:
            # What this replica holds may be older than what another has told the agent.
            resolution = await self._resolve(await self._reflector.wait_fresh(), agent_id)
        return "changed" if resolution is None else self._compare(resolution, heartbeat.response_digest)

    def _store_sent_digest(self, agent_id: str, heartbeat: "asyncio.Future[HeartbeatResult]") -> None:
        """Note what an agent was told last, however late the store says so; what went wrong is told to who waits."""
        if heartbeat.cancelled() or heartbeat.exception() is not None:
            return
        record = None if self._reflector.view is None else self._reflector.view.records.get(agent_id)
        if record is not None and record.resolution is not None and heartbeat.result().response_digest:
            self._resolver.mark_sent(record.resolution, heartbeat.result().response_digest)

    async def _cached_resolution(self, agent_id: str) -> CachedResolution | None:
        """Return what an agent's dependencies resolve to as far as this replica knows."""
        view = self._reflector.view
        return None if view is None else await self._resolve(view, agent_id)

    async def _resolve(self, view: View, agent_id: str) -> CachedResolution | None:
        record = view.records.get(agent_id)
        return None if record is None else await self._resolver.resolve_async(view, record)

    def _compare(self, resolution: CachedResolution, sent_digest: str) -> FastHeartbeatResult:
        """Return whether an agent that was sent a resolution with this digest would be sent another one now."""
        if resolution.digest == sent_digest:
            self._resolver.mark_sent(resolution, sent_digest)
            return "unchanged"
        # The agent registers again at once, perhaps with another replica: this one then does not know what it was sent.
        self._resolver.mark_sent(resolution, "")
        return "changed"
