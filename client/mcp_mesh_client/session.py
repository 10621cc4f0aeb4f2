"""What every call of a client shares: the way out, the answers kept, the watches open, and whether it is closed."""

import weakref
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from mcp_mesh_client.cached_read import Reading
from mcp_mesh_client.config import Conduct
from mcp_mesh_client.endpoints import Endpoints
from mcp_mesh_client.errors import ClientClosed
from mcp_mesh_client.filters import Pairs
from mcp_mesh_client.response_cache import Kept
from mcp_mesh_client.retry import Caller, answer_of
from mcp_mesh_client.transport import Ask, Reply, Wire
from mcp_mesh_client.types.agents import Refusal
from mcp_mesh_client.validation import body_bytes
from mcp_mesh_client.watch import Watch
from mcp_mesh_client.watch_stream import Following

T = TypeVar("T")

_FROM_MEMORY: Pairs = (("resource_version", "0"),)


class Calls:
    """Makes calls until it is closed, after which each raises ClientClosed.

    `kind` is what a call answers, unless it is refused. What a call raises is said of RegistryClient.
    """

    def __init__(self, conduct: Conduct) -> None:
        self.conduct = conduct
        self._endpoints = Endpoints(conduct.urls)
        self._wire = Wire(conduct.token)
        self.caller = Caller(conduct, self._endpoints, self._wire)
        self._kept = Kept(conduct.cache_size, conduct.cache_ttl)
        self._reading = Reading(self.caller, self._kept, conduct)
        self._watches = weakref.WeakSet[Watch]()
        self._closed = False

    async def close(self) -> None:
        """End all watches and close all connections."""
        self._closed = True
        for watch in tuple(self._watches):
            await watch.close()
        await self._wire.close()

    async def write(
        self,
        kind: type[T],
        method: str,
        path: str,
        document: Mapping[str, Any] | None = None,
        *,
        repeatable: bool = True,
    ) -> T | Refusal:
        """Change something; what was read before is asked for anew then."""
        body = None if document is None else body_bytes(document)
        try:
            return await self.answer(kind, Ask(method, path, body=body, repeatable=repeatable))
        finally:
            self._kept.distrust()

    async def read(self, kind: type[T], path: str, query: Pairs = (), *, longer: float = 0.0) -> T | Refusal:
        """Read what a replica can tell from memory, too, unless the caller said how fresh it must be."""
        ask = Ask("GET", path, query, longer=longer)
        if not {"resource_version", "continue", "wait"}.isdisjoint(name for name, _ in query):
            return await self.answer(kind, ask)
        return await self.degradable(kind, ask, Ask("GET", path, query + _FROM_MEMORY))

    async def find(
        self, kind: type[T], tool: str, document: Mapping[str, Any], inside: str | None = None, *, keep: bool = True
    ) -> T | Refusal:
        """Read by a tool; what is asked for is the document, or stands `inside` it under that name."""

        def ask(asked: Mapping[str, Any]) -> Ask:
            body = body_bytes(asked if inside is None else {inside: asked})
            return Ask("POST", f"/mcp/tools/{tool}", body=body)

        if "resource_version" in document:
            return await self.answer(kind, ask(document))
        from_memory = ask({**document, "resource_version": "0"})
        return await self.degradable(kind, ask(document), from_memory, keep=keep)

    async def degradable(self, kind: type[T], ask: Ask, from_memory: Ask, *, keep: bool = True) -> T | Refusal:
        """Read fresh, else by `from_memory`, else from what was answered before."""
        self._check_open()
        return _as(kind, await self._reading.read(ask, from_memory, keep=keep))

    async def answer(self, kind: type[T], ask: Ask, *, eager: bool = False) -> T | Refusal:
        """Make a call as it is."""
        return _as(kind, answer_of(await self.reply(ask, eager=eager)))

    async def reply(self, ask: Ask, *, tries: int | None = None, eager: bool = False) -> Reply:
        """Make a call, and return what came back unread."""
        self._check_open()
        return await self.caller.call(ask, tries=tries, eager=eager)

    def watch(self, filters: Pairs, since: str | None, *, told: bool, bookmarks: bool) -> Watch:
        """Open a watch, which does nothing until it is asked for events."""
        self._check_open()
        following = Following(self.conduct, self._endpoints, self._wire, self.caller, filters, since, told=told)
        watch = Watch(following, bookmarks=bookmarks)
        self._watches.add(watch)
        return watch

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed("This client was closed; make another one")


def _as(_kind: type[T], answer: dict[str, Any]) -> T | Refusal:
    """Return what the registry answered, which is of this kind or a refusal: the registry keeps its shapes."""
    return cast("T | Refusal", answer)
