"""The response to a registration in the mcp-mesh format: resolved dependencies by position, without null values."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import orjson

from registry.compat.mcpmesh.spec_fields import provider_kwargs
from registry.model.agent import Agent, Capability, Dependency
from registry.model.resolution import Provider, ResolvedDependency

AVAILABLE = "available"
UNRESOLVED = "unresolved"
MAX_PROVIDER_DETAIL_BYTES = 16 * 1024 * 1024
"""Approximate maximum of the variable data of providers in one response; data beyond it is omitted."""


def strip_mcp_path(endpoint: str) -> str:
    """Return an endpoint as the mcp-mesh SDKs expect it: without the path `/mcp`, which they append."""
    url = endpoint.rstrip("/")
    # In `http://mcp` it is the host.
    return url.removesuffix("/mcp") if url.endswith("/mcp") and not url.endswith("//mcp") else endpoint


def mcpmesh_status(status: str) -> str:
    """Return the status of an agent in the words of mcp-mesh: its clients show a dead agent only as `unhealthy`."""
    return "unhealthy" if status == "expired" else status


class LlmResolution(NamedTuple):
    """The tools and the LLM provider of each function that works with a language model."""

    tools: Mapping[str, list[dict[str, Any]]]
    providers: Mapping[str, dict[str, Any]]


def encode_response_fields(dependencies: tuple[ResolvedDependency, ...], llm: LlmResolution) -> bytes:
    """Encode resolved dependencies as JSON fields of the response, each field preceded by a comma.

    The entries of a function are in the order of its dependencies, including the unresolved ones.
    """
    resolved: dict[str, list[dict[str, Any]]] = {}
    bytes_left = MAX_PROVIDER_DETAIL_BYTES
    for each in dependencies:
        entry = _dependency_entry(each)
        # The kwargs of one agent can be a megabyte long, and ten thousand dependencies of another can resolve to it.
        if each.provider is not None and each.provider.extension and len(each.provider.extension) <= bytes_left:
            bytes_left -= len(each.provider.extension)
            entry["kwargs"] = orjson.Fragment(each.provider.extension)
        resolved.setdefault(each.function, []).append(entry)
    fields: dict[str, Any] = {"dependencies_resolved": resolved, "llm_tools": llm.tools}
    if llm.providers:
        fields["llm_providers"] = llm.providers
    return b"," + orjson.dumps(fields)[1:-1]


def _dependency_entry(resolved: ResolvedDependency) -> dict[str, Any]:
    chosen, capability = resolved.provider, resolved.dependency.capability
    if chosen is None:
        return {"agent_id": "", "capability": capability, "endpoint": "", "function_name": "", "status": UNRESOLVED}
    return {
        "agent_id": chosen.agent_id,
        "capability": capability,
        "endpoint": strip_mcp_path(chosen.endpoint),
        "function_name": chosen.tool_name,
        "status": AVAILABLE,
    }


def tool_entry(agent: Agent, capability: Capability) -> dict[str, Any]:
    """Return the entry of one tool in the response for a function that works with a language model."""
    return {
        "name": capability.tool_name,
        "capability": capability.name,
        "agent_id": agent.id,
        "endpoint": strip_mcp_path(agent.indexed.endpoint),
        "description": capability.description,
        "inputSchema": orjson.Fragment(bytes(capability.input_schema)),
        "tags": capability.tags,
        "version": capability.version,
    }


def provider_entry(provider: Provider, capability: Capability) -> dict[str, Any]:
    """Return the entry of an LLM provider in the response for a function that delegates to it."""
    sent = provider_kwargs(capability)
    kwargs: Any = orjson.loads(sent) if sent else None
    vendor = kwargs.get("vendor") if isinstance(kwargs, dict) else None
    entry: dict[str, Any] = {
        "agent_id": provider.agent_id,
        "name": provider.tool_name,
        "capability": capability.name,
        "endpoint": strip_mcp_path(provider.endpoint),
        "status": AVAILABLE,
        "version": capability.version,
        "vendor": vendor if isinstance(vendor, str) else "unknown",
    }
    if capability.tags:
        entry["tags"] = capability.tags
    return entry if kwargs is None else entry | {"kwargs": kwargs}


def provider_resolution(function: str, dependency: Dependency, provider: Provider | None) -> dict[str, Any]:
    """Return the LLM provider of a function in the form that agent lists show."""
    shown: dict[str, Any] = {"function_name": function, "required_capability": dependency.capability}
    if dependency.tags:
        shown["required_tags"] = [tag for tag in dependency.tags if isinstance(tag, str)]
    return shown | (
        {"status": UNRESOLVED}
        if provider is None
        else _provider_fields(provider.agent_id, provider.endpoint, provider.tool_name)
    )


def tool_resolutions(
    function: str, filter_entry: Dependency, mode: str, tools: Iterable[tuple[Agent, Capability]]
) -> list[dict[str, Any]]:
    """Return the rows of an agent list for one entry of a tool filter: one per tool found, or one unresolved row."""
    shown: dict[str, Any] = {
        "function_name": function,
        "filter_capability": filter_entry.capability,
        "filter_mode": mode,
    }
    if filter_entry.tags:
        shown["filter_tags"] = [tag for tag in filter_entry.tags if isinstance(tag, str)]
    return [
        shown
        | {"provider_capability": capability.name}
        | _provider_fields(agent.id, agent.indexed.endpoint, capability.tool_name)
        for agent, capability in tools
    ] or [shown | {"status": UNRESOLVED}]


def _provider_fields(agent_id: str, endpoint: str, tool: str) -> dict[str, Any]:
    return {"provider_agent_id": agent_id, "endpoint": strip_mcp_path(endpoint), "mcp_tool": tool, "status": AVAILABLE}
