"""Requests to agents: each goes to the address it names and nowhere else."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from registry.compat.mcpmesh.proxy.headers import Headers

if TYPE_CHECKING:
    import httpx2

MOST: Final = 100
"""How many requests are under way at a time, at most."""
# Seconds until a connection is there, and until one that nobody uses is closed: before agents close it, after 5 s.
_CONNECT: Final = 10.0
_IDLE: Final = 2.0


class HttpLibraryMissingError(Exception):
    """The extra `client` is not installed."""


class UnreachableError(Exception):
    """An agent could not be reached, or the connection broke. The message says nothing of this machine."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request; `body` comes part by part, None for none."""

    method: str
    url: str
    headers: Headers
    body: AsyncIterator[bytes] | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back so far, and the bytes of the body as they come."""

    status: int
    headers: Headers
    parts: AsyncIterator[bytes]


class Outgoing:
    """Sends over kept connections; the HTTP library is imported with the first request.

    There is no jar for cookies, a redirect is an answer like any other, and proxies and passwords that the environment
    names are not looked at: so one agent cannot send a call to another, nor to what is no agent.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._transport: httpx2.AsyncHTTPTransport | None = None

    @contextlib.asynccontextmanager
    async def send(self, ask: Ask) -> AsyncIterator[Answer]:
        """Send a request, and provide the answer once its head is there.

        Raises HttpLibraryMissingError, UnreachableError.
        """
        transport = await self._opened()
        import httpx2  # noqa: PLC0415  an extra: who passes nothing on does not need it

        with _translated():
            request = httpx2.Request(ask.method, ask.url, headers=ask.headers, content=ask.body)
            request.extensions["timeout"] = {"connect": _CONNECT, "read": None, "write": None, "pool": None}
            response = await transport.handle_async_request(request)
        try:
            async with contextlib.aclosing(_parts(response)) as parts:
                yield Answer(response.status_code, response.headers.raw, parts)
        finally:
            await response.aclose()

    async def close(self) -> None:
        """Close every connection; a later request would open them again."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    async def _opened(self) -> "httpx2.AsyncHTTPTransport":
        """Return what sends. To import it and to read certificates takes half a second: not on the loop."""
        async with self._turn:
            if self._transport is None:
                try:
                    self._transport = await asyncio.to_thread(_transport)
                except ImportError as error:
                    raise HttpLibraryMissingError from error
            return self._transport


def _transport() -> "httpx2.AsyncHTTPTransport":
    import httpx2  # noqa: PLC0415  as above

    limits = httpx2.Limits(max_connections=MOST, max_keepalive_connections=MOST, keepalive_expiry=_IDLE)
    return httpx2.AsyncHTTPTransport(trust_env=False, limits=limits)


async def _parts(response: "httpx2.Response") -> AsyncGenerator[bytes, None]:
    """Give the body as it comes, packed where it is packed."""
    with _translated():
        async for part in response.aiter_raw():
            yield part


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    import httpx2  # noqa: PLC0415  as above

    try:
        yield
    except httpx2.ConnectError as error:
        raise UnreachableError("no connection could be made") from error
    except httpx2.TimeoutException as error:
        raise UnreachableError(f"no connection could be made within {_CONNECT:g}s") from error
    except (httpx2.TransportError, httpx2.InvalidURL) as error:
        raise UnreachableError("the connection broke") from error
