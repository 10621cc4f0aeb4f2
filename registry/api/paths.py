"""Paths to what serves them: those without parameters from a dict, which costs a tenth of trying every pattern."""

from collections.abc import Iterable

from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send


class Paths:
    """Serves each request by its route; what the dict does not know is the router's, refusals too."""

    def __init__(self, routes: Iterable[Route]) -> None:
        routes = list(routes)
        self._router = Router(routes, redirect_slashes=False)
        self._exact = {
            (method, route.path): route
            for route in reversed(routes)
            if not route.param_convertors
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        route = self._exact.get((scope["method"], scope["path"]))
        if route is None:
            await self._router(scope, receive, send)
            return
        scope["route"] = route
        scope["path_params"] = {}
        await route.app(scope, receive, send)


class Methods:
    """One path, another app for each method, so that a 405 can name them all. HEAD is a GET."""

    def __init__(self, **apps: ASGIApp) -> None:
        self.methods = list(apps)
        self._apps = apps | ({"HEAD": apps["GET"]} if "GET" in apps else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, whose method is one of them."""
        await self._apps[scope["method"]](scope, receive, send)
