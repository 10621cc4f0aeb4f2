"""What people do who look after a mesh."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.api.response.responses import success_response
from registry.service.status import StatusService


class AdminRoutes:
    """Calls that agents have no use for."""

    def __init__(self, status_service: StatusService) -> None:
        self._status_service = status_service
        self.routes = [Route("/admin/sweep/release", self.end_self_preservation, methods=["POST"])]

    async def end_self_preservation(self, _request: Request) -> Response:
        """POST /admin/sweep/release: end the hold of a mass silence, if one is on."""
        released = await self._status_service.end_self_preservation()
        message = "The hold is over; all overdue agents go within a second or so" if released else "No hold is on"
        return success_response(released=released, message=message)
