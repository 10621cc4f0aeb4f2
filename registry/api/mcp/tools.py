"""The registry's MCP tools: their descriptions and schemas, their handlers, and a POST route for each tool."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from registry.api.request.body import read_object
from registry.api.request.heartbeat_body import HEARTBEAT_SCHEMA
from registry.api.request.query_params import reject_unknown
from registry.api.request.query_parsers import parse_discover_query
from registry.api.request.registration_body import register_document
from registry.api.request.select_arguments import parse_select_document, select_schema
from registry.api.response.json_responses import (
    agent_list_parts,
    json_response,
    selection_response,
    success_response,
    unregistration_response,
)
from registry.errors import Detail, MalformedRequest, UnprocessableRequest
from registry.model.registration.parse import registration_schema
from registry.service.discovery.discovery_service import Discovery
from registry.service.registration.registration_service import RegistrationService
from registry.service.resolution.provider_selection import Selector

_STRING = {"type": "string"}
_AGENT_ID_SCHEMA = {"type": "object", "properties": {"agent_id": _STRING}, "required": ["agent_id"]}
_STRING_LIST = {"type": "array", "items": _STRING}
_QUERY_SCHEMA = {
    "type": "object",
    "properties": {
        "namespace": _STRING,
        "status": {**_STRING, "description": "Default healthy; any for all"},
        "draining": {"type": "boolean", "description": "Default false, unless status is any"},
        "agent_id": _STRING,
        "capabilities": _STRING_LIST,
        "capability": _STRING,
        "match": {"enum": ["all", "any"], "description": "Default all; applies to capabilities"},
        "capability_category": _STRING,
        "capability_stability": _STRING,
        "capability_tags": {**_STRING_LIST, "description": "all must be present on one capability"},
        "labels": {"type": "object", "additionalProperties": _STRING},
        "label_selector": _STRING,
        "version_constraint": {**_STRING, "description": "for example >=1.0.0 or ^2.1"},
        "fuzzy_match": {"type": "boolean", "description": "Approximate names, best match first"},
        "resource_version": {**_STRING, "description": "0: any cached version; N: at least version N"},
    },
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Tool:
    """One MCP tool: its name, its description for a model, the schema of its arguments, and MCP's hints."""

    name: str
    description: str
    input_schema: Mapping[str, Any]
    annotations: Mapping[str, bool]


# MCP's hints: no tool reaches anything outside the mesh, and writes are idempotent.
_READ_HINTS = {"readOnlyHint": True, "openWorldHint": False}
_WRITE_HINTS = {"readOnlyHint": False, "destructiveHint": False, "idempotentHint": True, "openWorldHint": False}
_DESTRUCTIVE_HINTS = _WRITE_HINTS | {"destructiveHint": True}

TOOLS = (
    Tool(
        "register_agent",
        "Register an agent, or replace its registration",
        {
            "type": "object",
            "properties": {"registration_data": registration_schema()},
            "required": ["registration_data"],
        },
        # It may replace the registration of another agent with the same id.
        _DESTRUCTIVE_HINTS,
    ),
    Tool("unregister_agent", "Remove an agent from the mesh", _AGENT_ID_SCHEMA, _DESTRUCTIVE_HINTS),
    Tool(
        "discover_services",
        "Find agents by capability, label, namespace, version and status",
        {"type": "object", "properties": {"query": _QUERY_SCHEMA}},
        _READ_HINTS,
    ),
    Tool("heartbeat", "Send a heartbeat for an agent", HEARTBEAT_SCHEMA, _WRITE_HINTS),
    Tool("get_agent_status", "Get the full record of an agent", _AGENT_ID_SCHEMA, _READ_HINTS),
    Tool("select_agent", "Select one agent to call for a capability", select_schema(), _READ_HINTS),
)


class Sender(NamedTuple):
    """The headers of a call of a tool, which may contain preconditions, and the scope of its request."""

    headers: Mapping[str, str]
    scope: Scope


ToolHandler = Callable[[dict[str, Any], Sender], Awaitable[Response]]
"""A function that runs a tool with its arguments for a sender."""


