"""The OpenAPI 3.1 document of the API, built from the schemas that validate requests."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import orjson

from registry import __version__
from registry.api.endpoints.agents import MAX_HEARTBEATS_PER_CALL, MAX_REGISTRATIONS_PER_CALL
from registry.api.mcp.tools import TOOLS
from registry.api.request.heartbeat_body import HEARTBEAT_SCHEMA
from registry.api.request.query_parsers import LIST_AGENTS_PARAMS, LIST_CAPABILITIES_PARAMS, VERSION_PARAM
from registry.api.request.select_arguments import SELECT_PARAMS
from registry.model.registration.parse import registration_schema

_DESCRIPTION: Final = (
    "Any request can be refused before it is routed: 403 origin_refused if a web page of an origin sent it that is "
    "neither the registry's own nor in REGISTRY_ORIGINS; 421 unknown_host if the registry does not know the name in "
    "the Host header; 415 unsupported_media_type if a body has no Content-Type."
)
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})

_ERROR_SCHEMA = {
    "type": "object",
    "required": ["status", "error", "message", "request_id"],
    "properties": {
        "status": {"const": "error"},
        "error": {"type": "string"},
        "message": {"type": "string"},
        "details": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "problem": {"type": "string"}},
            },
        },
        "request_id": {"type": "string"},
        "reason": {"type": "string", "description": "with 503: why the store is unavailable"},
        "outcome": {
            "enum": ["not_sent", "unknown"],
            "description": "with 503: whether the write may have been applied",
        },
    },
}
_STRING = {"type": "string"}
_OBJECT = {"type": "object"}
_REGISTERED_SCHEMA = {
    "type": "object",
    "required": ["status", "agent_id", "resource_version", "message"],
    "properties": {
        "status": {"const": "success"},
        "agent_id": _STRING,
        "resource_version": _STRING,
        "message": _STRING,
        "warnings": {
            "type": "array",
            "description": "probable mistakes in the registration, which was accepted",
            "items": {
                "type": "object",
                "required": ["field", "problem"],
                "properties": {"field": _STRING, "problem": _STRING, "did_you_mean": _STRING},
            },
        },
    },
}
_DRAIN_ACTIONS = (("drain", "Take out of service"), ("undrain", "Put back into service"))
_DRAIN_SCHEMA = {
    "type": "object",
    "properties": {"label_selector": _STRING, "namespace": _STRING},
    "minProperties": 1,
    "additionalProperties": False,
}
_MCP_MESSAGE_SCHEMA = {
    "type": "object",
    "description": "One MCP JSON-RPC message; notifications are answered with 202",
    "properties": {
        "jsonrpc": {"const": "2.0"},
        "id": {"type": ["string", "integer"]},
        "method": {"enum": ["initialize", "server/discover", "ping", "tools/list", "tools/call"]},
        "params": {"type": "object"},
    },
    "required": ["jsonrpc", "method"],
}
_AGENT_ID_PARAM = ("agent_id",)
_DEPENDENCIES_PARAMS = {
    "explain": "true to include candidates, rejection reasons and earlier resolutions",
    **VERSION_PARAM,
}
_END_PARAMS = {"namespace": "of this namespace, or * of the whole mesh; default all"}
_GRAPH_PARAMS = {"namespace": "of agents in this namespace", **VERSION_PARAM}


def operation(
    summary: str,
    *,
    body: Any = None,
    path: tuple[str, ...] = (),
    query: Mapping[str, str] = _NOTHING,
    result: Any = _OBJECT,
) -> Any:
    """Return the OpenAPI description of one operation: its parameters, and the schemas of its body and its result."""
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": _STRING} for name in path
    ]
    parameters += [
        {"name": name, "in": "query", "description": text, "schema": _STRING} for name, text in query.items()
    ]
    described: dict[str, Any] = {
        "summary": summary,
        "responses": {
            "200": {"description": "Done", "content": {"application/json": {"schema": result}}},
            "default": {
                "description": "Rejected or failed",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            },
        },
    }
    if parameters:
        described["parameters"] = parameters
    if body is not None:
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return described


def _list_body(field: str, items: Any, max_items: int) -> Any:
    return {
        "type": "object",
        "properties": {field: {"type": "array", "items": items, "maxItems": max_items}},
        "required": [field],
    }


def api_paths(extra_paths: Mapping[str, Any] = _NOTHING) -> dict[str, Any]:
    """Return the OpenAPI description of all paths; `extra_paths` are the paths of other products."""
    registration = {"$ref": "#/components/schemas/Registration"}
    paths: dict[str, Any] = {
        "/agents": {
            "get": operation("List agents", query=LIST_AGENTS_PARAMS),
            "post": operation("Register an agent", body=registration, result=_REGISTERED_SCHEMA),
        },
        "/agents/batch": {
            "post": operation(
                "Register many agents", body=_list_body("agents", registration, MAX_REGISTRATIONS_PER_CALL)
            )
        },
        **{
            f"/agents/{verb}": {"post": operation(f"{summary} all agents that match a selector", body=_DRAIN_SCHEMA)}
            for verb, summary in _DRAIN_ACTIONS
        },
        **{
            f"/agents/{{agent_id}}/{verb}": {"post": operation(f"{summary} an agent", path=_AGENT_ID_PARAM)}
            for verb, summary in _DRAIN_ACTIONS
        },
        "/agents/{agent_id}": {
            "get": operation("Show an agent", path=_AGENT_ID_PARAM, query=VERSION_PARAM),
            "delete": operation("Unregister an agent", path=_AGENT_ID_PARAM),
        },
        "/agents/{agent_id}/status": {
            "get": operation("Show an agent's status", path=_AGENT_ID_PARAM, query=VERSION_PARAM)
        },
        **_dependency_paths(),
        **extra_paths,
        "/capabilities": {"get": operation("Search capabilities", query=LIST_CAPABILITIES_PARAMS)},
        "/heartbeat": {"post": operation("Send a heartbeat", body=HEARTBEAT_SCHEMA)},
        "/heartbeats": {
            "post": operation("Send many heartbeats", body=_list_body("agent_ids", _STRING, MAX_HEARTBEATS_PER_CALL))
        },
        "/health": {"get": operation("Health of the registry; without a required token, its status alone")},
        "/health/{agent_id}": {"get": operation("Health of an agent", path=_AGENT_ID_PARAM)},
        "/ready": {"get": operation("Readiness of this replica")},
        "/admin/self-preservation/end": {"post": operation("End self-preservation", query=_END_PARAMS)},
        "/metrics": {"get": operation("Metrics as JSON or Prometheus text")},
        "/metrics/prometheus": {"get": operation("Metrics as Prometheus text")},
        "/mcp": {"post": operation("The tools over MCP's streamable HTTP, without sessions", body=_MCP_MESSAGE_SCHEMA)},
        "/mcp/tools": {"get": operation("List the tools")},
        "/openapi.json": {"get": operation("This document")},
        "/": {"get": operation("Service name, version and endpoints; without a required token, the name alone")},
    }
    for tool in TOOLS:
        paths[f"/mcp/tools/{tool.name}"] = {"post": operation(tool.description, body=tool.input_schema)}
    return paths


def _dependency_paths() -> dict[str, Any]:
    return {
        "/agents/{agent_id}/dependencies": {
            "get": operation(
                "Providers of an agent's dependencies",
                path=_AGENT_ID_PARAM,
                query=_DEPENDENCIES_PARAMS,
            )
        },
        "/agents/{agent_id}/dependents": {
            "get": operation("Agents that depend on an agent", path=_AGENT_ID_PARAM, query=VERSION_PARAM)
        },
        "/dependencies": {"get": operation("Dependency graph", query=_GRAPH_PARAMS)},
        "/select": {"get": operation("Select one agent to call", query=SELECT_PARAMS)},
    }


def openapi_document(paths: Mapping[str, Any]) -> bytes:
    """Return the OpenAPI document of these paths as JSON."""
    return orjson.dumps(
        {
            "openapi": "3.1.0",
            "info": {"title": "mcp-mesh-registry", "version": __version__, "description": _DESCRIPTION},
            # Relative to the URL of this document, so it is right below any path prefix of a reverse proxy.
            "servers": [{"url": ".", "description": "This registry; every path also exists below /api/v1"}],
            "paths": paths,
            "components": {
                "schemas": {"Registration": registration_schema(), "Error": _ERROR_SCHEMA},
                "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            },
            "security": [{}, {"bearer": []}],
        }
    )


def list_endpoints(paths: Mapping[str, Any]) -> dict[str, str]:
    """Return the summary of each endpoint of these paths by `METHOD /path`, for the response of GET /."""
    return {
        f"{method.upper()} {path}": each["summary"]
        for path, operations in paths.items()
        for method, each in operations.items()
    }
