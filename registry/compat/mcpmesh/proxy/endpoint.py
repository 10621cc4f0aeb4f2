"""The endpoint /proxy, which forwards calls to agents for callers that cannot reach the agents directly."""

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final

from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from registry.api.error_responses import send_error
from registry.api.response.client_connection import NO_BUFFERING_HEADER, get_connection
from registry.compat.mcpmesh.proxy.allowed_targets import ProxyTargets
from registry.compat.mcpmesh.proxy.failure_limit import MAX_FAILURES, FailureLimit
from registry.compat.mcpmesh.proxy.headers import HeaderPolicy, Headers
from registry.compat.mcpmesh.proxy.upstream import (
    MAX_CALLS,
    ProxyRequest,
    ProxyResponse,
    UnreachableError,
    UpstreamClient,
)
from registry.errors import (
    AgentUnreachable,
    Detail,
    Forbidden,
    MalformedRequest,
    NotReady,
    RegistryError,
    RequestTooLarge,
    TooManyRequests,
)
from registry.telemetry.logs import get_logger

log = get_logger(__name__)

MAX_BODY_BYTES: Final = 16 * 1024 * 1024
"""Maximum size of the body of a call."""
MAX_CALLS_PER_AGENT: Final = MAX_CALLS // 2
"""Maximum number of concurrent calls to one agent, so that an agent that hangs does not block calls to others."""
# The timeout of a call, including the connection: the default, and the maximum for the header x-mesh-timeout.
_DEFAULT_TIMEOUT_S: Final = 60
_MAX_TIMEOUT_S: Final = 600
# How long calls in progress may continue during shutdown: less than the server allows any request.
_SHUTDOWN_GRACE_S: Final = 2.0

# The decoded target contains no character with a meaning in a URL, so the URL built from it cannot point elsewhere.
# meshctl appends /mcp to an endpoint, also to one that ends with it.
_TARGET_PATTERN: Final = re.compile(
    r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([1-9][0-9]{0,4})(?:/mcp(?=/mcp(?:/|$)))?(/mcp(?:/[A-Za-z0-9._~-]+)*/?)"
)
_DOT_SEGMENT: Final = re.compile(r"/\.\.?(?:/|$)")
_MIN_INVALID_STATUS: Final = 600
_EXPECTED_TARGET: Final = "expected /proxy/{host}:{port}/mcp or a path below it"
# The same text for every failure, so that it does not show which ports of a host are open.
_UNREACHABLE: Final = (
    "Failed to reach target agent: its address is not allowed, it refused the connection, or it did not respond in time"
)
_DISABLED: Final = (
    "The proxy is disabled; set REGISTRY_PROXY=true, or call the agent directly, for example with --use-proxy=false"
)
_TOO_MANY_FAILURES: Final = f"{MAX_FAILURES} calls from this address reached no agent within a minute; try again later"
_BUSY: Final = f"This replica already proxies {MAX_CALLS} calls; try again"
_BUSY_AGENT: Final = f"This replica already proxies {MAX_CALLS_PER_AGENT} calls to this agent; try again"
_SHUTTING_DOWN: Final = "This replica is shutting down; try another replica"


