"""The HTTP client of the proxy, which sends each request only to the address in its URL."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from registry.compat.mcpmesh.proxy.headers import Headers

if TYPE_CHECKING:
    import httpx2

MAX_CALLS: Final = 100
"""Maximum number of concurrent requests."""
# Agents close idle connections after 5 s; the proxy closes them earlier.
_CONNECT_TIMEOUT_S: Final = 10.0
_IDLE_TIMEOUT_S: Final = 2.0


class UnreachableError(Exception):
    """The agent was not reached, or the connection was lost; the message reveals nothing about this machine."""


@dataclass(frozen=True, slots=True)
class ProxyRequest:
    """An HTTP request to an agent; `body` yields chunks, None means no body."""

    method: str
    url: str
    headers: Headers
    body: AsyncIterator[bytes] | None


@dataclass(frozen=True, slots=True)
class ProxyResponse:
    """The head of an agent's HTTP response, and the chunks of its body as they arrive."""

    status: int
    headers: Headers
    chunks: AsyncIterator[bytes]


class UpstreamClient:
    """Sends HTTP requests to agents over pooled connections.

    The HTTP library is imported at the first request. It stores no cookies, follows no redirects, and ignores proxies
    and credentials of the environment, so an agent cannot redirect a call to another agent or to any other server.
    """

    def __init__(self) -> None:
        self._open_lock = asyncio.Lock()
        self._transport: httpx2.AsyncHTTPTransport | None = None

    @contextlib.asynccontextmanager
    async def send(self, proxy_request: ProxyRequest) -> AsyncIterator[ProxyResponse]:
        """Send a request to an agent; yield the response once its headers arrive. Raises UnreachableError."""
        transport = await self._get_transport()
        import httpx2  # noqa: PLC0415 - slow to import, and only proxied calls need it

        with _translate_errors():
            request = httpx2.Request(
                proxy_request.method, proxy_request.url, headers=proxy_request.headers, content=proxy_request.body
            )
            request.extensions["timeout"] = {"connect": _CONNECT_TIMEOUT_S, "read": None, "write": None, "pool": None}
            response = await transport.handle_async_request(request)
        try:
            async with contextlib.aclosing(_read_chunks(response)) as parts:
                yield ProxyResponse(response.status_code, response.headers.raw, parts)
        finally:
            await response.aclose()

    async def close(self) -> None:
        """Close every connection to agents; a later request opens new connections."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    async def _get_transport(self) -> "httpx2.AsyncHTTPTransport":
        """Return the HTTP transport, created in a thread because its imports and certificates take half a second."""
        async with self._open_lock:
            if self._transport is None:
                self._transport = await asyncio.to_thread(_create_transport)
            return self._transport


def _create_transport() -> "httpx2.AsyncHTTPTransport":
    import httpx2  # noqa: PLC0415 - as above

    limits = httpx2.Limits(
        max_connections=MAX_CALLS, max_keepalive_connections=MAX_CALLS, keepalive_expiry=_IDLE_TIMEOUT_S
    )
    return httpx2.AsyncHTTPTransport(trust_env=False, limits=limits)


async def _read_chunks(response: "httpx2.Response") -> AsyncGenerator[bytes, None]:
    """Yield the body of a response as it arrives, without decompressing it."""
    with _translate_errors():
        async for part in response.aiter_raw():
            yield part


@contextlib.contextmanager
def _translate_errors() -> Iterator[None]:
    import httpx2  # noqa: PLC0415 - as above

    try:
        yield
    except httpx2.ConnectError as error:
        raise UnreachableError("connection failed") from error
    except httpx2.TimeoutException as error:
        raise UnreachableError(f"connection timed out after {_CONNECT_TIMEOUT_S:g}s") from error
    except (httpx2.TransportError, httpx2.InvalidURL) as error:
        raise UnreachableError("the connection was lost") from error
