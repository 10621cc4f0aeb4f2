"""The quick way from a path to what serves it ends where the slow one would."""

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry.api.router import FastRouter, MethodRouter


class Served:
    """An app that notes by which name and with which parameters it was called."""

    def __init__(self, name: str, seen: list[Any]) -> None:
        self._name, self._seen = name, seen

    async def __call__(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        """Note the call."""
        self._seen.append((self._name, dict(scope["path_params"])))


def routes(seen: list[Any]) -> list[Route]:
    """Return routes of every shape the registry has, some in the way of others."""
    many = MethodRouter(GET=Served("list", seen), POST=Served("add", seen))
    one = MethodRouter(GET=Served("show", seen), DELETE=Served("drop", seen))
    return [
        Route("/a", many, methods=many.methods),
        Route("/a/batch", Served("batch", seen), methods=["POST"]),
        Route("/a/{id}", one, methods=one.methods),
        Route("/a/{id}/status", Served("status", seen), methods=["GET"]),
        Route("/a/{id}", Served("shadowed", seen), methods=["GET", "PUT"]),
        Route("/b/{id}", Served("keep", seen), methods=["HEAD"]),
        Route("/b", Served("beat", seen), methods=["POST"]),
        Route("/b/{rest:path}", Served("rest", seen), methods=["PATCH"]),
        Route("/", Served("root", seen)),
    ]


async def called(app: ASGIApp, seen: list[Any], method: str, path: str) -> Sequence[Any]:
    """Return what was called, or the status that a refusal has, with the methods it names."""
    seen.clear()
    sent: list[Any] = []

    async def send(message: Message) -> None:
        sent.append((message.get("status"), dict(message.get("headers", ())).get(b"allow")))

    async def receive() -> Message:
        return {"type": "http.request"}

    scope: Scope = {"type": "http", "method": method, "path": path, "headers": [], "query_string": b"", "root_path": ""}
    await app(scope, receive, send)
    return [*seen, *sent[:1]]


PATHS = st.lists(st.sampled_from(["", "a", "b", "batch", "status", "x y", "é", "{id}"]), max_size=4).map(
    lambda parts: "/" + "/".join(parts)
)


@given(st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]), PATHS)
async def test_what_the_dict_finds_is_what_the_router_would_find(method: str, path: str) -> None:
    """Whatever is asked for, refusals too."""
    seen: list[Any] = []
    quick, slow = FastRouter(routes(seen)), Router(routes(seen), redirect_slashes=False)

    assert await called(quick, seen, method, path) == await called(slow, seen, method, path)