class ProxyEndpoint:
    """Serves `/proxy/{host}:{port}/mcp`; without `upstream`, the proxy is disabled and responds with 403.

    It calls only endpoints that registered agents announced, below `/mcp`, and neither caches nor retries. After ten
    calls without a response in a minute, further calls of the same client address are rejected with 429.
    """

    def __init__(self, targets: ProxyTargets, upstream: UpstreamClient | None, header_policy: HeaderPolicy) -> None:
        self._targets = targets
        self._upstream = upstream
        self._header_policy = header_policy
        self._calls_by_url: Counter[str] = Counter()
        self._failures = FailureLimit()
        self._closing = asyncio.Event()
        self.routes = [Route("/proxy/{target:path}", self, methods=["GET", "POST"])]

    @property
    def active_calls(self) -> int:
        """The number of proxied calls in progress."""
        return self._calls_by_url.total()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward one call to an agent. Raises RegistryError with the reason if it is not forwarded."""
        client = (scope.get("client") or ("",))[0]
        if self._upstream is None:
            raise Forbidden(_DISABLED)
        if scope["method"] not in ("GET", "POST"):
            raise HTTPException(405, headers={"Allow": "GET, POST"})
        host, port, path = _parse_target(scope)
        seconds = self._failures.retry_after(client)
        if seconds is not None:
            raise TooManyRequests(_TOO_MANY_FAILURES, seconds)
        agent = await self._targets.find(host, port)
        if agent is None:
            requested = scope["path_params"]["target"].partition("/")[0]
            raise Forbidden(f"Target host {requested!r} is not a registered agent")
        if self._closing.is_set():
            raise NotReady(_SHUTTING_DOWN)
        if self.active_calls >= MAX_CALLS:
            raise NotReady(_BUSY)
        if self._calls_by_url[agent.url] >= MAX_CALLS_PER_AGENT:
            raise NotReady(_BUSY_AGENT)
        with self._count_call(agent.url):
            call = _ProxiedCall(scope, receive, send, self._header_policy, self._closing)
            await call.run(self._upstream, f"{agent.url}{path}")
        # A caller that disconnects before a response may be scanning, too.
        if not call.response_started and not self._closing.is_set():
            self._failures.record_failure(client)

    @contextlib.contextmanager
    def _count_call(self, url: str) -> Iterator[None]:
        self._calls_by_url[url] += 1
        try:
            yield
        finally:
            self._calls_by_url[url] -= 1
            if not self._calls_by_url[url]:
                del self._calls_by_url[url]

    def close(self) -> None:
        """Reject new proxied calls, and end the calls in progress within two seconds."""
        self._closing.set()


class _ClientDisconnectedError(Exception):
    """The caller disconnected before the body of its request was complete."""


class _ProxiedCall:
    """One proxied call: streams the request body to the agent and the response back to the caller."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, header_policy: HeaderPolicy, closing: asyncio.Event
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._header_policy = header_policy
        self._closing = closing
        self._request_sent = asyncio.Event()
        self.response_started = self._is_event_stream = False
        self._last_bytes = b""

    async def run(self, upstream: UpstreamClient, url: str) -> None:
        """Forward the call until it ends, the caller disconnects, or the replica shuts down. Raises RequestTooLarge."""
        forwarding = asyncio.create_task(self._forward(upstream, url))
        disconnected = asyncio.create_task(self._wait_for_disconnect())
        shutdown = asyncio.create_task(self._wait_for_shutdown())
        tasks = forwarding, disconnected, shutdown
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not forwarding.done():
                forwarding.cancel()
                await asyncio.gather(forwarding, return_exceptions=True)
                complete = disconnected.done() or await self._finish(NotReady(_SHUTTING_DOWN), b"shutdown")
            else:
                complete = forwarding.result()
            if not complete:
                await self._abort_response(disconnected)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _forward(self, upstream: UpstreamClient, url: str) -> bool:
        """Send the call to the agent; return whether the caller received a complete response."""
        timeout_s = _timeout_seconds(self._scope["headers"])
        try:
            async with asyncio.timeout(timeout_s), upstream.send(self._build_request(url)) as response:
                await self._start_response(response)
                async for chunk in response.chunks:
                    self._last_bytes = chunk[-4:]
                    await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
            await self._send({"type": "http.response.body", "body": b""})
        except _ClientDisconnectedError:
            return True
        except TimeoutError:
            log.debug("proxy_call_failed", url=url, reason=f"no response within {timeout_s}s")
            return await self._finish(AgentUnreachable(_UNREACHABLE), b"timeout budget=%ds" % timeout_s)
        except UnreachableError as error:
            log.debug("proxy_call_failed", url=url, reason=str(error))
            return await self._finish(AgentUnreachable(_UNREACHABLE), None)
        return True

    async def _finish(self, error: RegistryError, comment: bytes | None) -> bool:
        """End a failed call with an error response or a final comment; return whether the response is complete.

        A caller that does not read gets nothing, because sending would block.
        """
        connection = get_connection(self._scope)
        if connection is not None and not connection.writable():
            return False
        if not self.response_started:
            await send_error(self._send, error, self._scope["request_id"])
        elif not self._is_event_stream or comment is None:
            return False
        else:
            await self._send({"type": "http.response.body", "body": self._end_comment(comment)})
        return True

    def _build_request(self, url: str) -> ProxyRequest:
        headers = self._header_policy.request(self._scope["headers"])
        # The response is forwarded unchanged, so the agent must not compress it for the proxy.
        headers.append((b"accept-encoding", b"identity"))
        size = _content_length(self._scope["headers"])
        if self._scope["method"] == "GET":
            return ProxyRequest("GET", url, headers, None)
        headers.append((b"transfer-encoding", b"chunked") if size is None else (b"content-length", b"%d" % size))
        return ProxyRequest("POST", url, headers, self._request_body())

    async def _request_body(self) -> AsyncIterator[bytes]:
        size, more = 0, True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise _ClientDisconnectedError
            part, more = message.get("body", b""), message.get("more_body", False)
            size += len(part)
            if size > MAX_BODY_BYTES:
                raise _too_large()
            if part:
                yield part
        self._request_sent.set()

    async def _start_response(self, response: ProxyResponse) -> None:
        if response.status >= _MIN_INVALID_STATUS:
            raise UnreachableError(f"it responded with the invalid status {response.status}")
        headers: Headers = self._header_policy.response(response.status, response.headers)
        kinds = [value for name, value in headers if name == b"content-type"]
        self._is_event_stream = bool(kinds) and kinds[0].lower().startswith(b"text/event-stream")
        if self._is_event_stream and all(name != NO_BUFFERING_HEADER[0] for name, _ in headers):
            headers.append(NO_BUFFERING_HEADER)
        self.response_started = True
        # An agent may respond before it has read the whole body.
        self._request_sent.set()
        await self._send({"type": "http.response.start", "status": response.status, "headers": headers})

    def _end_comment(self, reason: bytes) -> bytes:
        """Return a comment that ends an event stream without completing an event that was cut off."""
        comment = b": mesh-proxy-%s\n" % reason
        if self._last_bytes.endswith((b"\n\n", b"\r\n\r\n")) or not self._last_bytes:
            return comment + b"\n"
        return comment if self._last_bytes.endswith(b"\n") else b"\n" + comment

    async def _wait_for_disconnect(self) -> None:
        """Wait until the caller disconnects after its request body; until then `_request_body` detects a disconnect."""
        if self._scope["method"] == "POST":
            await self._request_sent.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _wait_for_shutdown(self) -> None:
        """Wait until the shutdown of the replica begins and its grace period ends."""
        await self._closing.wait()
        await asyncio.sleep(_SHUTDOWN_GRACE_S)

    async def _abort_response(self, disconnected: "asyncio.Task[None]") -> None:
        """Abort the caller's connection, so that the caller does not treat the response as complete."""
        connection = get_connection(self._scope)
        if connection is None:
            raise UnreachableError("the agent closed the connection before the response was complete")
        connection.abort()
        # The rest of the request body is not read.
        self._request_sent.set()
        await disconnected


