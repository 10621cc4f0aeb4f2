"""GET /events: the audit events of one agent and the life-cycle events of all agents, in the form of mcp-mesh."""

from heapq import merge
from operator import itemgetter
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.api.request.query_params import QueryParams, comma_list, invalid, parse_query, single, single_text
from registry.api.response.json_responses import json_response
from registry.compat.mcpmesh.errors import with_mcpmesh_errors
from registry.compat.mcpmesh.lifecycle_events import LIFECYCLE_EVENT_TYPES, LifecycleEvents
from registry.compat.mcpmesh.resolution_audit import DEPENDENCY_EVENT_TYPES, ResolutionAudit

EVENT_PARAMS: Final = {
    "type": "of these types, comma-separated",
    "agent_id": "of this agent; required for events of dependencies",
    "function_name": "of the dependencies of this function alone",
    "limit": "how many, most recent first",
}
"""The query parameters of GET /events, with their descriptions in the OpenAPI document."""
_EVENT_TYPES: Final = DEPENDENCY_EVENT_TYPES | LIFECYCLE_EVENT_TYPES
_DEFAULT_EVENTS: Final = 50
_MAX_EVENTS: Final = 1000


class EventRoutes:
    """The HTTP route for `meshctl audit`, and for clients that read what happened to agents."""

    def __init__(self, audit: ResolutionAudit, lifecycle: LifecycleEvents) -> None:
        self._audit = audit
        self._lifecycle = lifecycle
        self.routes = [Route("/events", with_mcpmesh_errors(self.events), methods=["GET"])]

    async def events(self, request: Request) -> Response:
        """GET /events: list events, the newest first; an unknown agent has no events."""
        params = parse_query(request.scope["query_string"], EVENT_PARAMS)
        agent_id, function = single_text(params, "agent_id"), single_text(params, "function_name")
        limit = _limit(params)
        types = _event_types(params)
        changes: list[dict[str, Any]] = []
        resolutions: list[dict[str, Any]] = []
        if function is None and types & LIFECYCLE_EVENT_TYPES:
            changes = await self._lifecycle.newest(types, agent_id, limit)
        if agent_id is not None and types & DEPENDENCY_EVENT_TYPES:
            events = await self._audit.events(agent_id, function, limit)
            resolutions = [event for event in events if event["event_type"] in types]
        elif types <= DEPENDENCY_EVENT_TYPES:
            raise invalid("agent_id", "is required: the events of dependencies are stored per agent")
        # Of one time, the resolution comes first: it follows the change.
        found = list(merge(resolutions, changes, key=itemgetter("timestamp"), reverse=True))[:limit]
        return json_response({"count": len(found), "events": found})


def _event_types(params: QueryParams) -> frozenset[str]:
    """Return the requested types of events, all by default."""
    types = frozenset(comma_list(params, "type")) or _EVENT_TYPES
    if not types <= _EVENT_TYPES:
        raise invalid("type", f"expected some of {', '.join(sorted(_EVENT_TYPES))}")
    return types


def _limit(params: QueryParams) -> int:
    """Return the number of events to return: the nearest possible number to the requested one."""
    text = single(params, "limit") or str(_DEFAULT_EVENTS)
    try:
        return min(max(int(text), 1), _MAX_EVENTS)
    except ValueError:
        raise invalid("limit", f"expected a whole number, got {text[:60]!r}") from None
