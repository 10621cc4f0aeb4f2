"""MCP sessions with those who provide dependencies: one for each endpoint, kept open. Imported at the first call."""

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

# Providers to stay connected with; an agent needs a few. Seconds to reach one, and a connection may be idle: less than
# the five after which uvicorn closes it.
_MAX_SESSIONS, _CONNECT_TIMEOUT_S, _KEEPALIVE_EXPIRY_S = 64, 5.0, 3.0
# How the SDK writes an object that a tool returns without saying so: indented by two, which by hand nobody does.
_UNTYPED_OBJECT_PREFIX = '{\n  "'


class McpSessions:
    """Calls tools of providers. It belongs to one event loop, and ends with it."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, _McpSession] = OrderedDict()

    async def call(self, provider: Provider, arguments: dict[str, Any], timeout: float) -> Any:
        """Return what a provider's tool returns.

        Raises DependencyUnavailable, DependencyTimeout or DependencyFailed.
        """
        whom = f"{provider['tool_name']} on {provider['agent_id']} at {provider['endpoint']}"
        try:
            async with asyncio.timeout(timeout):
                result = await self._session(mcp_url(provider["endpoint"])).call(whom, provider["tool_name"], arguments)
        except TimeoutError as error:
            raise DependencyTimeout(f"{whom}: no response within {timeout:g} s") from error
        if result.is_error:
            raise DependencyFailed(f"{whom}: {_text_content(result) or 'the tool failed without a message'}")
        return tool_value(result)

    async def close(self) -> None:
        """End all sessions."""
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
        # What is held of a session holds its loop, and that is to go when it is closed.
        if self._sessions.get(url) is session:
            del self._sessions[url]


class _McpSession:
    """One session, in a task of its own: it ends with whatever befalls it, and so do the calls in it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: asyncio.Future[mcp.Client] = asyncio.get_running_loop().create_future()
        self._closing = asyncio.Event()
        self._callers = set[asyncio.Task[Any]]()
        self._idle = asyncio.Event()
        # In a context of its own: it is no part of the call that opens it.
        self._task = asyncio.create_task(self._run(), context=contextvars.Context())
        self._task.add_done_callback(self._cancel_callers)

    @property
    def is_closed(self) -> bool:
        """Whether a new one is needed."""
        return self._task.done() or self._closing.is_set()

    def close_when_idle(self) -> None:
        """Begin no more calls; end when those under way are over."""
        self._closing.set()

    def on_closed(self, callback: Callable[["_McpSession"], None]) -> None:
        """Let somebody know when it has ended."""
        self._task.add_done_callback(lambda _life: callback(self))

    async def wait_closed(self) -> None:
        """Wait until it has ended, however."""
        await asyncio.wait({self._task})

    async def call(self, target: str, tool: str, arguments: dict[str, Any]) -> mcp_types.CallToolResult:
        """Call a tool; where the session ends before it answers, raise DependencyUnavailable."""
        caller = cast("asyncio.Task[Any]", asyncio.current_task())
        cancelling = caller.cancelling()
        self._callers.add(caller)
        self._idle.clear()
        try:
            return await self._call(tool, arguments)
        except asyncio.CancelledError:
            # Of the session's end, unless somebody else cancels the caller, too.
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
        # A call has a time of its own; but to connect must not take all of it.
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
        """End the calls that are under way; that nobody is in it is no trouble, the next call opens another one."""
        for caller in self._callers:
            caller.cancel()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.debug("mcp_session_closed url=%s error=%s", self._url, _root_cause(error))

    def _connection_lost(self, target: str) -> DependencyUnavailable:
        """Return what the end of the session means to a call."""
        why = None if not self._task.done() or self._task.cancelled() else self._task.exception()
        said = "the connection was lost" if why is None else _root_cause(why)
        error = DependencyUnavailable(f"{target}: {said}")
        error.__cause__ = why
        return error


def mcp_url(endpoint: str) -> str:
    """Return where a provider speaks MCP: at its endpoint, or under `/mcp` where that has no path."""
    return endpoint.rstrip("/") + "/mcp" if urlsplit(endpoint).path in ("", "/") else endpoint


def tool_value(result: mcp_types.CallToolResult) -> Any:
    """Return what a tool returned: its structured content, else its text; a list of what there is, if it is more."""
    structured = result.structured_content
    if structured is not None:
        return structured["result"] if _is_wrapped(structured, result) else structured
    values = [
        _parse_untyped_object(each.text) if isinstance(each, mcp_types.TextContent) else each for each in result.content
    ]
    return values if len(values) > 1 else values[0] if values else None


def _parse_untyped_object(text: str) -> Any:
    """Return the object that a text is, where it is written just as the SDK writes those of tools without a type."""
    if not text.startswith(_UNTYPED_OBJECT_PREFIX):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _is_wrapped(structured: dict[str, Any], result: mcp_types.CallToolResult) -> bool:
    """Tell whether the SDK put what is no object into one; an object that looks like that is told again as text."""
    if structured.keys() != {"result"}:
        return False
    try:
        return bool(json.loads(_text_content(result)) != structured)
    except ValueError:
        return True


def _text_content(result: mcp_types.CallToolResult) -> str:
    return "\n".join(each.text for each in result.content if isinstance(each, mcp_types.TextContent))


def _root_cause(error: BaseException) -> str:
    """Return what went wrong first, out of the groups that task groups make of it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
