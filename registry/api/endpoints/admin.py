"""What people do who look after a mesh."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.api.response.responses import success
from registry.service.status import Overview


class AdminRoutes:
    """Calls that agents have no use for."""

    def __init__(self, overview: Overview) -> None:
        self._overview = overview
        self.routes = [Route("/admin/sweep/release", self.release, methods=["POST"])]

    async def release(self, _request: Request) -> Response:
        """POST /admin/sweep/release: end the hold of a mass silence, if one is on."""
        released = await self._overview.release()
        message = "The hold is over; all overdue agents go within a second or so" if released else "No hold is on"
        return success(released=released, message=message)
