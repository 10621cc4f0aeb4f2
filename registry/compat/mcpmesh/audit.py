"""What was decided about dependencies lately, stage by stage, in the words of mesh clients."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from registry.cache.view import Record, View
from registry.model.agent import Capability, Dependency
from registry.model.encoding.agent_json import rfc3339
from registry.model.resolution import Out, Pick, Ranking, Resolution
from registry.service.discovery.discovery import NEWEST, Discovery
from registry.service.resolution.explain import explanation, most_traced
from registry.service.resolution.match_policy import PLAIN
from registry.service.resolution.resolver import Resolutions
from registry.service.resolution.tag_match import tag_needs
from registry.store.resolution_store import TRACES, Wires

Json = dict[str, Any]

# Their stages, and which of ours each consists of.
_STAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "health": ("health", "draining", "required"),
    "capability_match": ("namespace",),
    "tags": ("tags",),
    "version": ("version",),
    "schema": ("schema",),
}
_REASONS: Final[Mapping[str, str]] = {
    "health": "Unhealthy",
    "draining": "Unavailable",
    "required": "Unavailable",
    "namespace": "OtherNamespace",
    "tags": "MissingTag",
    "version": "VersionConstraintFailed",
    "schema": "SchemaIncompatible",
}
_BEST: Final = "HighestScoreThenVersion"
_ANY_MODE: Final = "none"
# With so many candidates there was something to choose.
_CHOICE: Final = 2
# A hash that is longer is none.
_LONGEST_HASH: Final = 256


def facts(view: View, resolution: Resolution, ranking: Callable[[Pick], Ranking]) -> dict[str, list[Json]]:
    """Return for each dependency what an explanation of it does not say: how schemas match, which tags are missing.

    By function and in order, as the explanation has them.
    """
    most, found = most_traced(resolution), dict[str, list[Json]]()
    for pick in resolution.picks:
        need, why = pick.need, {}
        for out in ranking(pick).out[:most]:
            fact = _fact(view, need, out)
            if fact:
                why[f"{out.agent_id}:{out.tool_name}"] = fact
        shown: Json = {} if need.schema_wanted is None else {"mode": need.schema_wanted[0]}
        found.setdefault(pick.function, []).append(shown | ({"why": why} if why else {}))
    return found


def _fact(view: View, need: Dependency, out: Out) -> Json:
    capability = _capability(view, need, out)
    if capability is None:
        return {}
    if out.stage == "tags":
        return tag_needs(need.tags or ()).misses(frozenset(capability.tags))
    if out.stage == "schema" and need.schema_wanted is not None:
        mode, wanted, _ = need.schema_wanted
        hashed = capability.output_hash
        told = hashed if isinstance(hashed, str) and len(hashed) <= _LONGEST_HASH else None
        return {"consumer_hash": wanted, "mode": mode, "producer_hash": told, "reason": out.reason}
    return {}


def _capability(view: View, need: Dependency, out: Out) -> Capability | None:
    """Return what fell out, as it is now; None where it is gone or another one by now."""
    record = view.records.get(out.agent_id)
    capabilities = () if record is None else record.agent.profile.capabilities
    if out.position < len(capabilities):
        found = capabilities[out.position]
        if (found.name, found.tool) == (need.capability, out.tool_name):
            return found
    return None


class Auditing:
    """Tells of an agent's dependencies what mesh clients call events, from the traces of its resolutions.

    What has come of them since the agent was last told something else is seen when it is asked for: its answer may be
    the same for another reason.
    """

    def __init__(self, discovery: Discovery, resolutions: Resolutions, wires: Wires) -> None:
        self._discovery = discovery
        self._resolutions = resolutions
        self._wires = wires

    async def events(self, agent_id: str, function: str | None, limit: int) -> list[Json]:
        """Return at most `limit` events, the newest first; of one function where that is named.

        There is one where there was a choice, where somebody fell out and nobody was left, and where another provider
        was chosen than in the event before; never the same twice in a row.
        """
        traces = await self._wires.traces(agent_id, TRACES)
        entries = [orjson.loads(entry) for entry in reversed(traces)]
        view, _ = await self._discovery.view(NEWEST)
        record = view.records.get(agent_id)
        name = agent_id
        if record is not None:
            name = orjson.loads(record.agent.spec).get("name", agent_id)
            if record.agent.status in PLAIN.alive:
                entries.append(await self._present(view, record))
        found = [
            {"agent_id": agent_id, "agent_name": name, **event}
            for event in _events(agent_id, entries)
            if function in (None, event["function_name"])
        ]
        return found[::-1][:limit]

    async def _present(self, view: View, record: Record) -> Json:
        """Return what would be kept now, as of the last change that it can have come from."""
        resolution = await self._resolutions.in_turn(view, record)

        def ranking(pick: Pick) -> Ranking:
            return self._resolutions.ranking(view, record.agent, pick.need)

        # A resource version is the moment of its change, in milliseconds.
        since = max(record.agent.spec_version, *(view.moved(name) for name in resolution.names), 0)
        return {
            "timestamp": rfc3339(since),
            "explanation": explanation(resolution, ranking),
            "facts": facts(view, resolution, ranking),
        }


def _events(agent_id: str, entries: Iterable[Json]) -> Iterator[Json]:
    """Give the events of an agent, the oldest first."""
    last: dict[tuple[str, int], Json] = {}
    chosen_by: dict[tuple[str, int], str] = {}
    for entry in entries:
        for function, needs in entry["explanation"].items():
            known = entry.get("facts", {}).get(function, ())
            for index, need in enumerate(needs):
                key = function, index
                data = _data(need, known[index] if index < len(known) else {})
                if not _is_event(need, data, last.get(key)):
                    continue
                last[key] = data
                shown: Json = {"consumer": agent_id, "dep_index": index, **data}
                if key in chosen_by:
                    shown["prior_chosen"] = chosen_by[key]
                if "chosen" in data:
                    chosen_by[key] = data["chosen"]["agent_id"]
                yield {
                    "event_type": "dependency_resolved" if "chosen" in data else "dependency_unresolved",
                    "function_name": function,
                    "timestamp": entry["timestamp"],
                    "data": shown,
                }


def _is_event(need: Json, data: Json, before: Json | None) -> bool:
    if data == before:
        return False
    considered: int = need["considered"]
    another = before is not None and _chosen(before) != _chosen(data)
    return considered >= _CHOICE or another or (considered > 0 and "chosen" not in data)


def _chosen(data: Json) -> str | None:
    chosen: Json = data.get("chosen", {})
    return chosen.get("agent_id")


def _data(need: Json, known: Json) -> Json:
    """Return what an event says of one dependency, but for what came before it."""
    spec: Json = {"capability": need["capability"], "schema_mode": known.get("mode", _ANY_MODE)}
    if need.get("tags"):
        # Mesh clients know of no lists among tags.
        spec["tags"] = [tag if isinstance(tag, str) else "|".join(tag) for tag in need["tags"]]
    if need.get("version"):
        spec["version_constraint"] = need["version"]
    candidates = need["candidates"]
    data: Json = {"spec": spec, "stages": _stages(need, known.get("why", {}))}
    if need["considered"] > len(candidates):
        data["considered"] = need["considered"]
    if need["chosen"] is not None:
        chosen = need["chosen"]
        data["chosen"] = {
            "agent_id": chosen["agent_id"],
            "endpoint": chosen["endpoint"],
            "function_name": chosen["tool_name"],
        }
    return data


def _stages(need: Json, why: Mapping[str, Json]) -> list[Json]:
    """Return who was left after each stage and who fell out, up to the one after which nobody was left."""
    candidates = need["candidates"]
    kept = sorted(candidates, key=lambda each: (each["agent_id"], each["tool_name"]))
    stages: list[Json] = []
    for stage, ours in _STAGES.items():
        evicted = [each for each in kept if each["stage"] in ours]
        kept = [each for each in kept if each["stage"] not in ours]
        shown: Json = {"stage": stage, "kept": _ids(kept)}
        if evicted:
            shown["evicted"] = [_evicted(each, need, why.get(_id(each), {})) for each in evicted]
        stages.append(shown)
        if not kept:
            return stages
    if need["chosen"] is None:
        # Who would do came while this was written down.
        return stages
    ranked = _ids([each for each in candidates if each["stage"] in ("chosen", "choice")])
    reason = _BEST if need["strategy"] == "best" else need["strategy"]
    return [*stages, {"stage": "tiebreaker", "kept": ranked, "chosen": ranked[0], "reason": reason}]


def _evicted(candidate: Json, need: Json, known: Json) -> Json:
    stage, details = candidate["stage"], known
    if stage == "health":
        details = {"status": candidate["status"]}
    elif stage == "version":
        details = {"constraint": need["version"], "version": candidate["version"]}
    elif not known:
        details = {"reason": candidate["reason"]}
    reason = "ExtraTagDisallowed" if "disallowed" in known else _REASONS[stage]
    return {"id": _id(candidate), "reason": reason, "details": details}


def _ids(candidates: Sequence[Json]) -> list[str]:
    return [_id(each) for each in candidates]


def _id(candidate: Json) -> str:
    return f"{candidate['agent_id']}:{candidate['tool_name']}"
