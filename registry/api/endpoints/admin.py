"""Endpoints for operators of a mesh."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.api.request.query_params import invalid, parse_query, single_text
from registry.api.response.json_responses import success_response
from registry.model.dependency_graph import ANY_NAMESPACE
from registry.service.health_report import StatusService


class AdminRoutes:
    """The HTTP routes for operators of a mesh; agents do not use these routes."""

    def __init__(self, status_service: StatusService) -> None:
        self._status_service = status_service
        self.routes = [Route("/admin/self-preservation/end", self.end_self_preservation, methods=["POST"])]

    async def end_self_preservation(self, request: Request) -> Response:
        """POST /admin/self-preservation/end: end self-preservation of one namespace, by default all."""
        params = parse_query(request.scope["query_string"], ("namespace",))
        namespace = single_text(params, "namespace")
        if namespace is None and "namespace" in params:
            raise invalid("namespace", "must not be empty; leave it out to end self-preservation of all namespaces")
        ended = await self._status_service.end_self_preservation(namespace)
        of_namespace = "" if namespace is None else f" of {namespace}"
        message = f"Self-preservation{of_namespace} is not active"
        if ended:
            message = f"Self-preservation{of_namespace} ended; overdue agents are transitioned by the next sweep"
        if namespace not in {None, ANY_NAMESPACE} and self._status_service.is_mesh_protected:
            message += "; the whole mesh is in self-preservation, which continues"
        return success_response(ended=bool(ended), message=message)