class ToolRoutes:
    """The POST routes and `handlers` of the MCP tools, by name; HeartbeatEndpoint has the route of `heartbeat`."""

    def __init__(
        self,
        registrations: RegistrationService,
        discovery: Discovery,
        selector: Selector,
        heartbeat: Callable[[bytes, Scope], Awaitable[bytes]],
    ) -> None:
        self._registrations = registrations
        self._discovery = discovery
        self._selector = selector
        self._heartbeat = heartbeat
        self.handlers: Mapping[str, ToolHandler] = {
            "register_agent": self.register_agent,
            "unregister_agent": self.unregister_agent,
            "discover_services": self.discover_services,
            "heartbeat": self.heartbeat,
            "get_agent_status": self.get_agent_status,
            "select_agent": self.select_agent,
        }
        self.routes = [
            Route("/mcp/tools", self.list_tools, methods=["GET"]),
            *(
                Route(f"/mcp/tools/{name}", _post_endpoint(handler), methods=["POST"])
                for name, handler in self.handlers.items()
                if name != "heartbeat"
            ),
        ]

    async def list_tools(self, _request: Request) -> Response:
        """GET /mcp/tools: list the MCP tools."""
        tools = [
            {
                "name": tool.name,
                "description": tool.description,
                "inputSchema": tool.input_schema,
                "annotations": tool.annotations,
            }
            for tool in TOOLS
        ]
        return json_response({"tools": tools})

    async def register_agent(self, arguments: dict[str, Any], sender: Sender) -> Response:
        """Register the agent described by `registration_data`."""
        reject_unknown(arguments, ("registration_data",))
        if "registration_data" not in arguments:
            raise _invalid_argument("registration_data", "the registration, an object")
        return success_response(
            **await register_document(
                self._registrations, arguments["registration_data"], *sender, "registration_data."
            )
        )

    async def unregister_agent(self, arguments: dict[str, Any], _sender: Sender) -> Response:
        """Unregister the agent with the id `agent_id`."""
        agent_id = _require_agent_id(arguments)
        return unregistration_response(agent_id, await self._registrations.unregister(agent_id))

    async def heartbeat(self, arguments: dict[str, Any], sender: Sender) -> Response:
        """Record a heartbeat of an agent."""
        return json_response(await self._heartbeat(orjson.dumps(arguments), sender.scope))

    async def get_agent_status(self, arguments: dict[str, Any], _sender: Sender) -> Response:
        """Return the agent with the id `agent_id`."""
        snapshot = await self._discovery.agent(_require_agent_id(arguments))
        return json_response(
            b'{"status":"success","agent":%s}' % snapshot.record.json, version=snapshot.record.agent.version
        )

    async def discover_services(self, arguments: dict[str, Any], _sender: Sender) -> Response:
        """Find the agents that match the search conditions in `query`."""
        reject_unknown(arguments, ("query",))
        query = arguments.get("query")
        if query is not None and not isinstance(query, dict):
            raise _invalid_argument("query", "an object")
        try:
            found = await self._discovery.agents(*parse_discover_query(query or {}))
        except MalformedRequest as error:
            raise error.with_path_prefix("query.") from error
        parts = await agent_list_parts(found, b'{"status":"success",')
        return json_response(b"".join(parts), version=found.version, staleness=found.staleness)

    async def select_agent(self, arguments: dict[str, Any], _sender: Sender) -> Response:
        """Select one agent to call for a capability."""
        selected = parse_select_document(arguments)
        selection = await self._selector.select(
            selected.dependency, selected.zone, selected.freshness, selected.exclude
        )
        return selection_response(selection, selected.dependency.capability)


def _post_endpoint(handler: ToolHandler) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that runs a tool with the JSON body as its arguments."""

    async def post(request: Request) -> Response:
        arguments = await read_object(request.scope, request.receive)
        return await handler(arguments, Sender(request.headers, request.scope))

    return post


def _require_agent_id(arguments: Mapping[str, Any]) -> str:
    reject_unknown(arguments, ("agent_id",))
    agent_id = arguments.get("agent_id")
    if not isinstance(agent_id, str) or not agent_id:
        raise _invalid_argument("agent_id", "an agent id, a string")
    return agent_id


def _invalid_argument(field: str, expected: str) -> UnprocessableRequest:
    return UnprocessableRequest.of([Detail(field, f"expected {expected}")])
