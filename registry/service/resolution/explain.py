"""Why agents are wired as they are: who was looked at and fell out where, who depends on whom, and what is unmet."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Final

import orjson

from registry.cache.view import Record, View
from registry.concurrency.cooperative import in_turns
from registry.model.agent import Agent
from registry.model.resolution import Pick, Ranking, Resolution
from registry.service.discovery.discovery import Discovery, Freshness, record_of
from registry.service.resolution.graph import cycles
from registry.service.resolution.resolver import Resolutions
from registry.store.resolution_store import Wires

# Of the candidates for one dependency, so many that will do are shown, and so many that will not; of those for all
# dependencies of an agent together, so many of each kind, or one for each where that is more.
_MOST_SHOWN: Final = 100
_MOST_SHOWN_IN_ALL: Final = 20_000
_MOST_TRACED: Final = 8
_MOST_TRACED_IN_ALL: Final = 2_000
# So many of the last resolutions are shown.
_HISTORY: Final = 5
# Agents whose dependencies are looked at before others have their turn.
_AT_ONCE: Final = 100

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Explained:
    """What was found, and the version it is as of; `behind` is how old it may be in seconds, None if as asked."""

    found: Mapping[str, Any]
    version: int
    behind: float | None


class Explaining:
    """Answers why, from this replica's memory."""

    def __init__(self, discovery: Discovery, resolutions: Resolutions, wires: Wires) -> None:
        self._discovery = discovery
        self._resolutions = resolutions
        self._wires = wires

    async def dependencies(self, agent_id: str, freshness: Freshness, *, explain: bool) -> Explained:
        """Return what an agent's dependencies resolve to; to `explain` also everybody who was looked at, and lately.

        Raises UnknownAgent.
        """
        view, behind = await self._discovery.view(freshness)
        record = record_of(view, agent_id)
        resolution = await self._resolution(view, record, behind)
        found: Json = {"agent_id": agent_id, **resolution.fields}
        if explain:
            most = _share(resolution, _MOST_SHOWN, _MOST_SHOWN_IN_ALL)
            ranking = self._wholly(view, resolution.agent, most)
            # The explanation finds each of them kept.
            async for _ in in_turns(map(ranking, resolution.picks)):
                pass
            found["explanation"] = explanation(resolution, ranking, most)
            found["history"] = [_past(entry) for entry in await self._wires.traces(agent_id, _HISTORY)]
        return Explained(found, view.version, behind)

    async def dependents(self, agent_id: str, freshness: Freshness) -> Explained:
        """Return each dependency that this agent meets; it `breaks` where nobody else would do. Raises UnknownAgent.

        It is not older than the version told; what changes while it is gathered may be seen.
        """
        view, behind = await self._discovery.view(freshness)
        version, agent = view.version, record_of(view, agent_id).agent
        consumers: dict[str, Record] = {}
        for capability in agent.profile.capabilities:
            consumers |= view.by_need.get(capability.name, {})
        found: list[Json] = []
        async for record in _one_by_one(view, consumers):
            found += self._met_by(agent, view, await self._resolution(view, record, behind))
        return Explained({"agent_id": agent_id, "dependents": found, "count": len(found)}, version, behind)

    async def graph(self, namespace: str | None, freshness: Freshness) -> Explained:
        """Return who depends on whom: every dependency, those that are unmet, and the cycles of agents.

        It is not older than the version told; what changes while it is gathered may be seen.
        """
        view, behind = await self._discovery.view(freshness)
        version = view.version
        consumers = {key: record for records in view.by_need.values() for key, record in records.items()}
        edges: list[Json] = []
        async for record in _one_by_one(view, consumers):
            if namespace in (None, record.agent.profile.namespace):
                edges += _edges(await self._resolution(view, record, behind))
        leads: dict[str, list[str]] = {}
        for edge in edges:
            if edge["provider"] is not None:
                leads.setdefault(edge["agent_id"], []).append(edge["provider"]["agent_id"])
        unmet = [edge for edge in edges if edge["provider"] is None]
        found = {"dependencies": edges, "count": len(edges), "unmet": unmet, "cycles": cycles(leads)}
        return Explained(found, version, behind)

    async def _resolution(self, view: View, record: Record, behind: float | None) -> Resolution:
        """Return what an agent's dependencies resolve to, by loads that are new enough where it goes by loads."""
        lately = self._resolutions.in_turn if behind else self._resolutions.by_fresh_loads
        return await lately(view, record)

    def _wholly(self, view: View, agent: Agent, most: int) -> Callable[[Pick], Ranking]:
        """Return what ranks with `most` of those that fell out, once for all picks that want the same."""
        ranked: dict[object, Ranking] = {}

        def ranking(pick: Pick) -> Ranking:
            key = pick.need.wanted, pick.need.namespace
            if key not in ranked:
                ranked[key] = self._resolutions.whole_ranking(view, agent, pick.need, most)
            return ranked[key]

        return ranking

    def _met_by(self, agent: Agent, view: View, resolution: Resolution) -> Iterator[Json]:
        for pick in resolution.picks:
            if pick.provider is None or pick.provider.agent_id != agent.id:
                continue
            ranking = self._resolutions.ranking(view, resolution.agent, pick.need)
            others = sum(each.agent_id != agent.id for each in ranking.providers)
            yield {
                "agent_id": resolution.agent.id,
                "function": pick.function,
                "capability": pick.need.capability,
                "tool_name": pick.provider.tool_name,
                "alternatives": others,
                "breaks": not others,
            }


