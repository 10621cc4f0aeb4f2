"""Lightweight heartbeats (HEAD): extend an agent's deadline and report whether its dependencies changed."""

import asyncio
from functools import partial
from typing import Final, Literal, TypeAlias

from registry.cache.reflector import Reflector
from registry.cache.view import View
from registry.errors import NotReady, StoreUnavailable
from registry.model.resolution import CachedResolution
from registry.service.resolution.resolver import DependencyResolver
from registry.store.agents import Agents, HeartbeatResult

# `changed`: the agent should fetch its resolution; `unknown`: it must register again.
FastHeartbeatResult: TypeAlias = Literal["unchanged", "changed", "unknown"]

# An agent blocks while it waits for the response.
_REDIS_TIMEOUT_S: Final = 0.03


class FastHeartbeats:
    """Processes the lightweight heartbeats of mcp-mesh agents."""

    def __init__(self, reflector: Reflector, agents: Agents, resolver: DependencyResolver) -> None:
        self._reflector = reflector
        self._agents = agents
        self._resolver = resolver

    async def extend(self, agent_id: str) -> FastHeartbeatResult:
        """Extend the deadline of a healthy agent; return whether its dependencies changed since the last response.

        The store has the digest that any replica sent last, so no change in between is missed. If Redis is slow, the
        digest in the cache of this replica is used. If Redis is unavailable, the result for a healthy agent is
        `unchanged`: after an error it would send a full heartbeat, which would fail, too. An agent that is not healthy
        in the cache waits for Redis as long as any other request.

        Raises StoreUnavailable for such an agent if Redis does not respond.
        """
        try:
            heartbeat = self._agents.heartbeat(agent_id, "extend")
            # The call continues after a timeout, and its result is used for the next heartbeat.
            heartbeat.add_done_callback(partial(self._store_sent_digest, agent_id))
            async with asyncio.timeout(_REDIS_TIMEOUT_S):
                return await self._evaluate(agent_id, await asyncio.shield(heartbeat))
        except (NotReady, StoreUnavailable, TimeoutError) as error:
            resolution = await self._cached_resolution(agent_id)
            if resolution is not None and resolution.agent.status == "healthy":
                is_slow = isinstance(error, TimeoutError) and self._reflector.following
                if is_slow and resolution.sent_digest:
                    return self._compare(resolution, resolution.sent_digest)
                return "unchanged"
            if isinstance(error, TimeoutError):
                return await self._evaluate(agent_id, await asyncio.shield(heartbeat))
            raise

    async def _evaluate(self, agent_id: str, heartbeat: HeartbeatResult) -> FastHeartbeatResult:
        if heartbeat.outcome == "bad_record":
            raise StoreUnavailable.damaged_record(agent_id)
        if heartbeat.outcome != "healthy":
            return "unknown"
        view = self._reflector.view
        resolution = None if view is None else await self._resolve_current(view, agent_id)
        if (
            resolution is None
            or resolution.digest != heartbeat.response_digest
            or (resolution.lookup_keys and resolution.version < heartbeat.version)
        ):
            # The cache may be older than the resolution that another replica sent, or than a change before the request.
            resolution = await self._resolve_current(await self._reflector.wait_fresh(), agent_id)
        return "changed" if resolution is None else self._compare(resolution, heartbeat.response_digest)

    def _store_sent_digest(self, agent_id: str, heartbeat: "asyncio.Future[HeartbeatResult]") -> None:
        """Cache the digest last sent to the agent, even if it arrives late; `extend` raises the errors of the call."""
        if heartbeat.cancelled() or heartbeat.exception() is not None:
            return
        record = None if self._reflector.view is None else self._reflector.view.records.get(agent_id)
        if record is not None and record.resolution is not None and heartbeat.result().response_digest:
            self._resolver.mark_sent(record.resolution, heartbeat.result().response_digest)

    async def _cached_resolution(self, agent_id: str) -> CachedResolution | None:
        """Return the resolution of an agent from this replica's cache, without a call to Redis."""
        view = self._reflector.view
        record = None if view is None else view.records.get(agent_id)
        return None if view is None or record is None else await self._resolver.resolve_async(view, record)

    async def _resolve_current(self, view: View, agent_id: str) -> CachedResolution | None:
        """Resolve an agent's dependencies as the response to a full heartbeat has them."""
        record = view.records.get(agent_id)
        if record is None:
            return None
        return self._resolver.find_current(view, record) or await self._resolver.resolve_current(view, record)

    def _compare(self, resolution: CachedResolution, sent_digest: str) -> FastHeartbeatResult:
        """Return whether an agent's current resolution differs from the one that was last sent."""
        if resolution.digest == sent_digest:
            self._resolver.mark_sent(resolution, sent_digest)
            return "unchanged"
        # The agent registers again at once, perhaps on another replica, so this replica no longer knows the last
        # digest.
        self._resolver.mark_sent(resolution, "")
        return "changed"
