"""The MCP tools as POSTs: the seeds' forms, over the same services as the REST form."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.api.endpoints.agents import AgentRoutes
from registry.api.endpoints.dependencies import DependencyRoutes, select_schema
from registry.api.endpoints.heartbeat import HEARTBEAT_SCHEMA, Heartbeats
from registry.api.request.body import read_object
from registry.api.request.queries import discover_query
from registry.api.request.query_params import refuse_unknown
from registry.api.response.responses import answer, listing, success
from registry.errors import Detail, MalformedRequest, UnprocessableRequest
from registry.model.registration.parse import registration_schema
from registry.service.discovery.discovery import Discovery

_TEXT = {"type": "string"}
_AGENT_ID = {"type": "object", "properties": {"agent_id": _TEXT}, "required": ["agent_id"]}
_NAMES = {"type": "array", "items": _TEXT}
_QUERY = {
    "type": "object",
    "properties": {
        "namespace": _TEXT,
        "status": {**_TEXT, "description": "healthy unless given; any for all"},
        "draining": {"type": "boolean", "description": "false unless given, or status is any"},
        "agent_id": _TEXT,
        "capabilities": _NAMES,
        "capability": _TEXT,
        "match": {"enum": ["all", "any"], "description": "of the capabilities; all unless given"},
        "capability_category": _TEXT,
        "capability_stability": _TEXT,
        "capability_tags": {**_NAMES, "description": "all of them, on one capability"},
        "labels": {"type": "object", "additionalProperties": _TEXT},
        "label_selector": _TEXT,
        "version_constraint": {**_TEXT, "description": "for example >=1.0.0 or ^2.1"},
        "fuzzy_match": {"type": "boolean", "description": "names nearly as asked, best first"},
        "resource_version": {**_TEXT, "description": "0: whatever this replica holds; N: not older than N"},
    },
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool: what it does, for a model to read, what it takes, and what its caller may expect of it."""

    name: str
    description: str
    schema: Mapping[str, Any]
    annotations: Mapping[str, bool]


# MCP's hints. Nothing beyond the mesh is reached; what is done twice is done once.
_READS = {"readOnlyHint": True, "openWorldHint": False}
_WRITES = {"readOnlyHint": False, "destructiveHint": False, "idempotentHint": True, "openWorldHint": False}
_REMOVES = _WRITES | {"destructiveHint": True}

TOOLS = (
    Tool(
        "register_agent",
        "Register an agent in the mesh, or update what it says of itself",
        {
            "type": "object",
            "properties": {"registration_data": registration_schema()},
            "required": ["registration_data"],
        },
        # It may replace what another says of the same id.
        _REMOVES,
    ),
    Tool("unregister_agent", "Remove an agent from the mesh", _AGENT_ID, _REMOVES),
    Tool(
        "discover_services",
        "Find agents by capability, label, namespace, version and status",
        {"type": "object", "properties": {"query": _QUERY}},
        _READS,
    ),
    Tool("heartbeat", "Tell that an agent is alive", HEARTBEAT_SCHEMA, _WRITES),
    Tool("get_agent_status", "Show all that is known of an agent", _AGENT_ID, _READS),
    Tool("select_agent", "Select one agent to call for a capability", select_schema(), _READS),
)


Call = Callable[[dict[str, Any], Mapping[str, str]], Awaitable[Response]]
"""What answers a tool: takes its arguments and the headers, which may hold preconditions. Raises what it refuses."""


class ToolRoutes:
    """Serves the tools; the POST of `heartbeat` is served beside its REST form. `calls` has all of them by name."""

    def __init__(
        self, agents: AgentRoutes, discovery: Discovery, dependencies: DependencyRoutes, heartbeats: Heartbeats
    ) -> None:
        self._agents = agents
        self._discovery = discovery
        self._dependencies = dependencies
        self._heartbeats = heartbeats
        self.calls: Mapping[str, Call] = {
            "register_agent": self.register_agent,
            "unregister_agent": self.unregister_agent,
            "discover_services": self.discover_services,
            "heartbeat": self.heartbeat,
            "get_agent_status": self.get_agent_status,
            "select_agent": self.select_agent,
        }
        self.routes = [
            Route("/mcp/tools", self.list, methods=["GET"]),
            *(
                Route(f"/mcp/tools/{name}", _posted(call), methods=["POST"])
                for name, call in self.calls.items()
                if name != "heartbeat"
            ),
        ]

    async def list(self, _request: Request) -> Response:
        """GET /mcp/tools."""
        tools = [
            {
                "name": tool.name,
                "description": tool.description,
                "inputSchema": tool.schema,
                "annotations": tool.annotations,
            }
            for tool in TOOLS
        ]
        return answer(orjson.dumps({"tools": tools}))

    async def register_agent(self, given: dict[str, Any], headers: Mapping[str, str]) -> Response:
        """Register the agent under `registration_data`."""
        refuse_unknown(given, ("registration_data",))
        if "registration_data" not in given:
            raise _missing("registration_data", "the registration, an object")
        return success(**await self._agents.registered(given["registration_data"], headers, "registration_data."))

    async def unregister_agent(self, given: dict[str, Any], _headers: Mapping[str, str]) -> Response:
        """Remove the agent named by `agent_id`."""
        return await self._agents.unregistered(_agent_id(given))

    async def heartbeat(self, given: dict[str, Any], _headers: Mapping[str, str]) -> Response:
        """Take a heartbeat."""
        return answer(await self._heartbeats.beat(orjson.dumps(given)))

    async def get_agent_status(self, given: dict[str, Any], _headers: Mapping[str, str]) -> Response:
        """Show the agent named by `agent_id`."""
        sight = await self._discovery.agent(_agent_id(given))
        return answer(b'{"status":"success","agent":%s}' % sight.record.body, version=sight.record.agent.version)

    async def discover_services(self, given: dict[str, Any], _headers: Mapping[str, str]) -> Response:
        """Find the agents that match `query`."""
        refuse_unknown(given, ("query",))
        query = given.get("query")
        if query is not None and not isinstance(query, dict):
            raise _missing("query", "an object")
        try:
            found = await self._discovery.agents(*discover_query(query or {}))
        except MalformedRequest as error:
            raise error.within("query.") from error
        parts = listing(found, b'{"status":"success",')
        return answer(b"".join(parts), version=found.version, behind=found.behind)

    async def select_agent(self, given: dict[str, Any], _headers: Mapping[str, str]) -> Response:
        """Select one agent to call."""
        return await self._dependencies.selected(given)


def _posted(call: Call) -> Callable[[Request], Awaitable[Response]]:
    """Return what serves a tool as a POST with its arguments as the body."""

    async def post(request: Request) -> Response:
        return await call(await read_object(request.scope, request.receive), request.headers)

    return post


def _agent_id(given: Mapping[str, Any]) -> str:
    refuse_unknown(given, ("agent_id",))
    agent_id = given.get("agent_id")
    if not isinstance(agent_id, str) or not agent_id:
        raise _missing("agent_id", "the id of an agent, a string")
    return agent_id


def _missing(field: str, expected: str) -> UnprocessableRequest:
    return UnprocessableRequest(f"{field}: expected {expected}", [Detail(field, f"expected {expected}")])
