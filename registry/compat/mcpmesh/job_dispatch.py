"""Job dispatch of mcp-mesh: a pause flag for the whole mesh, and the calls that read jobs, which find none.

The registry stores no jobs. Agents of the mcp-mesh SDK poll for them, meshui lists them, and meshctl reads and sets the
pause flag.
"""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.api.request.body import parse_object, read_body, read_object
from registry.api.request.query_params import reject_unknown
from registry.api.response.json_responses import json_response
from registry.compat.mcpmesh.errors import error_body, with_mcpmesh_errors
from registry.store.keys import Keys
from registry.store.redis.errors import raise_for_error
from registry.store.redis.pipeline import Pipeline


class JobDispatch:
    """The flag that pauses job dispatch, one Redis key for the mesh; `acks` Redis replicas must acknowledge a write."""

    def __init__(self, keys: Keys, pipeline: Pipeline, acks: int = 0) -> None:
        self._key = keys.key("jobs_paused")
        self._pipeline = pipeline
        self._acks = acks

    async def is_paused(self) -> bool:
        """Return whether job dispatch is paused. Raises StoreUnavailable."""
        (reply,) = await self._pipeline.execute([("EXISTS", self._key)])
        return bool(raise_for_error(reply))

    async def set_paused(self, *, paused: bool) -> None:
        """Pause or resume job dispatch; a repeated call changes nothing. Raises StoreUnavailable."""
        command = ("SET", self._key, 1) if paused else ("DEL", self._key)
        (reply,) = await self._pipeline.execute_write([command], acks=self._acks)
        raise_for_error(reply)


class JobRoutes:
    """The HTTP routes for the job commands of meshctl, for meshui, and for agents that claim jobs."""

    def __init__(self, jobs: JobDispatch) -> None:
        self._jobs = jobs
        self.routes = [
            Route("/admin/drain", with_mcpmesh_errors(self.pause_state), methods=["GET", "POST", "DELETE"]),
            Route("/jobs", self.jobs, methods=["GET"]),
            Route("/jobs/claim", with_mcpmesh_errors(self.claim), methods=["POST"]),
            Route("/jobs/{job_id}", self.job, methods=["GET"]),
        ]

    async def pause_state(self, request: Request) -> Response:
        """GET, POST and DELETE /admin/drain: read, set and clear the flag that pauses job dispatch."""
        body = await read_body(request.scope, request.receive)
        if body:
            reject_unknown(parse_object(body), ())
        if request.method in ("POST", "DELETE"):
            paused = request.method == "POST"
            await self._jobs.set_paused(paused=paused)
        else:
            paused = await self._jobs.is_paused()
        return json_response({"draining": paused, "live_claims": 0})

    async def jobs(self, _request: Request) -> Response:
        """GET /jobs: list no jobs, whatever the filters are."""
        return json_response(b'{"jobs":[],"next_cursor":null}')

    async def job(self, request: Request) -> Response:
        """GET /jobs/{id}: respond that there is no such job."""
        return json_response(error_body(f"job not found: {request.path_params['job_id']}"), status=404)

    async def claim(self, request: Request) -> Response:
        """POST /jobs/claim: respond that there are no jobs to claim."""
        document = await read_object(request.scope, request.receive)
        if not document.get("capability"):
            return json_response(error_body("capability is required"), status=400)
        return json_response(b'{"claimed":[]}')
