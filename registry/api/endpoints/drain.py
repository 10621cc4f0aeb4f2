"""Taking agents out of service and putting them back: one by its id, or many by a selector."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.api.error_responses import body_of
from registry.api.request.body import object_in, read_body, read_object
from registry.api.request.queries import drain_query
from registry.api.request.query_params import refuse_preconditions, refuse_unknown
from registry.api.response.responses import success
from registry.service.liveness.drain import Draining, Shift

_DONE = {
    True: "Agent {} drains: it lives on, but is not discovered until undrained",
    False: "Agent {} is in service",
}


class DrainRoutes:
    """Serves `drain` and `undrain`."""

    def __init__(self, draining: Draining) -> None:
        self._draining = draining
        # The paths of many stand beside agents' ids; an agent that is called `drain` has no POST of its own there.
        self.routes = [
            Route("/agents/drain", self.drain_many, methods=["POST"]),
            Route("/agents/undrain", self.undrain_many, methods=["POST"]),
            Route("/agents/{agent_id}/drain", self.drain, methods=["POST"]),
            Route("/agents/{agent_id}/undrain", self.undrain, methods=["POST"]),
        ]

    async def drain(self, request: Request) -> Response:
        """POST /agents/{id}/drain."""
        return await self._one(request, draining=True)

    async def undrain(self, request: Request) -> Response:
        """POST /agents/{id}/undrain."""
        return await self._one(request, draining=False)

    async def drain_many(self, request: Request) -> Response:
        """POST /agents/drain."""
        return await self._many(request, draining=True)

    async def undrain_many(self, request: Request) -> Response:
        """POST /agents/undrain."""
        return await self._many(request, draining=False)

    async def _one(self, request: Request, *, draining: bool) -> Response:
        refuse_preconditions(request.headers, "draining takes no precondition")
        body = await read_body(request.scope, request.receive)
        if body:
            refuse_unknown(object_in(body), ())
        agent_id: str = request.path_params["agent_id"]
        shift = await self._draining.shift(agent_id, draining=draining)
        message = _DONE[draining].format(agent_id)
        return success(agent_id=agent_id, draining=draining, **_shown(shift), message=message)

    async def _many(self, request: Request, *, draining: bool) -> Response:
        refuse_preconditions(request.headers, "draining takes no precondition")
        query = drain_query(await read_object(request.scope, request.receive))
        shifts = await self._draining.shift_all(query, draining=draining)
        results = {
            agent_id: {"status": "success", **_shown(shift)} if isinstance(shift, Shift) else body_of(shift)
            for agent_id, shift in shifts.items()
        }
        changed = sum(isinstance(shift, Shift) and shift.changed for shift in shifts.values())
        return success(draining=draining, results=results, count=len(results), changed=changed)


def _shown(shift: Shift) -> dict[str, object]:
    return {"changed": shift.changed, "resource_version": str(shift.version)}
