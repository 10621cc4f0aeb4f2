"""MCP sessions with providers, one for each endpoint; imported with the first call of a dependency."""

import asyncio
import contextvars
import functools
import json
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import urlsplit

import httpx2
import mcp
import mcp_types
import pydantic
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from mcp_mesh_client.errors import DependencyFailed, DependencyTimeout, DependencyUnavailable
from mcp_mesh_client.types.dependencies import Provider

_log = logging.getLogger("mcp_mesh_client")

# An agent needs few providers at the same time. The keepalive is shorter than the 5 s after which uvicorn closes a
# connection.
_MAX_SESSIONS, _CONNECT_TIMEOUT_S, _KEEPALIVE_EXPIRY_S = 64, 5.0, 3.0
# The start of an object that the SDK has encoded for a tool without a return type: indented by two.
_UNTYPED_OBJECT_PREFIX = '{\n  "'


class McpSessions:
    """Calls tools of providers over MCP sessions. It belongs to one event loop and ends with this loop."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, _McpSession] = OrderedDict()

    async def call(self, provider: Provider, arguments: dict[str, Any], timeout: float) -> Any:
        """Return the result of a provider's tool.

        Raises DependencyUnavailable, DependencyTimeout or DependencyFailed.
        """
        target = f"{provider['tool_name']} on {provider['agent_id']} at {provider['endpoint']}"
        try:
            async with asyncio.timeout(timeout):
                result = await self._session(mcp_url(provider["endpoint"])).call(
                    target, provider["tool_name"], arguments
                )
        except TimeoutError as error:
            raise DependencyTimeout(f"{target}: no response within {timeout:g} s") from error
        if result.is_error:
            raise DependencyFailed(f"{target}: {_text_content(result) or 'the tool failed without a message'}")
        return tool_value(result)

    async def close(self) -> None:
        """Close all sessions."""
        sessions = tuple(self._sessions.values())
        for session in sessions:
            session.close_when_idle()
        await asyncio.gather(*(session.wait_closed() for session in sessions))

    def _session(self, url: str) -> "_McpSession":
        session = self._sessions.get(url)
        if session is None or session.is_closed:
            session = self._sessions[url] = _McpSession(url)
            session.on_closed(functools.partial(self._remove, url))
        self._sessions.move_to_end(url)
        while len(self._sessions) > _MAX_SESSIONS:
            self._sessions.popitem(last=False)[1].close_when_idle()
        return session

    def _remove(self, url: str, session: "_McpSession") -> None:
        # A stored session would keep its event loop in memory.
        if self._sessions.get(url) is session:
            del self._sessions[url]


class _McpSession:
    """One MCP session in its own task; an error ends the task and all calls in progress."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: asyncio.Future[mcp.Client] = asyncio.get_running_loop().create_future()
        self._closing = asyncio.Event()
        self._callers = set[asyncio.Task[Any]]()
        self._idle = asyncio.Event()
        # In a context of its own, because the session outlives the call that opens it.
        self._task = asyncio.create_task(self._run(), context=contextvars.Context())
        self._task.add_done_callback(self._cancel_callers)

    @property
    def is_closed(self) -> bool:
        """Whether the session accepts no more calls."""
        return self._task.done() or self._closing.is_set()

    def close_when_idle(self) -> None:
        """Accept no more calls, and close the session after the calls in progress."""
        self._closing.set()

    def on_closed(self, callback: Callable[["_McpSession"], None]) -> None:
        """Call a function when the session has ended."""
        self._task.add_done_callback(lambda _task: callback(self))

    async def wait_closed(self) -> None:
        """Wait until the session has ended."""
        await asyncio.wait({self._task})

    async def call(self, target: str, tool: str, arguments: dict[str, Any]) -> mcp_types.CallToolResult:
        """Call a tool. Raises DependencyUnavailable if the session ends before the response."""
        caller = cast("asyncio.Task[Any]", asyncio.current_task())
        cancelling = caller.cancelling()
        self._callers.add(caller)
        self._idle.clear()
        try:
            return await self._call(tool, arguments)
        except asyncio.CancelledError:
            # The session has ended, unless the caller was cancelled, too.
            if self._task.done() and (caller.cancelling() == cancelling or caller.uncancel() == cancelling):
                raise self._connection_lost(target) from None
            raise
        except MCPError as error:
            if error.code == mcp_types.CONNECTION_CLOSED:
                raise self._connection_lost(target) from error
            raise DependencyFailed(f"{target}: {error}") from error
        except (pydantic.ValidationError, RuntimeError) as error:
            raise DependencyFailed(f"{target}: invalid tool result: {error}") from error
        finally:
            self._callers.discard(caller)
            if not self._callers:
                self._idle.set()

    async def _call(self, tool: str, arguments: dict[str, Any]) -> mcp_types.CallToolResult:
        client = self._client.result() if self._client.done() else await asyncio.shield(self._client)
        return await client.call_tool(tool, arguments)

    async def _run(self) -> None:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=_KEEPALIVE_EXPIRY_S)
        # Each call has its own timeout; connecting must not use up all of it.
        timeout = httpx2.Timeout(None, connect=_CONNECT_TIMEOUT_S)
        try:
            async with (
                httpx2.AsyncClient(limits=limits, timeout=timeout) as http,
                mcp.Client(streamable_http_client(self._url, http_client=http)) as client,
            ):
                self._client.set_result(client)
                await self._closing.wait()
                await self._idle.wait()
        finally:
            self._client.cancel()

    def _cancel_callers(self, task: asyncio.Task[None]) -> None:
        """Cancel the calls in progress when the session has ended; the next call opens another session."""
        for caller in self._callers:
            caller.cancel()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.debug("mcp_session_closed url=%s error=%s", self._url, _root_cause(error))

    def _connection_lost(self, target: str) -> DependencyUnavailable:
        """Return the error for a call whose session ended."""
        cause = None if not self._task.done() or self._task.cancelled() else self._task.exception()
        message = "the connection was lost" if cause is None else _root_cause(cause)
        error = DependencyUnavailable(f"{target}: {message}")
        error.__cause__ = cause
        return error


def mcp_url(endpoint: str) -> str:
    """Return the MCP URL of a provider: its endpoint, with `/mcp` if it has no path."""
    return endpoint.rstrip("/") + "/mcp" if urlsplit(endpoint).path in ("", "/") else endpoint


def tool_value(result: mcp_types.CallToolResult) -> Any:
    """Return the value of a tool's result: structured content or text; a list if there are several items."""
    structured = result.structured_content
    if structured is not None:
        return structured["result"] if _is_wrapped(structured, result) else structured
    values = [
        _parse_untyped_object(each.text) if isinstance(each, mcp_types.TextContent) else each for each in result.content
    ]
    return values if len(values) > 1 else values[0] if values else None


def _parse_untyped_object(text: str) -> Any:
    """Decode a JSON object that the SDK sent as text for a tool without a return type; return other text as it is."""
    if not text.startswith(_UNTYPED_OBJECT_PREFIX):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _is_wrapped(structured: dict[str, Any], result: mcp_types.CallToolResult) -> bool:
    """Return whether the SDK wrapped the value of a tool in an object with the key `result`."""
    if structured.keys() != {"result"}:
        return False
    try:
        return bool(json.loads(_text_content(result)) != structured)
    except ValueError:
        return True


def _text_content(result: mcp_types.CallToolResult) -> str:
    return "\n".join(each.text for each in result.content if isinstance(each, mcp_types.TextContent))


def _root_cause(error: BaseException) -> str:
    """Return the message of the first error in nested exception groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
