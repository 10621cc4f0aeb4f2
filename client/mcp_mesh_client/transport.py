"""The HTTP transport: sends requests, reads responses, and translates the errors of the HTTP library."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mcp_mesh_client.errors import (
    ClientClosed,
    InvalidResponse,
    Outcome,
    RegistryTimeout,
    RegistryUnavailable,
)
from mcp_mesh_client.filters import QueryPairs
from mcp_mesh_client.network_environment import Proxy, client_options, describe, proxy_for
from mcp_mesh_client.replica_endpoints import Endpoint
from mcp_mesh_client.version import __version__

if TYPE_CHECKING:
    import httpx2

# The registry closes a connection that was idle for 75 s.
_CONNECT_TIMEOUT_S = 2.0
_KEEPALIVE_EXPIRY_S = 45.0
_MAX_KNOWN_PROXIES = 256
# Limits of one response, uncompressed, and of one line of a watch.
_MAX_BODY_BYTES = 256 * 1024 * 1024
_MAX_LINE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request.

    `repeatable`: sending it twice has the same effect as sending it once. `extra_timeout`: seconds that it takes by
    design, such as a long poll. `accepts_stale`: a replica handles it from memory, so its response does not show that
    the registry is online.
    """

    method: str
    path: str
    query: QueryPairs = ()
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True
    extra_timeout: float = 0.0
    accepts_stale: bool = False


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP response. Header names are in lower case; `route` has the words about a proxy in messages."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    route: str = ""


class HttpTransport:
    """Sends requests to replicas over persistent connections. The first request imports the HTTP library."""

    def __init__(self, token: str | None) -> None:
        self._headers = {"user-agent": f"mcp-mesh-client/{__version__}", "accept": "application/json"}
        if token is not None:
            self._headers["authorization"] = f"Bearer {token}"
        self._clients: dict[tuple[bool, Proxy | None], httpx2.AsyncClient] = {}
        self._proxies: dict[str, Proxy | None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._in_flight: dict[asyncio.Timeout, asyncio.Future[None]] = {}
        self._closed = False

    async def send(self, endpoint: Endpoint, request: Request, timeout: float, read_timeout: float) -> Response:
        """Send a request and read the response within `timeout` seconds; fail after `read_timeout` without a byte.

        Raises RegistryUnavailable, RegistryTimeout or InvalidResponse, with the `outcome`; ClientClosed.
        """
        route = describe(self._proxy_for(endpoint))
        with _translate_errors(f"{endpoint.url}{route}"):
            try:
                async with self._deadline(timeout), self._open_stream(endpoint, request, read_timeout) as response:
                    body = await _read_body(response)
            except TimeoutError as error:
                raise RegistryTimeout(
                    f"{endpoint.url}{route}: no response within {timeout:.1f} s", outcome="unknown"
                ) from error
        return Response(response.status_code, response.headers, body, route)

    @contextlib.asynccontextmanager
    async def stream(
        self, endpoint: Endpoint, request: Request, timeout: float, read_timeout: float
    ) -> AsyncIterator[tuple[Response, AsyncIterator[bytes]]]:
        """Provide the head of a streaming response, and its lines as they arrive, none longer than 16 MiB.

        The head must arrive within `timeout`; `read_timeout` is the limit between two bytes. The body of a response
        other than 200 is read whole.
        """
        route = describe(self._proxy_for(endpoint))
        with _translate_errors(f"{endpoint.url}{route}"):
            async with contextlib.AsyncExitStack() as opened:
                async with self._deadline(timeout):
                    response = await opened.enter_async_context(self._open_stream(endpoint, request, read_timeout))
                    body = b"" if response.status_code == 200 else await _read_body(response)  # noqa: PLR2004
                yield Response(response.status_code, response.headers, body, route), _iter_lines(response)

    async def close(self) -> None:
        """Close all connections. Requests in progress and later requests raise ClientClosed."""
        self._closed = True
        clients, self._clients = tuple(self._clients.values()), {}
        if self._loop is not asyncio.get_running_loop():
            return
        # The library does not close a connection that is still being opened, so end those requests first.
        for scope in self._in_flight:
            if not scope.expired():
                scope.reschedule(0.0)
        if self._in_flight:
            await asyncio.wait(self._in_flight.values())
        for client in clients:
            await client.aclose()

    @contextlib.asynccontextmanager
    async def _deadline(self, timeout: float) -> AsyncIterator[None]:
        """Limit the time of a request, and end the request when the client is closed."""
        finished = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout) as scope:
                self._in_flight[scope] = finished
                yield
        except TimeoutError:
            if self._closed:
                raise _closed_error() from None
            raise
        finally:
            self._in_flight.pop(scope)
            finished.set_result(None)

    def _open_stream(self, endpoint: Endpoint, request: Request, read_timeout: float) -> Any:
        """Send a request and provide the response before its body is read."""
        client = self._client_for(endpoint)
        headers, extensions = dict(request.headers), dict[str, Any]()
        if endpoint.host_header is not None:
            headers["host"] = endpoint.host_header
            extensions["sni_hostname"] = endpoint.host_header.rpartition(":")[0] or endpoint.host_header
        if request.body is not None:
            headers["content-type"] = "application/json"
        return client.stream(
            request.method,
            f"{endpoint.url}{request.path}",
            params=request.query or None,
            content=request.body,
            headers=headers,
            extensions=extensions,
            timeout=_httpx().Timeout(read_timeout, connect=_CONNECT_TIMEOUT_S, pool=_CONNECT_TIMEOUT_S),
        )

    def _client_for(self, endpoint: Endpoint) -> "httpx2.AsyncClient":
        """Return the HTTP client for a replica on the running event loop: connections cannot outlive their loop.

        Raises InvalidData for a proxy or certificates that cannot be used.
        """
        if self._closed:
            raise _closed_error()
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._clients, self._loop = {}, loop
        proxy = self._proxy_for(endpoint)
        key = endpoint.url.startswith("https:"), proxy
        if key not in self._clients:
            http = _httpx()
            limits = http.Limits(
                max_connections=None, max_keepalive_connections=20, keepalive_expiry=_KEEPALIVE_EXPIRY_S
            )
            self._clients[key] = http.AsyncClient(
                headers=self._headers, limits=limits, **client_options(endpoint.url, proxy)
            )
        return self._clients[key]

    def _proxy_for(self, endpoint: Endpoint) -> Proxy | None:
        """Return the proxy for a replica. The variables are read once for each URL, because reading them is slow."""
        if endpoint.url not in self._proxies:
            if len(self._proxies) >= _MAX_KNOWN_PROXIES:
                self._proxies.clear()
            self._proxies[endpoint.url] = proxy_for(endpoint.url)
        return self._proxies[endpoint.url]


