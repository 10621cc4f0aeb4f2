"""A router that looks up most paths in a dict, which costs a tenth of matching patterns."""

import re
from collections.abc import Iterable
from typing import Final

from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from registry.api.path_suggestions import PathSuggestions
from registry.api.request_checks import decode_path_param

# A path whose only parameter is its last segment.
_LAST_SEGMENT_PARAM: Final = re.compile(r"(/[^{}]*)/\{(\w+)\}")


class FastRouter:
    """Routes requests by path: first with a dict, then with the patterns of the routes, as Starlette's router does."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = routes = list(routes)
        self._suggestions = PathSuggestions(routes)
        self._exact = {
            (method, route.path): route
            for route in reversed(routes)
            if not route.param_convertors
            for method in route.methods or ()
        }
        self._by_parent = {
            (method, match[1]): (route, match[2])
            for route in reversed(routes)
            if (match := _LAST_SEGMENT_PARAM.fullmatch(route.path))
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request to the application of its path."""
        method, path = scope["method"], scope["path"]
        route = self._exact.get((method, path))
        if route is not None:
            scope["path_params"] = {}
        else:
            parent, _, last = path.rpartition("/")
            match = self._by_parent.get((method, parent)) if last else None
            if match is None:
                await self._search(scope, receive, send)
                return
            route, name = match
            scope["path_params"] = {name: last}
            if "%" in last:
                self._decode_params(scope)
        scope["route"] = route
        await route.app(scope, receive, send)

    async def _search(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route one request with patterns. Raises HTTPException for an unknown path or a method that is not allowed."""
        found: tuple[Route, Scope] | None = None
        for route in self._routes:
            match, params = route.matches(scope)
            if match is Match.FULL or (match is Match.PARTIAL and found is None):
                found = route, params
            if match is Match.FULL:
                break
        if found is None:
            raise self._suggestions.explain(HTTPException(404), scope["method"], scope["path"])
        scope["route"] = found[0]
        scope.update(found[1])
        if "%" in scope["path"]:
            self._decode_params(scope)
        try:
            await found[0].handle(scope, receive, send)
        except HTTPException as error:
            raise self._suggestions.explain(error, scope["method"], scope["path"]) from error

    def _decode_params(self, scope: Scope) -> None:
        """Decode the path parameters of a request. Raises HTTPException for one that must not be encoded."""
        for name, value in scope["path_params"].items():
            decoded = decode_path_param(name, value)
            if decoded is None:
                raise self._suggestions.explain(HTTPException(404), scope["method"], scope["path"])
            scope["path_params"][name] = decoded


class MethodRouter:
    """One route for all HTTP methods of a path, so that a 405 names all of them; HEAD is served as GET."""

    def __init__(self, **apps: ASGIApp) -> None:
        self.methods = list(apps)
        self._apps = apps | ({"HEAD": apps["GET"]} if "GET" in apps else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request to the application of its HTTP method."""
        await self._apps[scope["method"]](scope, receive, send)
