"""Whether jobs are handed out, and to whom: the registry keeps no jobs, so that it is nobody."""

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.api.request.body import parse_object, read_body, read_object
from registry.api.request.query_params import reject_unknown
from registry.api.response.responses import json_response
from registry.compat.mcpmesh.errors import error_body
from registry.compat.mcpmesh.jobs import JobDispatch


class JobRoutes:
    """Serves `meshctl registry status`, `pause_state` and `resume`, and agents that look for jobs."""

    def __init__(self, jobs: JobDispatch) -> None:
        self._jobs = jobs
        self.routes = [
            Route("/admin/drain", self.pause_state, methods=["GET", "POST", "DELETE"]),
            Route("/jobs/claim", self.claim, methods=["POST"]),
        ]

    async def pause_state(self, request: Request) -> Response:
        """GET, POST, DELETE /admin/drain: tell, stop, go on; for the whole fleet, until it is told otherwise."""
        body = await read_body(request.scope, request.receive)
        if body:
            reject_unknown(parse_object(body), ())
        if request.method in ("POST", "DELETE"):
            paused = request.method == "POST"
            await self._jobs.pause(paused=paused)
        else:
            paused = await self._jobs.is_paused()
        return json_response(orjson.dumps({"draining": paused, "live_claims": 0}))

    async def claim(self, request: Request) -> Response:
        """POST /jobs/claim: nothing is claimed."""
        document = await read_object(request.scope, request.receive)
        if not document.get("capability"):
            return json_response(error_body("capability is required"), status=400)
        return json_response(b'{"claimed":[]}')
