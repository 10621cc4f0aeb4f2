"""What was decided about dependencies lately, stage by stage, in the words of mesh clients."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.api.request.query_params import integer, invalid, parse_query, single
from registry.api.response.responses import json_response
from registry.cache.view import Record, View
from registry.compat.mcpmesh.spec import McpMeshCapability, schema_requirement
from registry.model.agent import Capability, Dependency
from registry.model.encoding.agent_json import rfc3339
from registry.model.resolution import CachedResolution, RankedProviders, RejectedCandidate, ResolvedDependency
from registry.service.discovery.discovery import LATEST, Discovery
from registry.service.resolution.explain import explain_resolution, trace_limit
from registry.service.resolution.match_policy import DEFAULT_POLICY
from registry.service.resolution.resolver import DependencyResolver
from registry.service.resolution.tag_match import tag_requirements
from registry.store.resolution_store import MAX_RESOLUTIONS_PER_AGENT, ResolutionStore

Json = dict[str, Any]

EVENT_PARAMS: Final = ("agent_id", "function_name", "limit")
_DEFAULT_EVENTS: Final = 50
_MAX_EVENTS: Final = 1000

# Their stages, and which of ours each consists of.
_STAGES_BY_MCPMESH_STAGE: Final[Mapping[str, tuple[str, ...]]] = {
    "health": ("health", "draining", "required"),
    "capability_match": ("namespace",),
    "tags": ("tags",),
    "version": ("version",),
    "schema": ("schema",),
}
_MCPMESH_REASONS: Final[Mapping[str, str]] = {
    "health": "Unhealthy",
    "draining": "Unavailable",
    "required": "Unavailable",
    "namespace": "OtherNamespace",
    "tags": "MissingTag",
    "version": "VersionConstraintFailed",
    "schema": "SchemaIncompatible",
}
_BEST_STRATEGY_REASON: Final = "HighestScoreThenVersion"
_NO_SCHEMA_MODE: Final = "none"
# With so many candidates there was something to choose.
_MIN_CANDIDATES_FOR_EVENT: Final = 2
# A hash that is longer is none.
_MAX_HASH_CHARS: Final = 256


def audit_facts(
    view: View, resolution: CachedResolution, ranking: Callable[[ResolvedDependency], RankedProviders]
) -> dict[str, list[Json]]:
    """Return for each dependency what an explanation of it does not say: how schemas match, which tags are missing.

    By function and in order, as the explanation has them.
    """
    most, found = trace_limit(resolution), dict[str, list[Json]]()
    for pick in resolution.dependencies:
        need, why = pick.dependency, {}
        for out in ranking(pick).rejected_sample[:most]:
            fact = _candidate_facts(view, need, out)
            if fact:
                why[f"{out.agent_id}:{out.tool_name}"] = fact
        requirement = schema_requirement(need)
        shown: Json = {} if requirement is None else {"mode": requirement[0]}
        found.setdefault(pick.function, []).append(shown | ({"candidates": why} if why else {}))
    return found


def _candidate_facts(view: View, dependency: Dependency, rejected: RejectedCandidate) -> Json:
    capability = _rejected_capability(view, dependency, rejected)
    if capability is None:
        return {}
    if rejected.stage == "tags":
        return tag_requirements(dependency.tags or ()).mismatch_details(frozenset(capability.tags))
    requirement = schema_requirement(dependency)
    if rejected.stage == "schema" and requirement is not None:
        mode, wanted, _ = requirement
        hashed = capability.output_schema_hash if isinstance(capability, McpMeshCapability) else None
        told = hashed if isinstance(hashed, str) and len(hashed) <= _MAX_HASH_CHARS else None
        return {"consumer_hash": wanted, "mode": mode, "producer_hash": told, "reason": rejected.reason}
    return {}


def _rejected_capability(view: View, dependency: Dependency, rejected: RejectedCandidate) -> Capability | None:
    """Return what fell out, as it is now; None where it is gone or another one by now."""
    record = view.records.get(rejected.agent_id)
    capabilities = () if record is None else record.agent.indexed.capabilities
    if rejected.position < len(capabilities):
        found = capabilities[rejected.position]
        if (found.name, found.tool_name) == (dependency.capability, rejected.tool_name):
            return found
    return None


class ResolutionAudit:
    """Tells of an agent's dependencies what mesh clients call events, from the traces of its resolutions.

    What has come of them since the agent was last told something else is seen when it is asked for: its answer may be
    the same for another reason.
    """

    def __init__(self, discovery: Discovery, resolver: DependencyResolver, resolution_store: ResolutionStore) -> None:
        self._discovery = discovery
        self._resolver = resolver
        self._resolution_store = resolution_store

    async def events(self, agent_id: str, function: str | None, limit: int) -> list[Json]:
        """Return at most `limit` events, the newest first; of one function where that is named.

        There is one where there was a choice, where somebody fell out and nobody was left, and where another provider
        was chosen than in the event before; never the same twice in a row.
        """
        traces = await self._resolution_store.recent_resolutions(agent_id, MAX_RESOLUTIONS_PER_AGENT)
        entries = [orjson.loads(entry) for entry in reversed(traces)]
        view, _ = await self._discovery.view(LATEST)
        record = view.records.get(agent_id)
        name = agent_id
        if record is not None:
            name = orjson.loads(record.agent.spec).get("name", agent_id)
            if record.agent.status in DEFAULT_POLICY.selectable_statuses:
                entries.append(await self._current_entry(view, record))
        found = [
            {"agent_id": agent_id, "agent_name": name, **event}
            for event in _build_events(agent_id, entries)
            if function in (None, event["function_name"])
        ]
        return found[::-1][:limit]

    async def _current_entry(self, view: View, record: Record) -> Json:
        """Return what would be kept now, as of the last change that it can have come from."""
        resolution = await self._resolver.resolve_async(view, record)

        def ranking(pick: ResolvedDependency) -> RankedProviders:
            return self._resolver.ranking(view, record.agent, pick.dependency)

        # A resource version is the moment of its change, in milliseconds.
        since = max(record.agent.spec_version, *(view.last_change(name) for name in resolution.lookup_keys), 0)
        return {
            "timestamp": rfc3339(since),
            "explanation": explain_resolution(resolution, ranking),
            "audit_facts": audit_facts(view, resolution, ranking),
        }


def _build_events(agent_id: str, entries: Iterable[Json]) -> Iterator[Json]:
    """Give the events of an agent, the oldest first."""
    last: dict[tuple[str, int], Json] = {}
    chosen_by: dict[tuple[str, int], str] = {}
    for entry in entries:
        for function, needs in entry["explanation"].items():
            known = entry.get("audit_facts", {}).get(function, ())
            for index, need in enumerate(needs):
                key = function, index
                data = _event_data(need, known[index] if index < len(known) else {})
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


def _is_event(dependency: Json, data: Json, previous: Json | None) -> bool:
    if data == previous:
        return False
    considered: int = dependency["considered"]
    another = previous is not None and _chosen_agent_id(previous) != _chosen_agent_id(data)
    return considered >= _MIN_CANDIDATES_FOR_EVENT or another or (considered > 0 and "chosen" not in data)


def _chosen_agent_id(data: Json) -> str | None:
    chosen: Json = data.get("chosen", {})
    return chosen.get("agent_id")


def _event_data(dependency: Json, facts: Json) -> Json:
    """Return what an event says of one dependency, but for what came before it."""
    spec: Json = {"capability": dependency["capability"], "schema_mode": facts.get("mode", _NO_SCHEMA_MODE)}
    if dependency.get("tags"):
        # Mesh clients know of no lists among tags.
        spec["tags"] = [tag if isinstance(tag, str) else "|".join(tag) for tag in dependency["tags"]]
    if dependency.get("version"):
        spec["version_constraint"] = dependency["version"]
    candidates = dependency["candidates"]
    data: Json = {"spec": spec, "stages": _event_stages(dependency, facts.get("candidates", {}))}
    if dependency["considered"] > len(candidates):
        data["considered"] = dependency["considered"]
    if dependency["chosen"] is not None:
        chosen = dependency["chosen"]
        data["chosen"] = {
            "agent_id": chosen["agent_id"],
            "endpoint": chosen["endpoint"],
            "function_name": chosen["tool_name"],
        }
    return data


def _event_stages(dependency: Json, candidate_facts: Mapping[str, Json]) -> list[Json]:
    """Return who was left after each stage and who fell out, up to the one after which nobody was left."""
    candidates = dependency["candidates"]
    kept = sorted(candidates, key=lambda each: (each["agent_id"], each["tool_name"]))
    stages: list[Json] = []
    for stage, ours in _STAGES_BY_MCPMESH_STAGE.items():
        evicted = [each for each in kept if each["stage"] in ours]
        kept = [each for each in kept if each["stage"] not in ours]
        shown: Json = {"stage": stage, "kept": _candidate_ids(kept)}
        if evicted:
            shown["evicted"] = [
                _evicted(each, dependency, candidate_facts.get(_candidate_id(each), {})) for each in evicted
            ]
        stages.append(shown)
        if not kept:
            return stages
    if dependency["chosen"] is None:
        # Who would do came while this was written down.
        return stages
    ranked = _candidate_ids([each for each in candidates if each["stage"] in ("chosen", "not_chosen")])
    reason = _BEST_STRATEGY_REASON if dependency["strategy"] == "best" else dependency["strategy"]
    return [*stages, {"stage": "tiebreaker", "kept": ranked, "chosen": ranked[0], "reason": reason}]


def _evicted(candidate: Json, dependency: Json, facts: Json) -> Json:
    stage, details = candidate["stage"], facts
    if stage == "health":
        details = {"status": candidate["status"]}
    elif stage == "version":
        details = {"constraint": dependency["version"], "version": candidate["version"]}
    elif not facts:
        details = {"reason": candidate["reason"]}
    reason = "ExtraTagDisallowed" if "disallowed" in facts else _MCPMESH_REASONS[stage]
    return {"id": _candidate_id(candidate), "reason": reason, "details": details}


def _candidate_ids(candidates: Sequence[Json]) -> list[str]:
    return [_candidate_id(each) for each in candidates]


def _candidate_id(candidate: Json) -> str:
    return f"{candidate['agent_id']}:{candidate['tool_name']}"


class AuditRoutes:
    """The route of `meshctl audit`."""

    def __init__(self, audit: ResolutionAudit) -> None:
        self._audit = audit
        self.routes = [Route("/events", self.events, methods=["GET"])]

    async def events(self, request: Request) -> Response:
        """GET /events: the events of one agent, newest first; an unknown agent has none."""
        given = parse_query(request.scope["query_string"], EVENT_PARAMS)
        agent_id = single(given, "agent_id")
        if agent_id is None:
            raise invalid("agent_id", "is required: events are stored per agent")
        limit = integer(given, "limit", 1, _MAX_EVENTS) or _DEFAULT_EVENTS
        found = await self._audit.events(agent_id, single(given, "function_name"), limit)
        return json_response(orjson.dumps({"count": len(found), "events": found}))
