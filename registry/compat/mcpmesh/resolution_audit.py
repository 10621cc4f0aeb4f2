"""The audit of mcp-mesh agents: recent resolutions of dependencies as events with stages."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from registry.cache.view import Record, View
from registry.compat.mcpmesh.registration_response import mcpmesh_status, strip_mcp_path
from registry.compat.mcpmesh.spec_fields import McpMeshCapability, schema_requirement
from registry.model.agent import Capability, Dependency
from registry.model.encoding.agent_json import rfc3339
from registry.model.resolution import CachedResolution, RankedProviders, RejectedCandidate, ResolvedDependency
from registry.service.discovery.discovery_service import LATEST, Discovery
from registry.service.resolution.explain import explain_resolution, trace_limit
from registry.service.resolution.match_policy import DEFAULT_POLICY
from registry.service.resolution.resolver import DependencyResolver
from registry.service.resolution.tag_match import tag_requirements
from registry.store.resolution_store import MAX_RESOLUTIONS_PER_AGENT, ResolutionStore

Json = dict[str, Any]

DEPENDENCY_EVENT_TYPES: Final = frozenset({"dependency_resolved", "dependency_unresolved"})

# The stages of mcp-mesh, each with the stages of this registry that it covers.
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
# With fewer candidates there is no choice to report.
_MIN_CANDIDATES_FOR_EVENT: Final = 2
# A longer value is not a hash.
_MAX_HASH_CHARS: Final = 256


def audit_facts(
    view: View, resolution: CachedResolution, ranking: Callable[[ResolvedDependency], RankedProviders]
) -> dict[str, list[Json]]:
    """Return the facts that an audit needs beyond the explanation: schema modes, schema hashes, missing tags.

    The result has one item for each dependency, by function and in the order of the explanation.
    """
    max_candidates, found = trace_limit(resolution), dict[str, list[Json]]()
    for resolved in resolution.dependencies:
        dependency, facts_by_candidate = resolved.dependency, {}
        for rejected in ranking(resolved).rejected_sample[:max_candidates]:
            facts = _candidate_facts(view, dependency, rejected)
            if facts:
                facts_by_candidate[f"{rejected.agent_id}:{rejected.tool_name}"] = facts
        requirement = schema_requirement(dependency)
        document: Json = {} if requirement is None else {"mode": requirement[0]}
        found.setdefault(resolved.function, []).append(
            document | ({"candidates": facts_by_candidate} if facts_by_candidate else {})
        )
    return found


def _candidate_facts(view: View, dependency: Dependency, rejected: RejectedCandidate) -> Json:
    capability = _rejected_capability(view, dependency, rejected)
    if capability is None:
        return {}
    if rejected.stage == "tags":
        return tag_requirements(dependency.tags or ()).mismatch_details(frozenset(capability.tags))
    requirement = schema_requirement(dependency)
    if rejected.stage == "schema" and requirement is not None:
        mode, expected_hash, _ = requirement
        output_hash = capability.output_schema_hash if isinstance(capability, McpMeshCapability) else None
        producer_hash = output_hash if isinstance(output_hash, str) and len(output_hash) <= _MAX_HASH_CHARS else None
        return {"consumer_hash": expected_hash, "mode": mode, "producer_hash": producer_hash, "reason": rejected.reason}
    return {}


def _rejected_capability(view: View, dependency: Dependency, rejected: RejectedCandidate) -> Capability | None:
    """Return the current capability of a rejected candidate; None if it was removed or replaced."""
    record = view.records.get(rejected.agent_id)
    capabilities = () if record is None else record.agent.indexed.capabilities
    if rejected.position < len(capabilities):
        found = capabilities[rejected.position]
        if (found.name, found.tool_name) == (dependency.capability, rejected.tool_name):
            return found
    return None


class ResolutionAudit:
    """Builds the audit events of an agent from the stored traces of its resolutions.

    The current resolution is added at each request: its reasons can change while the response stays the same.
    """

    def __init__(self, discovery: Discovery, resolver: DependencyResolver, resolution_store: ResolutionStore) -> None:
        self._discovery = discovery
        self._resolver = resolver
        self._resolution_store = resolution_store

    async def events(self, agent_id: str, function: str | None, limit: int) -> list[Json]:
        """Return at most `limit` audit events of an agent, the newest first, or only those of one function.

        An event is a choice among several candidates, a dependency whose candidates are all rejected, or a change of
        the provider. Two events in a row are never equal.
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
        """Return a trace of the agent's current resolution, with the time of the last change that may affect it."""
        resolution = await self._resolver.resolve_async(view, record)
        ranking = self._resolver.rankings_of(view, record.agent)
        # A version is the time of its change in milliseconds.
        since = max(record.agent.spec_version, *(view.last_change(name) for name in resolution.lookup_keys), 0)
        return {
            "timestamp": rfc3339(since),
            "explanation": explain_resolution(resolution, ranking),
            "audit_facts": audit_facts(view, resolution, ranking),
        }


