"""MCP sessions with providers, one for each endpoint; imported with the first call of a dependency."""

import asyncio
import contextvars
import functools
import json
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, cast

import mcp
import mcp_types
import pydantic
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from mcp_mesh_client.agent.env import mcp_url
from mcp_mesh_client.agent.provider_http_client import OUTCOMES, ProviderHttpClient
from mcp_mesh_client.errors import DependencyFailed, DependencyTimeout, DependencyUnavailable, Outcome
from mcp_mesh_client.network_environment import describe, proxy_for
from mcp_mesh_client.types.dependencies import Provider

_log = logging.getLogger("mcp_mesh_client")

# An agent needs few providers at the same time.
_MAX_SESSIONS = 64
# To connect, a call may use this part of its timeout, so that time remains for another provider; at most these seconds.
_CONNECT_SHARE, _MAX_CONNECT_TIMEOUT_S = 0.5, 3.0
# The start of an object that the SDK has encoded for a tool without a return type: indented by two.
_UNTYPED_OBJECT_PREFIX = '{\n  "'


class McpSessions:
    """Calls tools of providers over MCP sessions. It belongs to one event loop and ends with this loop."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, _McpSession] = OrderedDict()

    async def call(self, capability: str, provider: Provider, arguments: dict[str, Any], timeout: float) -> Any:
        """Return the result of a provider's tool.

        Raises DependencyUnavailable, DependencyTimeout or DependencyFailed, which name the capability and the provider.
        """
        target = f"{capability}: {provider['tool_name']} on {provider['agent_id']} at {provider['endpoint']}"
        try:
            async with asyncio.timeout(timeout):
                result = await self._session(provider).call(target, provider["tool_name"], arguments, timeout)
        except TimeoutError as error:
            raise DependencyTimeout(f"{target}: no response within {timeout:g} s") from error
        except DependencyUnavailable:
            # The provider may be another program after a restart; the next call opens a new session.
            if (session := self._sessions.pop(mcp_url(provider["endpoint"]), None)) is not None:
                session.close_when_idle()
            raise
        if result.is_error:
            raise DependencyFailed(f"{target}: {_text_content(result) or 'the tool failed without a message'}")
        return tool_value(result)

    async def can_connect(self, provider: Provider, timeout: float) -> bool:
        """Return whether an MCP session with a provider is open, or opens within some seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._session(provider).wait_open()
        except (TimeoutError, DependencyUnavailable):
            return False
        return True

    async def close(self) -> None:
        """Close all sessions."""
        sessions = tuple(self._sessions.values())
        for session in sessions:
            session.close_when_idle()
        await asyncio.gather(*(session.wait_closed() for session in sessions))

    def _session(self, provider: Provider) -> "_McpSession":
        url = mcp_url(provider["endpoint"])
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
    """One MCP session in its own task; an unexpected error ends the task and all calls in progress."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._proxy = proxy_for(url)
        self._client: asyncio.Future[mcp.Client] = asyncio.get_running_loop().create_future()
        self._closing = asyncio.Event()
        # The calls in progress, with the seconds that each may use to connect.
        self._callers = dict[asyncio.Task[Any], float]()
        self._idle = asyncio.Event()
        self._repeatable_tools = frozenset[str]()
        self._http: ProviderHttpClient | None = None
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

    async def wait_open(self) -> None:
        """Wait until the session is open. Raises DependencyUnavailable if it cannot be opened."""
        await asyncio.wait({self._client})
        if self._client.cancelled():
            raise self._unavailable(self._url, "", self._end_cause(), "not_sent")

    async def call(self, target: str, tool: str, arguments: dict[str, Any], timeout: float) -> mcp_types.CallToolResult:
        """Call a tool; the caller applies the timeout, of which connecting may use a part.

        Raises DependencyUnavailable if there is no response, DependencyFailed for an error.
        """
        caller = cast("asyncio.Task[Any]", asyncio.current_task())
        cancelling = caller.cancelling()
        self._callers[caller] = connect_timeout = min(_MAX_CONNECT_TIMEOUT_S, timeout * _CONNECT_SHARE)
        self._idle.clear()
        try:
            if not self._client.done():
                await self._wait_connected(target, connect_timeout)
            client = self._client.result() if self._client.done() else await asyncio.shield(self._client)
            return await client.call_tool(tool, arguments)
        except asyncio.CancelledError:
            # The session has ended, unless the caller was cancelled, too.
            if self._task.done() and (caller.cancelling() == cancelling or caller.uncancel() == cancelling):
                outcome: Outcome = "not_sent" if self._client.cancelled() else "unknown"
                raise self._unavailable(target, tool, self._end_cause(), outcome) from None
            raise
        except MCPError as error:
            if (lost := OUTCOMES.get(error.code)) is not None:
                raise self._unavailable(target, tool, error, lost) from error
            raise DependencyFailed(f"{target}: {error}") from error
        except (pydantic.ValidationError, RuntimeError) as error:
            raise DependencyFailed(f"{target}: invalid tool result: {error}") from error
        finally:
            del self._callers[caller]
            if not self._callers:
                self._idle.set()

    async def _wait_connected(self, target: str, timeout: float) -> None:
        """Wait some seconds for the session. Raises DependencyUnavailable if none of its requests has connected."""
        await asyncio.wait({self._client}, timeout=timeout)
        if not self._client.done() and not (self._http is not None and self._http.has_connected):
            cause = TimeoutError(f"no connection within {timeout:g} s")
            raise self._unavailable(target, "", cause, "not_sent")

    def _connect_timeout(self) -> float:
        """Return the seconds that a request may take to connect: those of the call with the least time."""
        return min(self._callers.values(), default=_MAX_CONNECT_TIMEOUT_S)

    async def _run(self) -> None:
        try:
            async with (
                ProviderHttpClient(self._url, self._proxy, self._connect_timeout) as self._http,
                mcp.Client(streamable_http_client(self._url, http_client=self._http)) as client,
            ):
                # The SDK lists the tools in any case, to check their results.
                self._repeatable_tools = await _repeatable_tools(client)
                self._http.session_is_open = True
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

    def _end_cause(self) -> BaseException | None:
        """Return the error that ended the session, if it ended with an error."""
        return None if not self._task.done() or self._task.cancelled() else self._task.exception()

    def _unavailable(
        self, target: str, tool: str, cause: BaseException | None, outcome: Outcome
    ) -> DependencyUnavailable:
        """Return the error of a call without a response."""
        message = ("the connection was lost" if cause is None else _root_cause(cause)) + describe(self._proxy)
        repeatable = outcome == "not_sent" or tool in self._repeatable_tools
        error = DependencyUnavailable(f"{target}: {message}", outcome=outcome, repeatable=repeatable)
        error.__cause__ = cause
        return error


async def _repeatable_tools(client: mcp.Client) -> frozenset[str]:
    """Return the tools whose annotations state that a repeated call is harmless."""
    try:
        tools = (await client.list_tools()).tools
    except (MCPError, pydantic.ValidationError):
        return frozenset()
    hints = {tool.name: tool.annotations for tool in tools if tool.annotations is not None}
    return frozenset(name for name, hint in hints.items() if hint.read_only_hint or hint.idempotent_hint)


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
