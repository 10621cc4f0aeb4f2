"""The state shared by all calls of a client: connections, cache, open watches, and whether it is closed."""

import weakref
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from mcp_mesh_client.config import ClientConfig
from mcp_mesh_client.errors import ClientClosed, RequestRejected
from mcp_mesh_client.filters import QueryPairs
from mcp_mesh_client.keep_alive import KeepAlive
from mcp_mesh_client.read_fallbacks import CachedReader
from mcp_mesh_client.replica_endpoints import Endpoints
from mcp_mesh_client.request_validation import encode_json
from mcp_mesh_client.response_cache import ResponseCache
from mcp_mesh_client.retry import RetryingCaller, parse_response
from mcp_mesh_client.transport import HttpTransport, Request, Response
from mcp_mesh_client.types.agents import ErrorResponse
from mcp_mesh_client.watch import Watch
from mcp_mesh_client.watch_stream import WatchStream

T = TypeVar("T")

_ANY_VERSION: QueryPairs = (("resource_version", "0"),)


class ClientSession:
    """Sends calls until the session is closed; later calls raise ClientClosed.

    `response_type` is the type of the response, unless the request is rejected. RegistryClient documents the errors.
    """

    def __init__(self, config: ClientConfig) -> None:
        self.config: ClientConfig = config
        self._endpoints = Endpoints(config.urls)
        self._transport = HttpTransport(config.token)
        self.caller: RetryingCaller = RetryingCaller(config, self._endpoints, self._transport)
        self._cache = ResponseCache(config.cache_size, config.cache_ttl)
        self._cached_reader = CachedReader(self.caller, self._cache, config)
        self._open = weakref.WeakSet[Watch | KeepAlive]()
        self._closed = False

    async def close(self) -> None:
        """End all watches, remove the agents that are kept alive, and close all connections."""
        for each in tuple(self._open):
            if isinstance(each, KeepAlive):
                await each.close()
        self._closed = True
        for each in tuple(self._open):
            await each.close()
        await self._transport.close()

    async def write(
        self,
        response_type: type[T],
        method: str,
        path: str,
        document: Mapping[str, Any] | None = None,
        *,
        repeatable: bool = True,
    ) -> T | ErrorResponse:
        """Send a request that changes the registry, and mark all cached responses as outdated."""
        body = None if document is None else encode_json(document)
        try:
            return await self.send(response_type, Request(method, path, body=body, repeatable=repeatable))
        finally:
            self._cache.invalidate_all()

    async def read(
        self, response_type: type[T], path: str, query: QueryPairs = (), *, extra_timeout: float = 0.0
    ) -> T | ErrorResponse:
        """Send a GET request; use the cache or a stale response if needed, unless the query forbids outdated data."""
        request = Request("GET", path, query, extra_timeout=extra_timeout)
        if not {"resource_version", "continue", "wait"}.isdisjoint(name for name, _ in query):
            return await self.send(response_type, request)
        return await self.read_with_fallback(response_type, request, Request("GET", path, query + _ANY_VERSION))

    async def call_tool(
        self,
        response_type: type[T],
        tool: str,
        document: Mapping[str, Any],
        argument: str | None = None,
        *,
        use_cache: bool = True,
    ) -> T | ErrorResponse:
        """Call an MCP tool of the registry that only reads; its input is `document`, or `{argument: document}`."""

        def tool_request(content: Mapping[str, Any]) -> Request:
            body = encode_json(content if argument is None else {argument: content})
            return Request("POST", f"/mcp/tools/{tool}", body=body)

        if "resource_version" in document:
            return await self.send(response_type, tool_request(document))
        stale_request = tool_request({**document, "resource_version": "0"})
        return await self.read_with_fallback(response_type, tool_request(document), stale_request, use_cache=use_cache)

    async def read_with_fallback(
        self, response_type: type[T], request: Request, stale_request: Request, *, use_cache: bool = True
    ) -> T | ErrorResponse:
        """Return a fresh response; if that fails, the response to `stale_request`; if that fails, a cached response."""
        self._check_open()
        document = await self._cached_reader.read(request, stale_request, use_cache=use_cache)
        return _typed(response_type, self._checked(document))

    async def send(self, response_type: type[T], request: Request, *, fail_fast: bool = False) -> T | ErrorResponse:
        """Send a request without cache or fallback, and return the decoded response."""
        return _typed(response_type, self.decode(await self.send_raw(request, fail_fast=fail_fast)))

    async def send_raw(self, request: Request, *, max_rounds: int | None = None, fail_fast: bool = False) -> Response:
        """Send a request and return the undecoded response."""
        self._check_open()
        return await self.caller.call(request, max_rounds=max_rounds, fail_fast=fail_fast)

    def watch(self, filters: QueryPairs, from_version: str | None, *, send_initial: bool, bookmarks: bool) -> Watch:
        """Return a watch, which connects when its first event is requested."""
        self._check_open()
        stream = WatchStream(
            self.config, self._endpoints, self._transport, self.caller, filters, from_version, send_initial=send_initial
        )
        watch = Watch(stream, bookmarks=bookmarks)
        self._open.add(watch)
        return watch

    def add_keep_alive(self, keep_alive: KeepAlive) -> KeepAlive:
        """Close an agent that is kept alive together with this session."""
        self._check_open()
        self._open.add(keep_alive)
        return keep_alive

    def decode(self, response: Response) -> dict[str, Any]:
        """Decode a response. Raises RequestRejected for an error response, if the client is configured to."""
        return self._checked(parse_response(response))

    def _checked(self, document: dict[str, Any]) -> dict[str, Any]:
        if self.config.raise_on_error and document.get("status") == "error":
            raise RequestRejected(str(document.get("message", document.get("error"))), document)
        return document

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed("The client is closed; create a new one")


def _typed(_response_type: type[T], response: dict[str, Any]) -> T | ErrorResponse:
    """Give a decoded response its type; the registry guarantees its fields."""
    return cast("T | ErrorResponse", response)