def _parse_target(scope: Scope) -> tuple[str, int, str]:
    """Parse a proxy path into the host, port and path of its target. Raises MalformedRequest."""
    # An agent may distinguish a path with a trailing slash, which the registry does not.
    slash = "/" if scope["raw_path"].endswith(b"/") else ""
    found = _TARGET_PATTERN.fullmatch(f"{scope['path_params']['target']}{slash}")
    if found is None or scope["query_string"] or _DOT_SEGMENT.search(found[3]) or int(found[2]) >= 1 << 16:
        raise MalformedRequest.of([Detail("target", _EXPECTED_TARGET)])
    return found[1].strip("[]"), int(found[2]), found[3]


def _timeout_seconds(headers: Sequence[tuple[bytes, bytes]]) -> int:
    """Return the timeout of a proxied call in whole seconds."""
    requested = next((value.strip() for name, value in headers if name == b"x-mesh-timeout"), b"")
    seconds = int(requested) if requested.isdigit() and len(requested) < 10 else 0  # noqa: PLR2004
    return min(seconds, _MAX_TIMEOUT_S) or _DEFAULT_TIMEOUT_S


def _content_length(headers: Sequence[tuple[bytes, bytes]]) -> int | None:
    """Return the declared size of a request body; None if it is not declared. Raises RequestTooLarge."""
    declared = next((value for name, value in headers if name == b"content-length"), b"")
    if not declared.isdigit():
        return None
    if int(declared) > MAX_BODY_BYTES:
        raise _too_large()
    return int(declared)


def _too_large() -> RequestTooLarge:
    return RequestTooLarge(f"The body exceeds the limit of {MAX_BODY_BYTES} bytes")
