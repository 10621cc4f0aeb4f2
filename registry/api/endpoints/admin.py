"""Endpoints for operators of a mesh."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.api.response.json_responses import success_response
from registry.service.health_report import StatusService


class AdminRoutes:
    """The HTTP routes for operators of a mesh; agents do not use these routes."""

    def __init__(self, status_service: StatusService) -> None:
        self._status_service = status_service
        self.routes = [Route("/admin/self-preservation/end", self.end_self_preservation, methods=["POST"])]

    async def end_self_preservation(self, _request: Request) -> Response:
        """POST /admin/self-preservation/end: end self-preservation if it is active."""
        ended = await self._status_service.end_self_preservation()
        message = "Self-preservation is not active"
        if ended:
            message = "Self-preservation ended; overdue agents are transitioned by the next sweep"
        return success_response(ended=ended, message=message)
