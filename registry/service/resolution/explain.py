"""Why agents are wired as they are: who was looked at and fell out where, who depends on whom, and what is unmet."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Final

import orjson

from registry.cache.view import Record, View
from registry.concurrency.cooperative import cooperative
from registry.model.agent import Agent
from registry.model.resolution import CachedResolution, RankedProviders, ResolvedDependency
from registry.service.discovery.discovery import Discovery, Freshness, require_agent
from registry.service.resolution.graph import find_cycles
from registry.service.resolution.resolver import DependencyResolver
from registry.store.resolution_store import ResolutionStore

# Of the candidates for one dependency, so many that will do are shown, and so many that will not; of those for all
# dependencies of an agent together, so many of each kind, or one for each where that is more.
_MAX_CANDIDATES_PER_DEPENDENCY: Final = 100
_MAX_CANDIDATES_PER_AGENT: Final = 20_000
_MAX_TRACED_PER_DEPENDENCY: Final = 8
_MAX_TRACED_PER_AGENT: Final = 2_000
# So many of the last resolutions are shown.
_MAX_TRACES_SHOWN: Final = 5

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ExplainResult:
    """What was found, and the version it is as of; `staleness` is how old it may be in seconds, None if as asked."""

    fields: Mapping[str, Any]
    version: int
    staleness: float | None


class ResolutionExplainer:
    """Answers why, from this replica's memory."""

    def __init__(self, discovery: Discovery, resolver: DependencyResolver, resolution_store: ResolutionStore) -> None:
        self._discovery = discovery
        self._resolver = resolver
        self._resolution_store = resolution_store

    async def dependencies(self, agent_id: str, freshness: Freshness, *, explain: bool) -> ExplainResult:
        """Return what an agent's dependencies resolve to; to `explain` also everybody who was looked at, and lately.

        Raises UnknownAgent.
        """
        view, behind = await self._discovery.view(freshness)
        record = require_agent(view, agent_id)
        resolution = await self._resolve(view, record, behind)
        found: Json = {"agent_id": agent_id, **resolution.response_fields}
        if explain:
            most = _limit_per_dependency(resolution, _MAX_CANDIDATES_PER_DEPENDENCY, _MAX_CANDIDATES_PER_AGENT)
            ranking = self._cached_rank_all(view, resolution.agent, most)
            # The explanation finds each of them kept.
            async for _ in cooperative(map(ranking, resolution.dependencies)):
                pass
            found["explanation"] = explain_resolution(resolution, ranking, most)
            found["recent_resolutions"] = [
                _decode_trace(entry)
                for entry in await self._resolution_store.recent_resolutions(agent_id, _MAX_TRACES_SHOWN)
            ]
        return ExplainResult(found, view.version, behind)

    async def dependents(self, agent_id: str, freshness: Freshness) -> ExplainResult:
        """Return each dependency that this agent meets; it `breaks` where nobody else would do. Raises UnknownAgent.

        It is not older than the version told; what changes while it is gathered may be seen.
        """
        view, behind = await self._discovery.view(freshness)
        version, agent = view.version, require_agent(view, agent_id).agent
        consumers: dict[str, Record] = {}
        for capability in agent.indexed.capabilities:
            consumers |= view.by_dependency.get(capability.name, {})
        found: list[Json] = []
        async for consumer_id, record in cooperative(sorted(consumers.items())):
            if view.records.get(consumer_id) is not record:
                continue
            found += self._dependencies_satisfied_by(agent, view, await self._resolve(view, record, behind))
        return ExplainResult({"agent_id": agent_id, "dependents": found, "count": len(found)}, version, behind)

    async def graph(self, namespace: str | None, freshness: Freshness) -> ExplainResult:
        """Return who depends on whom: every dependency, those that are unmet, and the cycles of agents.

        It is not older than the version told; what changes while it is gathered may be seen.
        """
        view, behind = await self._discovery.view(freshness)
        version = view.version
        consumers = {key: record for records in view.by_dependency.values() for key, record in records.items()}
        edges: list[Json] = []
        async for agent_id, record in cooperative(sorted(consumers.items())):
            if view.records.get(agent_id) is record and namespace in (None, record.agent.indexed.namespace):
                edges += _dependency_edges(await self._resolve(view, record, behind))
        leads: dict[str, list[str]] = {}
        for edge in edges:
            if edge["provider"] is not None:
                leads.setdefault(edge["agent_id"], []).append(edge["provider"]["agent_id"])
        unresolved = [edge for edge in edges if edge["provider"] is None]
        found = {"dependencies": edges, "count": len(edges), "unresolved": unresolved, "cycles": find_cycles(leads)}
        return ExplainResult(found, version, behind)

    async def _resolve(self, view: View, record: Record, staleness: float | None) -> CachedResolution:
        """Return what an agent's dependencies resolve to, by loads that are new enough where it goes by loads."""
        lately = self._resolver.resolve_async if staleness else self._resolver.resolve_with_loads
        return await lately(view, record)

    def _cached_rank_all(
        self, view: View, agent: Agent, max_rejected: int
    ) -> Callable[[ResolvedDependency], RankedProviders]:
        """Return what ranks with `most` of those that fell out, once for all picks that want the same."""
        ranked: dict[object, RankedProviders] = {}

        def ranking(pick: ResolvedDependency) -> RankedProviders:
            key = pick.dependency.match_key, pick.dependency.namespace
            if key not in ranked:
                ranked[key] = self._resolver.rank_all(view, agent, pick.dependency, max_rejected)
            return ranked[key]

        return ranking

    def _dependencies_satisfied_by(self, agent: Agent, view: View, resolution: CachedResolution) -> Iterator[Json]:
        for pick in resolution.dependencies:
            if pick.provider is None or pick.provider.agent_id != agent.id:
                continue
            ranking = self._resolver.ranking(view, resolution.agent, pick.dependency)
            others = sum(each.agent_id != agent.id for each in ranking.providers)
            yield {
                "agent_id": resolution.agent.id,
                "function": pick.function,
                "capability": pick.dependency.capability,
                "tool_name": pick.provider.tool_name,
                "alternatives": others,
                "only_provider": not others,
            }


