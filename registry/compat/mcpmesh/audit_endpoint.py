"""GET /events: what was decided about an agent's dependencies, for `meshctl audit`."""

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.api.request.query_params import integer, invalid, parse_query, single
from registry.api.response.responses import json_response
from registry.compat.mcpmesh.audit import ResolutionAudit

EVENT_PARAMS = ("agent_id", "function_name", "limit")
_DEFAULT_EVENTS, _MAX_EVENTS = 50, 1000


class AuditRoutes:
    """Serves events."""

    def __init__(self, audit: ResolutionAudit) -> None:
        self._audit = audit
        self.routes = [Route("/events", self.events, methods=["GET"])]

    async def events(self, request: Request) -> Response:
        """GET /events: those of one agent, the newest first; of an agent that nobody knows there are none."""
        given = parse_query(request.scope["query_string"], EVENT_PARAMS)
        agent_id = single(given, "agent_id")
        if agent_id is None:
            raise invalid("agent_id", "is required: events are kept agent by agent")
        limit = integer(given, "limit", 1, _MAX_EVENTS) or _DEFAULT_EVENTS
        found = await self._audit.events(agent_id, single(given, "function_name"), limit)
        return json_response(orjson.dumps({"count": len(found), "events": found}))
