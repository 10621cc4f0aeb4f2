"""Agents in the mcp-mesh format, as the published SDK sends them: about 4 KB, most of it schemas."""

from typing import Any

_TEXT_SCHEMA = {"type": "string"}
_ANY_OBJECT = {"additionalProperties": True, "type": "object"}
_INPUT_SCHEMA = {
    "additionalProperties": False,
    "properties": {"name": _TEXT_SCHEMA},
    "required": ["name"],
    "type": "object",
}
_FRAMEWORK_TOOLS = ("status", "result", "cancel")


def linked_agent(number: int, *, group: str = "agent") -> dict[str, Any]:
    """Return an agent with one capability and a dependency on the next agent in its group of ten."""
    required = number - number % 10 + (number + 1) % 10
    tools = [
        _tool("work", f"{group}-cap-{number}", [{"capability": f"{group}-cap-{required}", "version": ">=1.0.0"}]),
        *(_framework_tool(name) for name in _FRAMEWORK_TOOLS),
    ]
    return _agent(f"{group}-{number:05d}", tools)


def provider_and_consumer(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a provider and its only consumer."""
    provider = _agent(f"provider-{number:05d}", [_tool("provide", f"pair-{number}", [])])
    consumer = _agent(f"consumer-{number:05d}", [_tool("use", f"use-{number}", [{"capability": f"pair-{number}"}])])
    return provider, consumer


def _agent(agent_id: str, tools: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "agent_id": agent_id,
        "name": agent_id,
        "agent_type": "mcp_agent",
        "version": "1.0.0",
        "description": "An agent of a benchmark",
        "http_host": "127.0.0.1",
        "http_port": 9000,
        "namespace": "default",
        "status": "healthy",
        "runtime": "python",
        "a2a_producer": False,
        "a2a_consumer": False,
        "tools": tools,
    }


def _tool(function: str, capability: str, dependencies: list[dict[str, Any]]) -> dict[str, Any]:
    tool = {
        "function_name": function,
        "capability": capability,
        "version": "1.0.0",
        "tags": ["bench"],
        "description": "The purpose of this agent",
        "inputSchema": _INPUT_SCHEMA,
        "outputSchema": _TEXT_SCHEMA,
        "inputSchemaCanonical": _INPUT_SCHEMA,
        "inputSchemaHash": "sha256:" + "1" * 64,
        "outputSchemaCanonical": _TEXT_SCHEMA,
        "outputSchemaHash": "sha256:" + "2" * 64,
        "kwargs": {"task": False, "resume_cursor": False, "function_name": function},
    }
    return tool | {"dependencies": dependencies} if dependencies else tool


def _framework_tool(name: str) -> dict[str, Any]:
    function = f"__mesh_job_{name}"
    return {
        "function_name": function,
        "capability": function,
        "version": "1.0.0",
        "tags": ["mesh-jobs", "framework"],
        "description": f"[Framework] Return the {name} of a job; safe to call from any agent of the mesh.",
        "outputSchema": _ANY_OBJECT,
        "outputSchemaCanonical": {"type": "object"},
        "outputSchemaHash": "sha256:" + "3" * 64,
        "schemaWarnings": ["stripped additionalProperties: true (lossy)"],
        "kwargs": {"function_name": function, "framework_internal": True},
    }
