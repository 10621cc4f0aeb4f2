"""The fast router finds the same endpoint as the router of Starlette."""

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry.api.router import FastRouter, MethodRouter


class RecordingApp:
    """An app that records its name and its path parameters when it is called."""

    def __init__(self, name: str, seen: list[Any]) -> None:
        self._name, self._seen = name, seen

    async def __call__(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        """Record the call."""
        self._seen.append((self._name, dict(scope["path_params"])))


def routes(seen: list[Any]) -> list[Route]:
    """Return routes of every kind that the registry has, some of which hide others."""
    many = MethodRouter(GET=RecordingApp("list", seen), POST=RecordingApp("add", seen))
    one = MethodRouter(GET=RecordingApp("show", seen), DELETE=RecordingApp("drop", seen))
    return [
        Route("/a", many, methods=many.methods),
        Route("/a/batch", RecordingApp("batch", seen), methods=["POST"]),
        Route("/a/{id}", one, methods=one.methods),
        Route("/a/{id}/status", RecordingApp("status", seen), methods=["GET"]),
        Route("/a/{id}", RecordingApp("shadowed", seen), methods=["GET", "PUT"]),
        Route("/b/{id}", RecordingApp("keep", seen), methods=["HEAD"]),
        Route("/b", RecordingApp("beat", seen), methods=["POST"]),
        Route("/b/{rest:path}", RecordingApp("rest", seen), methods=["PATCH"]),
        Route("/", RecordingApp("root", seen)),
    ]


async def route_and_call(app: ASGIApp, seen: list[Any], method: str, path: str) -> Sequence[Any]:
    """Return the called app, or the status of the error with its allowed methods."""
    seen.clear()
    sent: list[Any] = []

    async def send(message: Message) -> None:
        sent.append((message.get("status"), dict(message.get("headers", ())).get(b"allow")))

    async def receive() -> Message:
        return {"type": "http.request"}

    scope: Scope = {"type": "http", "method": method, "path": path, "headers": [], "query_string": b"", "app": app}
    try:
        await app(scope, receive, send)
    except HTTPException as error:
        return [error.status_code, sorted((error.headers or {}).get("Allow", "").split(", "))]
    return [*seen, *sent[:1]]


PATHS = st.lists(st.sampled_from(["", "a", "b", "batch", "status", "x y", "é", "{id}"]), max_size=4).map(
    lambda parts: "/" + "/".join(parts)
)


@given(st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]), PATHS)
async def test_the_fast_router_finds_the_same_endpoint(method: str, path: str) -> None:
    """For any method and path, including errors."""
    seen: list[Any] = []
    fast, slow = FastRouter(routes(seen)), Router(routes(seen), redirect_slashes=False)

    assert await route_and_call(fast, seen, method, path) == await route_and_call(slow, seen, method, path)
