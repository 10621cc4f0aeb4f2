"""Explains resolutions: the candidates of each dependency, the dependents of an agent, the dependency graph."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Final

import orjson

from registry.cache.view import Record, View
from registry.concurrency.cooperative_iteration import cooperative
from registry.model.agent import Agent
from registry.model.resolution import CachedResolution, RankedProviders, ResolvedDependency
from registry.service.discovery.discovery_service import Discovery, Freshness, require_agent
from registry.service.resolution.graph import find_cycles
from registry.service.resolution.resolver import DependencyResolver
from registry.store.resolution_store import ResolutionStore

# Each limit applies to providers and, separately, to rejected candidates. At least one of each is shown per dependency.
_MAX_CANDIDATES_PER_DEPENDENCY: Final = 100
_MAX_CANDIDATES_PER_AGENT: Final = 20_000
_MAX_TRACED_PER_DEPENDENCY: Final = 8
_MAX_TRACED_PER_AGENT: Final = 2_000
_MAX_TRACES_SHOWN: Final = 5

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ExplainResult:
    """The fields of an explain response, the version of the view they describe, and the age of the view."""

    fields: Mapping[str, Any]
    version: int
    staleness: float | None


class ResolutionExplainer:
    """Explains how dependencies were resolved, from the cache of this replica."""

    def __init__(self, discovery: Discovery, resolver: DependencyResolver, resolution_store: ResolutionStore) -> None:
        self._discovery = discovery
        self._resolver = resolver
        self._resolution_store = resolution_store

    async def dependencies(self, agent_id: str, freshness: Freshness, *, explain: bool) -> ExplainResult:
        """Return an agent's dependencies; `explain` adds candidates and recent resolutions. Raises UnknownAgent."""
        view, staleness = await self._discovery.view(freshness)
        record = require_agent(view, agent_id)
        resolution = await self._resolve(view, record, staleness)
        found: Json = {"agent_id": agent_id, **resolution.response_fields}
        if explain:
            limit = _limit_per_dependency(resolution, _MAX_CANDIDATES_PER_DEPENDENCY, _MAX_CANDIDATES_PER_AGENT)
            ranking = self._cached_rank_all(view, resolution.agent, limit)
            # This loop caches every ranking for the explanation, and yields to the event loop in between.
            async for _ in cooperative(map(ranking, resolution.dependencies)):
                pass
            found["explanation"] = explain_resolution(resolution, ranking, limit)
            traces = await self._resolution_store.recent_resolutions(agent_id, _MAX_TRACES_SHOWN)
            # The facts for the mcp-mesh audit are not shown.
            found["recent_resolutions"] = [
                {name: value for name, value in orjson.loads(entry).items() if name != "audit_facts"}
                for entry in traces
            ]
        return ExplainResult(found, view.version, staleness)

    async def dependents(self, agent_id: str, freshness: Freshness) -> ExplainResult:
        """Return the dependencies of other agents for which this agent is the provider. Raises UnknownAgent.

        Each dependency has the number of other providers. The result is at least as new as its version, and may include
        changes made while it was collected.
        """
        view, staleness = await self._discovery.view(freshness)
        version, agent = view.version, require_agent(view, agent_id).agent
        consumers: dict[str, Record] = {}
        for capability in agent.indexed.capabilities:
            consumers |= view.by_dependency.get(capability.name, {})
        found: list[Json] = []
        async for consumer_id, record in cooperative(sorted(consumers.items())):
            if view.records.get(consumer_id) is not record:
                continue
            found += self._dependencies_satisfied_by(agent, view, await self._resolve(view, record, staleness))
        return ExplainResult({"agent_id": agent_id, "dependents": found, "count": len(found)}, version, staleness)

    async def graph(self, namespace: str | None, freshness: Freshness) -> ExplainResult:
        """Return all dependencies of the mesh, the unresolved ones, and the cycles of agents.

        The result is at least as new as its version, and may include changes made while it was collected.
        """
        view, staleness = await self._discovery.view(freshness)
        version = view.version
        consumers = {key: record for records in view.by_dependency.values() for key, record in records.items()}
        edges: list[Json] = []
        async for agent_id, record in cooperative(sorted(consumers.items())):
            if view.records.get(agent_id) is record and namespace in (None, record.agent.indexed.namespace):
                edges += _dependency_edges(await self._resolve(view, record, staleness))
        providers: dict[str, list[str]] = {}
        for edge in edges:
            if edge["provider"] is not None:
                providers.setdefault(edge["agent_id"], []).append(edge["provider"]["agent_id"])
        unresolved = [edge for edge in edges if edge["provider"] is None]
        found = {"dependencies": edges, "count": len(edges), "unresolved": unresolved, "cycles": find_cycles(providers)}
        return ExplainResult(found, version, staleness)

    async def _resolve(self, view: View, record: Record, staleness: float | None) -> CachedResolution:
        """Return the resolution of an agent, with the current loads of providers unless the view is stale."""
        resolve = self._resolver.resolve_async if staleness else self._resolver.resolve_current
        return await resolve(view, record)

    def _cached_rank_all(
        self, view: View, agent: Agent, max_rejected: int
    ) -> Callable[[ResolvedDependency], RankedProviders]:
        """Return a caching function that ranks the providers of a dependency and lists the rejected candidates."""
        ranked: dict[object, RankedProviders] = {}

        def ranking(resolved: ResolvedDependency) -> RankedProviders:
            key = resolved.dependency.match_key, resolved.dependency.namespace
            if key not in ranked:
                ranked[key] = self._resolver.rank_all(view, agent, resolved.dependency, max_rejected)
            return ranked[key]

        return ranking

    def _dependencies_satisfied_by(self, agent: Agent, view: View, resolution: CachedResolution) -> Iterator[Json]:
        for resolved in resolution.dependencies:
            if resolved.provider is None or resolved.provider.agent_id != agent.id:
                continue
            ranking = self._resolver.ranking(view, resolution.agent, resolved.dependency)
            others = sum(each.agent_id != agent.id for each in ranking.providers)
            yield {
                "agent_id": resolution.agent.id,
                "function": resolved.function,
                "capability": resolved.dependency.capability,
                "tool_name": resolved.provider.tool_name,
                "alternatives": others,
                "only_provider": not others,
            }