def _build_events(agent_id: str, entries: Iterable[Json]) -> Iterator[Json]:
    """Yield the audit events of an agent, the oldest first."""
    last: dict[tuple[str, int], Json] = {}
    chosen_by: dict[tuple[str, int], str] = {}
    for entry in entries:
        for function, dependencies in entry["explanation"].items():
            facts = entry.get("audit_facts", {}).get(function, ())
            for index, dependency in enumerate(dependencies):
                key = function, index
                data = _event_data(dependency, facts[index] if index < len(facts) else {})
                if not _is_event(dependency, data, last.get(key)):
                    continue
                last[key] = data
                document: Json = {"consumer": agent_id, "dep_index": index, **data}
                if key in chosen_by:
                    document["prior_chosen"] = chosen_by[key]
                if "chosen" in data:
                    chosen_by[key] = data["chosen"]["agent_id"]
                yield {
                    "event_type": "dependency_resolved" if "chosen" in data else "dependency_unresolved",
                    "function_name": function,
                    "timestamp": entry["timestamp"],
                    "data": document,
                }


def _is_event(dependency: Json, data: Json, previous: Json | None) -> bool:
    if data == previous:
        return False
    considered: int = dependency["considered"]
    provider_changed = previous is not None and _chosen_agent_id(previous) != _chosen_agent_id(data)
    return considered >= _MIN_CANDIDATES_FOR_EVENT or provider_changed or (considered > 0 and "chosen" not in data)


def _chosen_agent_id(data: Json) -> str | None:
    chosen: Json = data.get("chosen", {})
    return chosen.get("agent_id")


def _event_data(dependency: Json, facts: Json) -> Json:
    """Return the data of one audit event, without the provider of the previous event."""
    spec: Json = {"capability": dependency["capability"], "schema_mode": facts.get("mode", _NO_SCHEMA_MODE)}
    if dependency.get("tags"):
        # mcp-mesh has no nested lists of tags.
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
            "endpoint": strip_mcp_path(chosen["endpoint"]),
            "function_name": chosen["tool_name"],
        }
    return data


def _event_stages(dependency: Json, candidate_facts: Mapping[str, Json]) -> list[Json]:
    """Return the stages of an event with remaining and rejected candidates, up to the one that rejects the last."""
    candidates = dependency["candidates"]
    remaining = sorted(candidates, key=lambda each: (each["agent_id"], each["tool_name"]))
    stages: list[Json] = []
    for stage, own_stages in _STAGES_BY_MCPMESH_STAGE.items():
        evicted = [each for each in remaining if each["stage"] in own_stages]
        remaining = [each for each in remaining if each["stage"] not in own_stages]
        document: Json = {"stage": stage, "kept": _candidate_ids(remaining)}
        if evicted:
            document["evicted"] = [
                _evicted(each, dependency, candidate_facts.get(_candidate_id(each), {})) for each in evicted
            ]
        stages.append(document)
        if not remaining:
            return stages
    if dependency["chosen"] is None:
        # The dependency is unresolved although candidates remain: a provider appeared while the trace was built.
        return stages
    ranked = _candidate_ids([each for each in candidates if each["stage"] in ("chosen", "not_chosen")])
    reason = _BEST_STRATEGY_REASON if dependency["strategy"] == "best" else dependency["strategy"]
    return [*stages, {"stage": "tiebreaker", "kept": ranked, "chosen": ranked[0], "reason": reason}]


def _evicted(candidate: Json, dependency: Json, facts: Json) -> Json:
    stage, details = candidate["stage"], facts
    if stage == "health":
        details = {"status": mcpmesh_status(candidate["status"])}
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
