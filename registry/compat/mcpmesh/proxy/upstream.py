"""Requests to agents: each goes to the address it names and nowhere else."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from registry.compat.mcpmesh.proxy.headers import Headers

if TYPE_CHECKING:
    import httpx2

MAX_CALLS: Final = 100
"""How many requests are under way at a time, at most."""
# Seconds until a connection is there, and until one that nobody uses is closed: before agents close it, after 5 s.
_CONNECT_TIMEOUT_S: Final = 10.0
_IDLE_TIMEOUT_S: Final = 2.0


class UnreachableError(Exception):
    """An agent could not be reached, or the connection broke. The message says nothing of this machine."""


@dataclass(frozen=True, slots=True)
class ProxyRequest:
    """One request; `body` comes part by part, None for none."""

    method: str
    url: str
    headers: Headers
    body: AsyncIterator[bytes] | None


@dataclass(frozen=True, slots=True)
class ProxyResponse:
    """What came back so far, and the bytes of the body as they come."""

    status: int
    headers: Headers
    chunks: AsyncIterator[bytes]


class UpstreamClient:
    """Sends over kept connections; the HTTP library is imported with the first request.

    There is no jar for cookies, a redirect is an answer like any other, and proxies and passwords that the environment
    names are not looked at: so one agent cannot send a call to another, nor to what is no agent.
    """

    def __init__(self) -> None:
        self._open_lock = asyncio.Lock()
        self._transport: httpx2.AsyncHTTPTransport | None = None

    @contextlib.asynccontextmanager
    async def send(self, proxy_request: ProxyRequest) -> AsyncIterator[ProxyResponse]:
        """Send a request; yield the response as soon as its headers have arrived. Raises UnreachableError."""
        transport = await self._get_transport()
        import httpx2  # noqa: PLC0415 - slow to import, and needed by proxied calls alone

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
        """Close every connection; a later request would open them again."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    async def _get_transport(self) -> "httpx2.AsyncHTTPTransport":
        """Return what sends. To import it and to read certificates takes half a second: not on the loop."""
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
    """Give the body as it comes, packed where it is packed."""
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
