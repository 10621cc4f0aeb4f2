"""The MCP tools as POSTs: the seeds' forms, over the same services as the REST form."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.api.agents import AgentRoutes
from registry.api.answers import answer, listing, success
from registry.api.body import read_object
from registry.api.dependencies import select_schema
from registry.api.heartbeat import HEARTBEAT_SCHEMA
from registry.api.parameters import refuse_unknown
from registry.api.queries import discover_query
from registry.errors import Detail, MalformedRequest, UnprocessableRequest
from registry.model.registration import registration_schema
from registry.service.discovery import Discovery

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
    """One tool: what it does, for a model to read, and what it takes."""

    name: str
    description: str
    schema: Mapping[str, Any]


TOOLS = (
    Tool(
        "register_agent",
        "Register an agent in the mesh, or update what it says of itself",
        {
            "type": "object",
            "properties": {"registration_data": registration_schema()},
            "required": ["registration_data"],
        },
    ),
    Tool("unregister_agent", "Remove an agent from the mesh", _AGENT_ID),
    Tool(
        "discover_services",
        "Find agents by capability, label, namespace, version and status",
        {"type": "object", "properties": {"query": _QUERY}},
    ),
    Tool("heartbeat", "Tell that an agent is alive", HEARTBEAT_SCHEMA),
    Tool("get_agent_status", "Show all that is known of an agent", _AGENT_ID),
    Tool("select_agent", "Select one agent to call for a capability", select_schema()),
)


class ToolRoutes:
    """Serves the tools but `heartbeat` and `select_agent`, which are served beside their REST forms."""

    def __init__(self, agents: AgentRoutes, discovery: Discovery) -> None:
        self._agents = agents
        self._discovery = discovery
        calls: Mapping[str, Callable[[Request], Awaitable[Response]]] = {
            "register_agent": self.register_agent,
            "unregister_agent": self.unregister_agent,
            "discover_services": self.discover_services,
            "get_agent_status": self.get_agent_status,
        }
        self.routes = [
            Route("/mcp/tools", self.list, methods=["GET"]),
            *(Route(f"/mcp/tools/{name}", call, methods=["POST"]) for name, call in calls.items()),
        ]

    async def list(self, _request: Request) -> Response:
        """GET /mcp/tools."""
        tools = [{"name": tool.name, "description": tool.description, "inputSchema": tool.schema} for tool in TOOLS]
        return answer(orjson.dumps({"tools": tools}))

    async def register_agent(self, request: Request) -> Response:
        """Register the agent under `registration_data`."""
        document = await read_object(request.scope, request.receive)
        refuse_unknown(document, ("registration_data",))
        if "registration_data" not in document:
            raise _missing("registration_data", "the registration, an object")
        return success(**await self._agents.registered(document["registration_data"], request, "registration_data."))

    async def unregister_agent(self, request: Request) -> Response:
        """Remove the agent named by `agent_id`."""
        return await self._agents.unregistered(await _agent_id(request))

    async def get_agent_status(self, request: Request) -> Response:
        """Show the agent named by `agent_id`."""
        sight = await self._discovery.agent(await _agent_id(request))
        return answer(b'{"status":"success","agent":%s}' % sight.record.body, version=sight.record.agent.version)

    async def discover_services(self, request: Request) -> Response:
        """Find the agents that match `query`."""
        document = await read_object(request.scope, request.receive)
        refuse_unknown(document, ("query",))
        query = document.get("query")
        if query is not None and not isinstance(query, dict):
            raise _missing("query", "an object")
        try:
            found = await self._discovery.agents(*discover_query(query or {}))
        except MalformedRequest as error:
            raise error.within("query.") from error
        parts = listing(found, b'{"status":"success",')
        return answer(b"".join(parts), version=found.version, behind=found.behind)


async def _agent_id(request: Request) -> str:
    document = await read_object(request.scope, request.receive)
    refuse_unknown(document, ("agent_id",))
    agent_id = document.get("agent_id")
    if not isinstance(agent_id, str) or not agent_id:
        raise _missing("agent_id", "the id of an agent, a string")
    return agent_id


def _missing(field: str, expected: str) -> UnprocessableRequest:
    return UnprocessableRequest(f"{field}: expected {expected}", [Detail(field, f"expected {expected}")])