async def _one_by_one(view: View, records: Mapping[str, Record]) -> AsyncIterator[Record]:
    """Give the records by id, those that are still there, and let others have their turn now and then."""
    for at, (agent_id, record) in enumerate(sorted(records.items())):
        if at % _AT_ONCE == 0:
            await asyncio.sleep(0)
        if view.records.get(agent_id) is record:
            yield record


def _edges(resolution: Resolution) -> Iterator[Json]:
    for pick in resolution.picks:
        edge: Json = {
            "agent_id": resolution.agent.id,
            "function": pick.function,
            "capability": pick.need.capability,
            "provider": pick.entry,
        }
        yield edge if pick.reason is None else edge | {"reason": pick.reason}


def explanation(
    resolution: Resolution, ranking: Callable[[Pick], Ranking], most: int | None = None
) -> dict[str, list[Json]]:
    """Return for each function its dependencies, each with those who were looked at for it, the best first.

    At most `most` who will do are shown and as many who will not, by default as many as are kept; `considered` counts
    all of them.
    """
    if most is None:
        most = most_traced(resolution)
    found: dict[str, list[Json]] = {function: [] for function, _ in resolution.agent.profile.functions}
    for pick in resolution.picks:
        found[pick.function].append(_dependency(pick, ranking(pick), most))
    return found


def most_traced(resolution: Resolution) -> int:
    """Return how many candidates of each kind a trace tells of one dependency."""
    return _share(resolution, _MOST_TRACED, _MOST_TRACED_IN_ALL)


def _share(resolution: Resolution, most: int, in_all: int) -> int:
    return max(1, min(most, in_all // max(1, len(resolution.picks))))


def _dependency(pick: Pick, ranking: Ranking, most: int) -> Json:
    need = pick.need
    shown: Json = {"capability": need.capability, "strategy": need.strategy or "best"}
    shown |= {
        name: value
        for name, value in (("version", need.version), ("tags", need.tags), ("namespace", need.namespace))
        if value
    }
    chosen = pick.provider
    candidates: list[Json] = []
    others = (each for each in ranking.providers if each != chosen)
    for each in islice(others if chosen is None else chain((chosen,), others), most):
        stage, reason = ("chosen", None) if each == chosen else ("choice", "another one was chosen")
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
        for out in ranking.out[:most]
    ]
    considered = len(ranking.providers) + ranking.fallen.total()
    return shown | {"chosen": pick.entry, "reason": pick.reason, "considered": considered, "candidates": candidates}


def _past(entry: bytes) -> Json:
    """Return a resolution as it was kept, but for what events alone tell of it."""
    return {name: value for name, value in orjson.loads(entry).items() if name != "facts"}
