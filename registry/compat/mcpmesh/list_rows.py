"""How lists show agents in flat form: with what their functions get, and which of their capabilities are of use.

What clients derive from their schemas is left out there: it is most of what they say, and the agent alone shows it.
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from registry.cache.view import Record, View
from registry.compat.mcpmesh.llm_tools import LlmToolFinder
from registry.model.agent import Agent, Capability, Dependency
from registry.model.encoding.agent_json import agent_document, rfc3339
from registry.model.resolution import CachedResolution, ResolvedDependency
from registry.service.resolution.provider_match import ProviderMatcher
from registry.service.resolution.ranking_cache import RankingCache
from registry.service.resolution.resolver import DependencyResolver

Json = dict[str, Any]

_OMITTED_FIELDS: Final = frozenset(
    {
        *("inputSchemaCanonical", "inputSchemaHash", "outputSchema", "outputSchemaCanonical", "outputSchemaHash"),
        "schemaWarnings",
        # What it needs is shown with what that resolves to; here meshctl reads names alone, and fails on anything else.
        "dependencies",
    }
)
# What is shown where an agent says nothing of it.
_DEFAULT_FIELDS: Final[Mapping[str, Any]] = {"description": "", "runtime": "python", "version": "1.0.0"}


class MeshListRows:
    """Adds to an agent in flat form what becomes of its needs. All others are shown as they are."""

    def __init__(self, resolver: DependencyResolver, rankings: RankingCache, llm_tools: LlmToolFinder) -> None:
        self._resolver = resolver
        self._rankings = rankings
        self._llm_tools = llm_tools

    def render(self, view: View, record: Record) -> bytes:
        """Return an agent as lists show it, as of the view's version."""
        if record.agent.indexed.format is None:
            return record.json
        resolution = self._resolver.resolve(view, record)
        self._ensure_rendered(view, record, resolution)
        seen = b"null" if record.heartbeat is None else b'"%s"' % rfc3339(record.heartbeat).encode()
        return b'%s,"last_heartbeat":%s,"last_seen":%s}' % (resolution.list_row, seen, seen)

    async def prepare(self, view: View, record: Record) -> None:
        """Resolve the dependencies of an agent and render the part of its row that they decide."""
        if record.agent.indexed.format is not None:
            self._ensure_rendered(view, record, await self._resolver.resolve_async(view, record))

    def depends_on_resolution(self, record: Record) -> bool:
        """Return whether the row shows the resolution of the agent's dependencies."""
        return record.agent.indexed.format is not None

    def _ensure_rendered(self, view: View, record: Record, resolution: CachedResolution) -> None:
        """Render the part of a row that the resolution decides, unless it is cached."""
        if not resolution.list_row:
            resolution.list_row = orjson.dumps(self._row_document(view, record.agent, resolution.dependencies))[:-1]

    def _row_document(self, view: View, agent: Agent, picks: tuple[ResolvedDependency, ...]) -> Json:
        shown = {**_DEFAULT_FIELDS, **agent_document(agent)}
        for capability, each in zip(agent.indexed.capabilities, shown["capabilities"], strict=True):
            for name in _OMITTED_FIELDS & each.keys():
                del each[name]
            if "llm_filter" in each:
                each["llm_filter"] = _filter_with_objects(each["llm_filter"])
            reason = self._unavailable_reason(view, agent, capability)
            each |= {"tags": capability.tags, "description": capability.description, "available": reason is None}
            if reason is not None:
                each["unavailable_reason"] = reason
        providers, tools = self._llm_tools.resolutions(view, agent)
        return shown | {
            "total_dependencies": len(picks),
            "dependencies_resolved": sum(pick.provider is not None for pick in picks),
            "dependency_resolutions": [_resolution_document(pick) for pick in picks] or None,
            "llm_tool_resolutions": tools or None,
            "llm_provider_resolutions": providers or None,
        }

    def _unavailable_reason(self, view: View, agent: Agent, capability: Capability) -> str | None:
        """Return why nobody is sent to a capability, None where it is of use."""
        if agent.status != "healthy":
            return "agent unhealthy"
        need = self._rankings.missing_requirement(view, agent, capability)
        return (
            None if need is None else f"required dep '{need.capability}' {self._unsatisfied_reason(view, agent, need)}"
        )

    def _unsatisfied_reason(self, view: View, agent: Agent, requirement: Dependency) -> str:
        """Say who would meet a need but for how it is; who would not meet it anyway is not to blame."""
        wanted = ProviderMatcher(
            requirement, agent.indexed.namespace, self._rankings.policies.for_profile(agent.indexed)
        )
        for provider, _, capability in wanted.candidates(view):
            if wanted.is_outside_namespace(provider) or wanted.match_capability(capability)[1] is not None:
                continue
            if provider.draining:
                return f"unavailable (provider {provider.id} draining)"
            dead = provider.status not in wanted.policy.selectable_statuses
            return f"unavailable (provider {provider.id} {'unhealthy' if dead else 'unavailable'})"
        tags = [tag for tag in requirement.tags or () if isinstance(tag, str)]
        asked = [f"tags=[{' '.join(tags)}]"] if tags else []
        asked += [f"version {requirement.version}"] if requirement.version else []
        return f"unresolved (no provider matches {', '.join(asked)})" if asked else "unresolved"


def _filter_with_objects(llm_filter: Any) -> Any:
    """Return a filter in which no entry is a bare name: meshctl fails on these, and shows nobody any more."""
    if not isinstance(llm_filter, dict) or not isinstance(llm_filter.get("filter"), list):
        return llm_filter
    entries = [{"capability": each} if isinstance(each, str) else each for each in llm_filter["filter"]]
    return llm_filter | {"filter": entries}


def _resolution_document(resolved: ResolvedDependency) -> Json:
    shown: Json = {"function_name": resolved.function, "capability": resolved.dependency.capability}
    if resolved.dependency.tags:
        shown["tags"] = [tag for tag in resolved.dependency.tags if isinstance(tag, str)]
    if resolved.provider is None:
        return shown | {"status": "unresolved"}
    return shown | {
        "mcp_tool": resolved.provider.tool_name,
        "provider_agent_id": resolved.provider.agent_id,
        "endpoint": resolved.provider.endpoint,
        "status": "available",
    }
