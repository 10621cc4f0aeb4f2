"""The one place that speaks HTTP: requests out, answers in, the library's troubles turned into ours."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mcp_mesh_client.endpoints import Endpoint
from mcp_mesh_client.errors import (
    ClientClosed,
    HttpLibraryMissing,
    Outcome,
    RegistryTimeout,
    RegistryUnavailable,
    UnreadableAnswer,
)
from mcp_mesh_client.filters import Pairs
from mcp_mesh_client.version import __version__

if TYPE_CHECKING:
    import httpx2

# Seconds. The registry closes a connection that was idle for 75 s.
_CONNECT = 2.0
_IDLE = 45.0
# Bytes of one answer, unpacked, and of one line of a watch.
_LARGEST = 256 * 1024 * 1024
_LONGEST_LINE = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Ask:
    """One call.

    `repeatable`: to do it twice does no more than to do it once. `longer`: so many seconds it takes on purpose.
    `from_memory`: it needs no more of a replica than its memory, so an answer says nothing of the registry as a whole.
    """

    method: str
    path: str
    query: Pairs = ()
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True
    longer: float = 0.0
    from_memory: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Wire:
    """Sends requests to replicas over kept connections. The HTTP library is imported with the first one."""

    def __init__(self, token: str | None) -> None:
        self._headers = {"user-agent": f"mcp-mesh-registry/{__version__}", "accept": "application/json"}
        if token is not None:
            self._headers["authorization"] = f"Bearer {token}"
        self._client: httpx2.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._under_way: dict[asyncio.Timeout, asyncio.Future[None]] = {}
        self._closed = False

    async def exchange(self, endpoint: Endpoint, ask: Ask, patience: float, silence: float) -> Reply:
        """Send a request and read its whole answer, within `patience` seconds, `silence` of them without a byte.

        Raises RegistryUnavailable, RegistryTimeout or UnreadableAnswer, with the `outcome`; ClientClosed.
        """
        with _translated(endpoint):
            try:
                async with self._within(patience), self._opened(endpoint, ask, silence) as response:
                    body = await _whole(response)
            except TimeoutError as error:
                raise RegistryTimeout(
                    f"{endpoint.url}: no answer within {patience:.1f} s", outcome="unknown"
                ) from error
        return Reply(response.status_code, response.headers, body)

    @contextlib.asynccontextmanager
    async def stream(
        self, endpoint: Endpoint, ask: Ask, patience: float, silence: float
    ) -> AsyncIterator[tuple[Reply, AsyncIterator[bytes]]]:
        """Provide the head of an answer, and its lines as they come, none longer than 16 MiB.

        The head must come within `patience`; between two bytes may lie at most `silence`. An answer that is no 200
        is read as a whole.
        """
        with _translated(endpoint):
            async with contextlib.AsyncExitStack() as opened:
                async with self._within(patience):
                    response = await opened.enter_async_context(self._opened(endpoint, ask, silence))
                    body = b"" if response.status_code == 200 else await _whole(response)  # noqa: PLR2004
                yield Reply(response.status_code, response.headers, body), _lines(response)

    async def close(self) -> None:
        """Close all connections. Requests after it, and those that still wait for their answer, raise ClientClosed."""
        self._closed = True
        client, self._client = self._client, None
        if client is None or self._loop is not asyncio.get_running_loop():
            return
        # The library forgets a connection that is being made when it is closed, and then nobody closes that.
        for scope in self._under_way:
            if not scope.expired():
                scope.reschedule(0.0)
        if self._under_way:
            await asyncio.wait(self._under_way.values())
        await client.aclose()

    @contextlib.asynccontextmanager
    async def _within(self, patience: float) -> AsyncIterator[None]:
        """Bound the time until an answer is there, and end the wait for it when the client is closed."""
        over = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(patience) as scope:
                self._under_way[scope] = over
                yield
        except TimeoutError:
            if self._closed:
                raise _was_closed() from None
            raise
        finally:
            self._under_way.pop(scope)
            over.set_result(None)

    def _opened(self, endpoint: Endpoint, ask: Ask, silence: float) -> Any:
        """Send a request; provide the response, its body unread."""
        client = self._for_this_loop()
        headers, extensions = dict(ask.headers), dict[str, Any]()
        if endpoint.name is not None:
            headers["host"] = endpoint.name
            extensions["sni_hostname"] = endpoint.name.rpartition(":")[0] or endpoint.name
        if ask.body is not None:
            headers["content-type"] = "application/json"
        return client.stream(
            ask.method,
            f"{endpoint.url}{ask.path}",
            params=ask.query or None,
            content=ask.body,
            headers=headers,
            extensions=extensions,
            timeout=_http().Timeout(silence, connect=_CONNECT, pool=_CONNECT),
        )

    def _for_this_loop(self) -> "httpx2.AsyncClient":
        """Return the client of the running loop: connections do not outlive the loop they were made on."""
        if self._closed:
            raise _was_closed()
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            http = _http()
            limits = http.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=_IDLE)
            self._client = http.AsyncClient(headers=self._headers, limits=limits)
            self._loop = loop
        return self._client


def _was_closed() -> ClientClosed:
    return ClientClosed("This client was closed; make another one")


def _http() -> Any:
    try:
        import httpx2  # noqa: PLC0415 - importing the client must stay cheap
    except ImportError as error:
        raise HttpLibraryMissing("Calling a registry needs: pip install 'mcp-mesh-registry[client]'") from error
    return httpx2


@contextlib.contextmanager
def _translated(endpoint: Endpoint) -> Iterator[None]:
    """Turn the HTTP library's exceptions into ours, saying whether the request may have been carried out."""
    http = _http()
    not_sent = (http.ConnectError, http.ConnectTimeout, http.PoolTimeout, http.ProxyError, http.UnsupportedProtocol)
    try:
        yield
    except (http.RequestError, http.InvalidURL) as error:
        outcome: Outcome = "not_sent" if isinstance(error, not_sent) else "unknown"
        said = str(error) or type(error).__name__
        if isinstance(error, http.TimeoutException):
            raise RegistryTimeout(f"{endpoint.url}: no answer in time ({said})", outcome=outcome) from error
        if isinstance(error, http.DecodingError):
            raise UnreadableAnswer(f"{endpoint.url}: {said}", outcome=outcome) from error
        raise RegistryUnavailable(f"{endpoint.url}: {said}", outcome=outcome) from error


async def _whole(response: "httpx2.Response") -> bytes:
    parts, size = [], 0
    async for part in response.aiter_bytes():
        parts.append(part)
        size += len(part)
        if size > _LARGEST:
            raise UnreadableAnswer(f"{response.url}: the answer is longer than {_LARGEST >> 20} MiB", outcome="unknown")
    return b"".join(parts)


async def _lines(response: "httpx2.Response") -> AsyncIterator[bytes]:
    """Give the lines of a body as they come, each without its end; what is cut off at the end is no line."""
    rest = b""
    async for part in response.aiter_bytes():
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield line
        if len(rest) > _LONGEST_LINE:
            raise UnreadableAnswer(f"{response.url}: a line is longer than {_LONGEST_LINE >> 20} MiB")