def _dependency_edges(resolution: CachedResolution) -> Iterator[Json]:
    for pick in resolution.dependencies:
        edge: Json = {
            "agent_id": resolution.agent.id,
            "function": pick.function,
            "capability": pick.dependency.capability,
            "provider": pick.provider_fields,
        }
        yield edge if pick.reason is None else edge | {"reason": pick.reason}


def explain_resolution(
    resolution: CachedResolution, ranking: Callable[[ResolvedDependency], RankedProviders], limit: int | None = None
) -> dict[str, list[Json]]:
    """Return for each function its dependencies, each with those who were looked at for it, the best first.

    At most `most` who will do are shown and as many who will not, by default as many as are kept; `considered` counts
    all of them.
    """
    if limit is None:
        limit = trace_limit(resolution)
    found: dict[str, list[Json]] = {function: [] for function, _ in resolution.agent.indexed.functions}
    for pick in resolution.dependencies:
        found[pick.function].append(_explain_dependency(pick, ranking(pick), limit))
    return found


def trace_limit(resolution: CachedResolution) -> int:
    """Return how many candidates of each kind a trace tells of one dependency."""
    return _limit_per_dependency(resolution, _MAX_TRACED_PER_DEPENDENCY, _MAX_TRACED_PER_AGENT)


def _limit_per_dependency(resolution: CachedResolution, per_dependency: int, per_agent: int) -> int:
    return max(1, min(per_dependency, per_agent // max(1, len(resolution.dependencies))))


def _explain_dependency(pick: ResolvedDependency, ranking: RankedProviders, limit: int) -> Json:
    need = pick.dependency
    shown: Json = {"capability": need.capability, "strategy": need.strategy or "best"}
    shown |= {
        name: value
        for name, value in (("version", need.version), ("tags", need.tags), ("namespace", need.namespace))
        if value
    }
    chosen = pick.provider
    candidates: list[Json] = []
    others = (each for each in ranking.providers if each != chosen)
    for each in islice(others if chosen is None else chain((chosen,), others), limit):
        stage, reason = ("chosen", None) if each == chosen else ("not_chosen", "another provider was chosen")
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
    candidates += [
        {
            "agent_id": out.agent_id,
            "tool_name": out.tool_name,
            "version": out.version,
            "status": out.status,
            "stage": out.stage,
            "reason": out.reason,
        }
        for out in ranking.rejected_sample[:limit]
    ]
    considered = len(ranking.providers) + ranking.rejected_by_stage.total()
    return shown | {
        "chosen": pick.provider_fields,
        "reason": pick.reason,
        "considered": considered,
        "candidates": candidates,
    }


def _decode_trace(entry: bytes) -> Json:
    """Return a resolution as it was kept, but for what events alone tell of it."""
    return {name: value for name, value in orjson.loads(entry).items() if name != "audit_facts"}
