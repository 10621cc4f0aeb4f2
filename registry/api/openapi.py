"""The API as an OpenAPI 3.1 document, built from the same forms that check requests."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import orjson

from registry import __version__
from registry.api.mcp.tools import TOOLS
from registry.api.request.heartbeat import HEARTBEAT_SCHEMA
from registry.model.registration.parse import registration_schema

_NO_PATHS: Final[Mapping[str, Any]] = MappingProxyType({})

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
        "reason": {"type": "string", "description": "with 503: why the store could not answer"},
        "outcome": {
            "enum": ["not_sent", "unknown"],
            "description": "with 503: whether a write may have happened",
        },
    },
}
_STRING = {"type": "string"}
_DRAIN_ACTIONS = (("drain", "Take out of service"), ("undrain", "Put back into service"))
_DRAIN_SCHEMA = {
    "type": "object",
    "properties": {"label_selector": _STRING, "namespace": _STRING},
    "minProperties": 1,
    "additionalProperties": False,
}
_MCP_MESSAGE_SCHEMA = {
    "type": "object",
    "description": "One JSON-RPC message of MCP; answered with 202 where it is a notification",
    "properties": {
        "jsonrpc": {"const": "2.0"},
        "id": {"type": ["string", "integer"]},
        "method": {"enum": ["initialize", "server/discover", "ping", "tools/list", "tools/call"]},
        "params": {"type": "object"},
    },
    "required": ["jsonrpc", "method"],
}
_AGENT_ID_PARAM = ("agent_id",)
_FRESHNESS_PARAMS = (
    ("resource_version", "0: whatever this replica holds; N: not older than N; else the newest"),
    ("resource_version_match", "Exact or NotOlderThan, with a resource_version"),
)
_CAPABILITY_PARAMS = (
    ("version_constraint", "for example >=1.0.0, ^1.2, 1.x or ~2.0 || >=3"),
    ("fuzzy_match", "true to take names that are nearly as asked, best first, with a score"),
)
_LIST_AGENTS_PARAMS = (
    ("namespace", "exactly this namespace"),
    ("status", "pending, healthy, degraded, expired, unhealthy, offline or any"),
    ("draining", "true: only agents that drain; false: only those in service"),
    ("agent_id", "exactly this agent"),
    ("label_selector", "a Kubernetes label selector"),
    ("capability", "has this capability; repeat it for several"),
    ("match", "all of the capabilities, or any"),
    ("capability_category", "of one and the same capability"),
    ("capability_stability", "alpha, beta, experimental, stable or deprecated"),
    ("capability_tags", "all of these, joined by commas"),
    *_CAPABILITY_PARAMS,
    *_FRESHNESS_PARAMS,
    ("limit", "rows of a page"),
    ("continue", "the token of the page before"),
    ("fields", "only these fields of each agent, joined by commas"),
    ("wait", "answer once the answer is another than at resource_version, at most so long, for example 30s"),
    ("watch", "true for a stream of events, as NDJSON or server-sent events"),
    ("send_initial", "with watch: the state first, then a bookmark"),
    ("timeout", "with watch: the stream ends after so long, for example 60s"),
)
_LIST_CAPABILITIES_PARAMS = (
    ("name", "exactly this name, unless fuzzy_match"),
    ("q", "text to look for in names, tags and descriptions, best first"),
    ("description_contains", "part of the description, in any case"),
    ("category", "exactly this category"),
    ("tags", "all of these, joined by commas"),
    ("stability", "alpha, beta, experimental, stable or deprecated"),
    *_CAPABILITY_PARAMS,
    ("include_deprecated", "true to show deprecated ones too"),
    ("agent_namespace", "of agents in this namespace"),
    ("agent_status", "of agents with this status"),
    ("agent_draining", "of agents that drain, or in service; the latter unless agent_status is any"),
    ("agent_id", "of this agent"),
    *_FRESHNESS_PARAMS,
)
_NAMESPACE_PARAM = ("namespace", "of agents in this namespace")
_EXPLAIN_PARAM = ("explain", "true to show who was looked at, who fell out where, and how it was lately")
_SELECT_PARAMS = (
    ("capability", "what the agent must be able to do"),
    ("version_constraint", "for example >=1.0.0"),
    ("tags", "t is required, +t preferred, -t excluded; joined by commas"),
    ("namespace", "exactly this namespace"),
    ("strategy", "best, round_robin, random, least_loaded, sticky, weighted or local"),
    ("key", "with sticky: the same key gets the same agent"),
    ("zone", "with local: agents with this label zone come first"),
    *_FRESHNESS_PARAMS[:1],
)


def operation(
    summary: str, *, body: Any = None, path: tuple[str, ...] = (), query: tuple[tuple[str, str], ...] = ()
) -> Any:
    """Return one operation of an OpenAPI path: its path and query parameters and the schema of its JSON body."""
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": _STRING} for name in path
    ]
    parameters += [{"name": name, "in": "query", "description": says, "schema": _STRING} for name, says in query]
    described: dict[str, Any] = {
        "summary": summary,
        "responses": {
            "200": {"description": "Done", "content": {"application/json": {"schema": {"type": "object"}}}},
            "default": {
                "description": "Refused or failed",
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


def _paths(extra_paths: Mapping[str, Any]) -> dict[str, Any]:
    registration = {"$ref": "#/components/schemas/Registration"}
    paths: dict[str, Any] = {
        "/agents": {
            "get": operation("List agents", query=_LIST_AGENTS_PARAMS),
            "post": operation("Register an agent", body=registration),
        },
        "/agents/batch": {"post": operation("Register many agents", body=_list_body("agents", registration, 200))},
        **{
            f"/agents/{verb}": {"post": operation(f"{says} all agents that a selector finds", body=_DRAIN_SCHEMA)}
            for verb, says in _DRAIN_ACTIONS
        },
        **{
            f"/agents/{{agent_id}}/{verb}": {"post": operation(f"{says} an agent", path=_AGENT_ID_PARAM)}
            for verb, says in _DRAIN_ACTIONS
        },
        "/agents/{agent_id}": {
            "get": operation("Show an agent", path=_AGENT_ID_PARAM, query=_FRESHNESS_PARAMS[:1]),
            "delete": operation("Unregister an agent", path=_AGENT_ID_PARAM),
        },
        "/agents/{agent_id}/status": {
            "get": operation("Show an agent's status", path=_AGENT_ID_PARAM, query=_FRESHNESS_PARAMS[:1])
        },
        **_dependency_paths(),
        **extra_paths,
        "/capabilities": {"get": operation("Search capabilities", query=_LIST_CAPABILITIES_PARAMS)},
        "/heartbeat": {"post": operation("Send a heartbeat", body=HEARTBEAT_SCHEMA)},
        "/heartbeats": {"post": operation("Send many heartbeats", body=_list_body("agent_ids", _STRING, 1000))},
        "/health": {"get": operation("How the registry is")},
        "/health/{agent_id}": {"get": operation("How an agent is", path=_AGENT_ID_PARAM)},
        "/ready": {"get": operation("Whether this replica should get requests")},
        "/admin/self-preservation/end": {"post": operation("End self-preservation")},
        "/metrics": {"get": operation("Numbers, as JSON or Prometheus text")},
        "/metrics/prometheus": {"get": operation("Numbers, as Prometheus text")},
        "/mcp": {"post": operation("The tools over MCP's streamable HTTP, without sessions", body=_MCP_MESSAGE_SCHEMA)},
        "/mcp/tools": {"get": operation("List the tools")},
        "/openapi.json": {"get": operation("This document")},
        "/": {"get": operation("What this is, and its endpoints")},
    }
    for tool in TOOLS:
        paths[f"/mcp/tools/{tool.name}"] = {"post": operation(tool.description, body=tool.input_schema)}
    return paths


def _dependency_paths() -> dict[str, Any]:
    return {
        "/agents/{agent_id}/dependencies": {
            "get": operation(
                "What an agent's dependencies resolve to",
                path=_AGENT_ID_PARAM,
                query=(_EXPLAIN_PARAM, *_FRESHNESS_PARAMS[:1]),
            )
        },
        "/agents/{agent_id}/dependents": {
            "get": operation("Whose dependencies an agent meets", path=_AGENT_ID_PARAM, query=_FRESHNESS_PARAMS[:1])
        },
        "/dependencies": {"get": operation("Who depends on whom", query=(_NAMESPACE_PARAM, *_FRESHNESS_PARAMS[:1]))},
        "/select": {"get": operation("Select one agent to call", query=_SELECT_PARAMS)},
    }


def openapi_document(extra_paths: Mapping[str, Any] = _NO_PATHS) -> bytes:
    """Return the OpenAPI document as JSON; `extra_paths` are those of other products."""
    return orjson.dumps(
        {
            "openapi": "3.1.0",
            "info": {"title": "mcp-mesh-registry", "version": __version__},
            "servers": [{"url": "/"}, {"url": "/api/v1"}],
            "paths": _paths(extra_paths),
            "components": {
                "schemas": {"Registration": registration_schema(), "Error": _ERROR_SCHEMA},
                "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            },
            "security": [{}, {"bearer": []}],
        }
    )


def list_endpoints(extra_paths: Mapping[str, Any] = _NO_PATHS) -> list[str]:
    """Return every endpoint as `METHOD /path`, for GET /."""
    return [f"{method.upper()} {path}" for path, operations in _paths(extra_paths).items() for method in operations]
