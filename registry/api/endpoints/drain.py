"""Endpoints to drain and undrain agents: one by its id, or all that match a selector."""

from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.api.error_responses import error_body
from registry.api.request.body import parse_object, read_body, read_object
from registry.api.request.query_params import reject_preconditions, reject_unknown
from registry.api.request.query_parsers import parse_drain_query
from registry.api.response.json_responses import success_response
from registry.service.liveness.drain import DrainResult, DrainService

_MESSAGES = {
    True: "Agent {} is draining: it stays registered and is not discovered until undrained",
    False: "Agent {} is in service",
}


class DrainRoutes:
    """The HTTP routes that drain and undrain agents."""

    def __init__(self, drain_service: DrainService) -> None:
        self._drain_service = drain_service
        # `/agents/drain` cannot be mistaken for an agent with this id: there is no POST /agents/{agent_id}.
        self.routes = [
            Route(f"{path}/{action}", partial(handler, draining=draining), methods=["POST"])
            for path, handler in (("/agents", self.set_draining_by_query), ("/agents/{agent_id}", self.set_draining))
            for action, draining in (("drain", True), ("undrain", False))
        ]

    async def set_draining(self, request: Request, *, draining: bool) -> Response:
        """POST /agents/{id}/drain or undrain: take one agent out of service, or put it back."""
        reject_preconditions(request.headers, "not supported for drain and undrain")
        body = await read_body(request.scope, request.receive)
        if body:
            reject_unknown(parse_object(body), ())
        agent_id: str = request.path_params["agent_id"]
        result = await self._drain_service.set_draining(agent_id, draining=draining)
        message = _MESSAGES[draining].format(agent_id)
        return success_response(agent_id=agent_id, draining=draining, **_result_fields(result), message=message)

    async def set_draining_by_query(self, request: Request, *, draining: bool) -> Response:
        """POST /agents/drain or undrain: take all matching agents out of service, or put them back."""
        reject_preconditions(request.headers, "not supported for drain and undrain")
        query = parse_drain_query(await read_object(request.scope, request.receive))
        outcomes = await self._drain_service.set_draining_matching(query, draining=draining)
        results = {
            agent_id: {"status": "success", **_result_fields(outcome)}
            if isinstance(outcome, DrainResult)
            else error_body(outcome)
            for agent_id, outcome in outcomes.items()
        }
        changed = sum(isinstance(outcome, DrainResult) and outcome.changed for outcome in outcomes.values())
        return success_response(draining=draining, results=results, count=len(results), changed=changed)


def _result_fields(result: DrainResult) -> dict[str, object]:
    return {"changed": result.changed, "resource_version": str(result.version)}
