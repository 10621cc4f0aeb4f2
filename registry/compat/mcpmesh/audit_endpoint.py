"""GET /events: what was decided about an agent's dependencies, for `meshctl audit`."""

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.api.request.query_params import bad, one, parameters, whole
from registry.api.response.responses import answer
from registry.compat.mcpmesh.audit import Auditing

PARAMETERS = ("agent_id", "function_name", "limit")
_USUAL, _MOST = 50, 1000


class EventRoutes:
    """Serves events."""

    def __init__(self, auditing: Auditing) -> None:
        self._auditing = auditing
        self.routes = [Route("/events", self.events, methods=["GET"])]

    async def events(self, request: Request) -> Response:
        """GET /events: those of one agent, the newest first; of an agent that nobody knows there are none."""
        given = parameters(request.scope["query_string"], PARAMETERS)
        agent_id = one(given, "agent_id")
        if agent_id is None:
            raise bad("agent_id", "is required: events are kept agent by agent")
        limit = whole(given, "limit", 1, _MOST) or _USUAL
        found = await self._auditing.events(agent_id, one(given, "function_name"), limit)
        return answer(orjson.dumps({"count": len(found), "events": found}))
