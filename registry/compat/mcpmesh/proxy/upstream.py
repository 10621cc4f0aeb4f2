"""The HTTP client of the proxy, which sends each request only to an allowed address of the host in its URL."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from registry.compat.mcpmesh.proxy.address_policy import AddressPolicy
from registry.compat.mcpmesh.proxy.headers import Headers

if TYPE_CHECKING:
    import httpx2

MAX_CALLS: Final = 100
"""Maximum number of concurrent requests."""
# For the lookup of a name, and for each connection.
_CONNECT_TIMEOUT_S: Final = 10.0
# Addresses of one name that are tried in order.
_MAX_ADDRESSES: Final = 3
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class UnreachableError(Exception):
    """The agent was not reached, or the connection was lost.

    The message is for the log only: a caller could scan ports by the difference.
    """


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
    """Sends HTTP requests to agents, each over a connection of its own to an address that the policy allows.

    A shared connection would serve a name that no longer resolves to its address. The HTTP library is imported at the
    first request. It stores no cookies, follows no redirects, and ignores proxies and credentials of the environment,
    so an agent cannot redirect a call to another agent or to any other server.
    """

    def __init__(self, address_policy: AddressPolicy) -> None:
        self._address_policy = address_policy
        self._open_lock = asyncio.Lock()
        self._transport: httpx2.AsyncHTTPTransport | None = None

    @contextlib.asynccontextmanager
    async def send(self, proxy_request: ProxyRequest) -> AsyncIterator[ProxyResponse]:
        """Send a request to an agent; yield the response once its headers arrive. Raises UnreachableError."""
        transport = await self._get_transport()
        with _translate_errors():
            response = await self._send_to_allowed_address(transport, proxy_request)
        try:
            async with contextlib.aclosing(_read_chunks(response)) as parts:
                yield ProxyResponse(response.status_code, response.headers.raw, parts)
        finally:
            await response.aclose()

    async def _send_to_allowed_address(
        self, transport: "httpx2.AsyncHTTPTransport", proxy_request: ProxyRequest
    ) -> "httpx2.Response":
        """Send a request to the first allowed address of its host that accepts a connection."""
        import httpx2  # noqa: PLC0415 - slow to import, and only proxied calls need it

        url = httpx2.URL(proxy_request.url)
        host = url.raw_host.decode("ascii")
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                addresses = await self._address_policy.resolve(host, url.port or _DEFAULT_PORTS[url.scheme])
        except (OSError, UnicodeError) as error:
            raise UnreachableError("the name has no address") from error
        for address in addresses[:_MAX_ADDRESSES]:
            request = httpx2.Request(
                proxy_request.method,
                url.copy_with(host=address),
                headers=[(b"host", url.netloc), *proxy_request.headers],
                content=proxy_request.body,
            )
            request.extensions["timeout"] = {"connect": _CONNECT_TIMEOUT_S, "read": None, "write": None, "pool": None}
            # The name in the TLS handshake, which the certificate must match.
            request.extensions["sni_hostname"] = host
            # The body is not read before the connection exists.
            with contextlib.suppress(httpx2.ConnectError, httpx2.ConnectTimeout):
                return await transport.handle_async_request(request)
        raise UnreachableError("no connection" if addresses else "no allowed address")

    async def close(self) -> None:
        """Close every connection to agents; a later request opens a new one."""
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

    limits = httpx2.Limits(max_connections=MAX_CALLS, max_keepalive_connections=0)
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
    except (httpx2.TransportError, httpx2.InvalidURL) as error:
        raise UnreachableError("the connection was lost") from error
