"""Whether jobs are handed out, and to whom: the registry keeps no jobs, so that it is nobody."""

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.api.request.body import object_in, read_body, read_object
from registry.api.request.query_params import refuse_unknown
from registry.api.response.responses import answer
from registry.compat.mcpmesh.errors import refusal
from registry.compat.mcpmesh.jobs import Dispatching


class DispatchRoutes:
    """Serves `meshctl registry status`, `drain` and `resume`, and agents that look for jobs."""

    def __init__(self, dispatching: Dispatching) -> None:
        self._dispatching = dispatching
        self.routes = [
            Route("/admin/drain", self.drain, methods=["GET", "POST", "DELETE"]),
            Route("/jobs/claim", self.claim, methods=["POST"]),
        ]

    async def drain(self, request: Request) -> Response:
        """GET, POST, DELETE /admin/drain: tell, stop, go on; for the whole fleet, until it is told otherwise."""
        body = await read_body(request.scope, request.receive)
        if body:
            refuse_unknown(object_in(body), ())
        if request.method in ("POST", "DELETE"):
            paused = request.method == "POST"
            await self._dispatching.pause(paused=paused)
        else:
            paused = await self._dispatching.is_paused()
        return answer(orjson.dumps({"draining": paused, "live_claims": 0}))

    async def claim(self, request: Request) -> Response:
        """POST /jobs/claim: nothing is claimed."""
        document = await read_object(request.scope, request.receive)
        if not document.get("capability"):
            return answer(refusal("capability is required"), status=400)
        return answer(b'{"claimed":[]}')