def _closed_error() -> ClientClosed:
    return ClientClosed("The client is closed; create a new one")


def _httpx() -> Any:
    """Return the HTTP library; the first request imports it, because its import takes longer than the client's."""
    import httpx2  # noqa: PLC0415

    return httpx2


@contextlib.contextmanager
def _translate_errors(target: str) -> Iterator[None]:
    """Translate exceptions of the HTTP library to client errors that contain the outcome of the request."""
    http = _httpx()
    not_sent = (http.ConnectError, http.ConnectTimeout, http.PoolTimeout, http.ProxyError, http.UnsupportedProtocol)
    try:
        yield
    except (http.RequestError, http.InvalidURL) as error:
        outcome: Outcome = "not_sent" if isinstance(error, not_sent) else "unknown"
        message = str(error) or type(error).__name__
        if isinstance(error, http.TimeoutException):
            raise RegistryTimeout(f"{target}: timed out ({message})", outcome=outcome) from error
        if isinstance(error, http.DecodingError):
            raise InvalidResponse(f"{target}: {message}", outcome=outcome) from error
        raise RegistryUnavailable(f"{target}: {message}", outcome=outcome) from error


async def _read_body(response: "httpx2.Response") -> bytes:
    parts, size = [], 0
    async for part in response.aiter_bytes():
        parts.append(part)
        size += len(part)
        if size > _MAX_BODY_BYTES:
            raise InvalidResponse(
                f"{response.url}: the response exceeds {_MAX_BODY_BYTES >> 20} MiB", outcome="unknown"
            )
    return b"".join(parts)


async def _iter_lines(response: "httpx2.Response") -> AsyncIterator[bytes]:
    """Yield the complete lines of a response body as they arrive, without line breaks."""
    rest = b""
    async for part in response.aiter_bytes():
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield line
        if len(rest) > _MAX_LINE_BYTES:
            raise InvalidResponse(f"{response.url}: a line exceeds {_MAX_LINE_BYTES >> 20} MiB")
