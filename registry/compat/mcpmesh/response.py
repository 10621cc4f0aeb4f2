"""How the answer to a registration in flat form tells what an agent's functions get: by position, nothing ever null."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import orjson

from registry.compat.mcpmesh.spec import provider_kwargs
from registry.model.agent import Agent, Capability, Dependency
from registry.model.resolution import Provider, ResolvedDependency

AVAILABLE = "available"
UNRESOLVED = "unresolved"
MAX_PROVIDER_DETAIL_BYTES = 16 * 1024 * 1024
"""Bytes that one answer tells of what others say of themselves at length, about; what goes beyond is left out."""


class LlmResolution(NamedTuple):
    """What language models get, by function: tools, none too, and providers where there is one."""

    tools: Mapping[str, list[dict[str, Any]]]
    providers: Mapping[str, dict[str, Any]]


def encode_response_fields(dependencies: tuple[ResolvedDependency, ...], llm: LlmResolution) -> bytes:
    """Return the fields of the answer, each with a comma before it.

    The entries of a function stand in the order of its dependencies; one that is unresolved keeps its place.
    """
    resolved: dict[str, list[dict[str, Any]]] = {}
    room = MAX_PROVIDER_DETAIL_BYTES
    for pick in dependencies:
        entry = _dependency_entry(pick)
        # An agent may say a megabyte of how it is called, and be what ten thousand dependencies of another resolve to.
        if pick.provider is not None and pick.provider.extension and len(pick.provider.extension) <= room:
            room -= len(pick.provider.extension)
            entry["kwargs"] = orjson.Fragment(pick.provider.extension)
        resolved.setdefault(pick.function, []).append(entry)
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
        "endpoint": chosen.endpoint,
        "function_name": chosen.tool_name,
        "status": AVAILABLE,
    }


def tool_entry(agent: Agent, capability: Capability) -> dict[str, Any]:
    """Return a tool as language models are told of it."""
    return {
        "name": capability.tool_name,
        "capability": capability.name,
        "agent_id": agent.id,
        "endpoint": agent.indexed.endpoint,
        "description": capability.description,
        "inputSchema": orjson.Fragment(bytes(capability.input_schema)),
        "tags": capability.tags,
        "version": capability.version,
    }


def provider_entry(provider: Provider, capability: Capability) -> dict[str, Any]:
    """Return a provider of a language model as those are told of it that delegate to one."""
    sent = provider_kwargs(capability)
    kwargs: Any = orjson.loads(sent) if sent else None
    vendor = kwargs.get("vendor") if isinstance(kwargs, dict) else None
    entry: dict[str, Any] = {
        "agent_id": provider.agent_id,
        "name": provider.tool_name,
        "capability": capability.name,
        "endpoint": provider.endpoint,
        "status": AVAILABLE,
        "version": capability.version,
        "vendor": vendor if isinstance(vendor, str) else "unknown",
    }
    if capability.tags:
        entry["tags"] = capability.tags
    return entry if kwargs is None else entry | {"kwargs": kwargs}


def provider_resolution(function: str, dependency: Dependency, provider: Provider | None) -> dict[str, Any]:
    """Return whom a function delegates to as lists show it."""
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
    """Return the tools that a function got by one entry of its filter as lists show them; one row where it got none."""
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
    return {"provider_agent_id": agent_id, "endpoint": endpoint, "mcp_tool": tool, "status": AVAILABLE}