def _dependency_edges(resolution: CachedResolution) -> Iterator[Json]:
    for resolved in resolution.dependencies:
        edge: Json = {
            "agent_id": resolution.agent.id,
            "function": resolved.function,
            "capability": resolved.dependency.capability,
            "provider": resolved.provider_fields,
        }
        yield edge if resolved.reason is None else edge | {"reason": resolved.reason}


def explain_resolution(
    resolution: CachedResolution, ranking: Callable[[ResolvedDependency], RankedProviders], limit: int | None = None
) -> dict[str, list[Json]]:
    """Return the explained dependencies of each function, each with its candidates, the best first.

    At most `limit` providers and as many rejected candidates are shown, by default as in a trace; `considered` counts
    all.
    """
    if limit is None:
        limit = trace_limit(resolution)
    found: dict[str, list[Json]] = {function: [] for function, _ in resolution.agent.indexed.functions}
    for resolved in resolution.dependencies:
        found[resolved.function].append(_explain_dependency(resolved, ranking(resolved), limit))
    return found


def trace_limit(resolution: CachedResolution) -> int:
    """Return how many providers and how many rejected candidates a stored trace contains for one dependency."""
    return _limit_per_dependency(resolution, _MAX_TRACED_PER_DEPENDENCY, _MAX_TRACED_PER_AGENT)


def _limit_per_dependency(resolution: CachedResolution, per_dependency: int, per_agent: int) -> int:
    return max(1, min(per_dependency, per_agent // max(1, len(resolution.dependencies))))


def _explain_dependency(resolved: ResolvedDependency, ranking: RankedProviders, limit: int) -> Json:
    dependency = resolved.dependency
    shown: Json = {"capability": dependency.capability, "strategy": dependency.strategy or "best"}
    conditions = {"version": dependency.version, "tags": dependency.tags, "namespace": dependency.namespace}
    shown |= {name: value for name, value in conditions.items() if value}
    chosen = resolved.provider
    candidates: list[Json] = []
    others = (each for each in ranking.providers if each != chosen)
    for each in islice(others if chosen is None else chain((chosen,), others), limit):
        not_chosen = "its heartbeat is late" if each.late else "another provider was chosen"
        stage, reason = ("chosen", None) if each == chosen else ("not_chosen", not_chosen)
        candidates.append(
            {
                "agent_id": each.agent_id,
                "tool_name": each.tool_name,
                "version": each.version,
                "status": "degraded" if each.degraded else "healthy",
                "score": each.score,
                "stage": stage,
                "reason": reason,
            }
        )
    names = ("agent_id", "tool_name", "version", "status", "stage", "reason")
    candidates += [{name: getattr(each, name) for name in names} for each in ranking.rejected_sample[:limit]]
    considered = len(ranking.providers) + ranking.rejected_by_stage.total()
    shown |= {"chosen": resolved.provider_fields, "reason": resolved.reason, "considered": considered}
    return shown | {"candidates": candidates}
