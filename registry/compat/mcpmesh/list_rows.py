"""Rows of agent lists for agents in the mcp-mesh format, with resolved dependencies and capabilities.

The schema fields of capabilities are omitted, because they are most of the data; GET /agents/{id} returns them.
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from registry.cache.view import Record, View
from registry.compat.mcpmesh.a2a import FLAGS
from registry.compat.mcpmesh.llm_tools import LlmToolFinder
from registry.compat.mcpmesh.registration_response import mcpmesh_status, strip_mcp_path
from registry.model.agent import Agent, Capability, Dependency
from registry.model.encoding.agent_json import agent_document, encode_overdue_since, rfc3339
from registry.model.resolution import CachedResolution, ResolvedDependency
from registry.service.discovery.list_rows import RowFormat
from registry.service.resolution.provider_ranking import ProviderMatcher
from registry.service.resolution.ranking_cache import RankingCache
from registry.service.resolution.resolver import DependencyResolver

Json = dict[str, Any]

_OMITTED_FIELDS: Final = frozenset(
    {
        *("inputSchemaCanonical", "inputSchemaHash", "outputSchema", "outputSchemaCanonical", "outputSchemaHash"),
        "schemaWarnings",
        # The resolutions below include the dependencies. meshctl expects names here, and fails on objects.
        "dependencies",
    }
)
# Values for fields that the agent did not send.
_DEFAULT_FIELDS: Final[Mapping[str, Any]] = {
    "description": "",
    "runtime": "python",
    "version": "1.0.0",
    **dict.fromkeys(FLAGS, False),
}


class MeshListRows(RowFormat):
    """Row format that adds resolved dependencies to agents in the mcp-mesh format and no data to other agents."""

    def __init__(self, resolver: DependencyResolver, rankings: RankingCache, llm_tools: LlmToolFinder) -> None:
        self._resolver = resolver
        self._rankings = rankings
        self._llm_tools = llm_tools

    def render(self, view: View, record: Record) -> bytes:
        """Return the list row of an agent at the version of the view."""
        if record.agent.indexed.format is None:
            return record.json
        resolution = self._resolver.resolve(view, record)
        self._ensure_rendered(view, record, resolution)
        heartbeat = b"null" if record.heartbeat is None else b'"%s"' % rfc3339(record.heartbeat).encode()
        overdue = encode_overdue_since(record.overdue_since)
        return b'%s,"last_heartbeat":%s,"last_seen":%s%s}' % (resolution.list_row, heartbeat, heartbeat, overdue)

    async def prepare(self, view: View, record: Record) -> None:
        """Resolve the dependencies of an agent and render the part of its list row that depends on them."""
        if record.agent.indexed.format is not None:
            self._ensure_rendered(view, record, await self._resolver.resolve_async(view, record))

    def depends_on_resolution(self, record: Record) -> bool:
        """Return whether the list row of an agent shows its resolved dependencies."""
        return record.agent.indexed.format is not None

    def _ensure_rendered(self, view: View, record: Record, resolution: CachedResolution) -> None:
        """Render the part of a list row that depends on the agent's resolution, unless it is cached."""
        if not resolution.list_row:
            resolution.list_row = orjson.dumps(self._row_document(view, record.agent, resolution.dependencies))[:-1]

    def _row_document(self, view: View, agent: Agent, resolved: tuple[ResolvedDependency, ...]) -> Json:
        document = {**_DEFAULT_FIELDS, **agent_document(agent)}
        for capability, each in zip(agent.indexed.capabilities, document["capabilities"], strict=True):
            for name in _OMITTED_FIELDS & each.keys():
                del each[name]
            if "llm_filter" in each:
                each["llm_filter"] = _filter_with_objects(each["llm_filter"])
            reason = self._unavailable_reason(view, agent, capability)
            each |= {"tags": capability.tags, "description": capability.description, "available": reason is None}
            if reason is not None:
                each["unavailable_reason"] = reason
        providers, tools = self._llm_tools.resolutions(view, agent)
        return document | {
            "status": mcpmesh_status(agent.status),
            "total_dependencies": len(resolved),
            "dependencies_resolved": sum(dependency.provider is not None for dependency in resolved),
            "dependency_resolutions": [_resolution_document(dependency) for dependency in resolved] or None,
            "llm_tool_resolutions": tools or None,
            "llm_provider_resolutions": providers or None,
        }

    def _unavailable_reason(self, view: View, agent: Agent, capability: Capability) -> str | None:
        """Return the reason why a capability is not offered to callers; None if it is offered."""
        if agent.status != "healthy":
            return "agent unhealthy"
        missing = self._rankings.missing_requirement(view, agent, capability)
        return (
            None
            if missing is None
            else f"required dep '{missing.capability}' {self._unsatisfied_reason(view, agent, missing)}"
        )

    def _unsatisfied_reason(self, view: View, agent: Agent, requirement: Dependency) -> str:
        """Return a sentence about the first provider that would satisfy a dependency if it were available."""
        matcher = ProviderMatcher(requirement, agent.indexed.namespace, self._rankings.policies.for_spec(agent.indexed))
        for provider, _, capability in matcher.candidates(view):
            if matcher.is_outside_namespace(provider) or matcher.match_capability(capability)[1] is not None:
                continue
            if provider.draining:
                return f"unavailable (provider {provider.id} draining)"
            is_unhealthy = provider.status not in matcher.policy.selectable_statuses
            return f"unavailable (provider {provider.id} {'unhealthy' if is_unhealthy else 'unavailable'})"
        tags = [tag for tag in requirement.tags or () if isinstance(tag, str)]
        conditions = [f"tags=[{' '.join(tags)}]"] if tags else []
        conditions += [f"version {requirement.version}"] if requirement.version else []
        return f"unresolved (no provider matches {', '.join(conditions)})" if conditions else "unresolved"


def _filter_with_objects(llm_filter: Any) -> Any:
    """Return a tool filter with objects in place of plain names, because meshctl cannot read plain names."""
    if not isinstance(llm_filter, dict) or not isinstance(llm_filter.get("filter"), list):
        return llm_filter
    entries = [{"capability": each} if isinstance(each, str) else each for each in llm_filter["filter"]]
    return llm_filter | {"filter": entries}


def _resolution_document(resolved: ResolvedDependency) -> Json:
    document: Json = {"function_name": resolved.function, "capability": resolved.dependency.capability}
    if resolved.dependency.tags:
        document["tags"] = [tag for tag in resolved.dependency.tags if isinstance(tag, str)]
    if resolved.provider is None:
        return document | {"status": "unresolved"}
    return document | {
        "mcp_tool": resolved.provider.tool_name,
        "provider_agent_id": resolved.provider.agent_id,
        "endpoint": strip_mcp_path(resolved.provider.endpoint),
        "status": "available",
    }
