"""Resolves an agent's dependencies for a response, and stores the digest and a trace of the sent result."""

from collections.abc import Callable
from typing import Any, TypeAlias

import orjson

from registry.cache.reflector import Reflector
from registry.cache.view import View
from registry.model.encoding.agent_json import rfc3339
from registry.model.resolution import CachedResolution, RankedProviders, ResolvedDependency
from registry.service.resolution.explain import explain_resolution
from registry.service.resolution.resolver import DependencyResolver
from registry.store.agents import Agents
from registry.store.resolution_store import ResolutionStore

AuditFacts: TypeAlias = Callable[[View, CachedResolution, Callable[[ResolvedDependency], RankedProviders]], Any]
"""Returns the facts that an audit requires in addition to the explanation of a resolution, as JSON values."""


class ResolutionTraces:
    """Resolves an agent's dependencies for a response, and stores a trace of each new resolution."""

    def __init__(
        self,
        reflector: Reflector,
        agents: Agents,
        resolution_store: ResolutionStore,
        resolver: DependencyResolver,
        audit_facts: AuditFacts,
    ) -> None:
        self._reflector = reflector
        self._agents = agents
        self._resolution_store = resolution_store
        self._resolver = resolver
        self._audit_facts = audit_facts

    async def resolve_latest(self, agent_id: str) -> CachedResolution | None:
        """Resolve with all changes before this call, and store the digest first; None if the agent no longer exists."""
        view = await self._reflector.wait_fresh()
        record = view.records.get(agent_id)
        if record is None:
            return None
        resolution = await self._resolver.resolve_current(view, record)
        if resolution.digest:
            stored = await self._agents.heartbeat(agent_id, "record", response_digest=resolution.digest)
            if resolution.lookup_keys:
                await self.save(view, resolution, stored.now)
        return resolution

    async def save(self, view: View, resolution: CachedResolution, at: int) -> None:
        """Store a trace of the resolution sent to an agent, unless it equals the one sent before."""
        if resolution.sent_digest == resolution.digest:
            return
        ranking = self._resolver.rankings_of(view, resolution.agent)
        entry = {
            "timestamp": rfc3339(at),
            "resource_version": str(resolution.version),
            "dependencies_version": resolution.digest,
            "explanation": explain_resolution(resolution, ranking),
            "audit_facts": self._audit_facts(view, resolution, ranking),
        }
        await self._resolution_store.save_resolution(resolution.agent.id, resolution.digest, orjson.dumps(entry))
        self._resolver.mark_sent(resolution, resolution.digest)
