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

log = logging.getLogger("mcp_mesh_client")

# Providers to stay connected with; an agent needs a few. Seconds to reach one, and a connection may be idle: less than
# the five after which uvicorn closes it.
_MOST, _CONNECT, _IDLE = 64, 5.0, 3.0
# How the SDK writes an object that a tool returns without saying so: indented by two, which by hand nobody does.
_OBJECT = '{\n  "'


class Sessions:
    """Calls tools of providers. It belongs to one event loop, and ends with it."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, _Session] = OrderedDict()

    async def call(self, provider: Provider, arguments: dict[str, Any], timeout: float) -> Any:
        """Return what a provider's tool returns.

        Raises DependencyUnavailable, DependencyTimeout or DependencyFailed.
        """
        whom = f"{provider['tool_name']} of {provider['agent_id']} at {provider['endpoint']}"
        try:
            async with asyncio.timeout(timeout):
                result = await self._session(mcp_url(provider["endpoint"])).call(whom, provider["tool_name"], arguments)
        except TimeoutError as error:
            raise DependencyTimeout(f"{whom}: no answer within {timeout:g} s") from error
        if result.is_error:
            raise DependencyFailed(f"{whom}: {_text(result) or 'it failed, and does not say why'}")
        return value_of(result)

    async def close(self) -> None:
        """End all sessions."""
        sessions = tuple(self._open.values())
        for session in sessions:
            session.end()
        await asyncio.gather(*(session.ended() for session in sessions))

    def _session(self, url: str) -> "_Session":
        session = self._open.get(url)
        if session is None or session.is_over:
            session = self._open[url] = _Session(url)
            session.when_over(functools.partial(self._forget, url))
        self._open.move_to_end(url)
        while len(self._open) > _MOST:
            self._open.popitem(last=False)[1].end()
        return session

    def _forget(self, url: str, session: "_Session") -> None:
        # What is held of a session holds its loop, and that is to go when it is closed.
        if self._open.get(url) is session:
            del self._open[url]


class _Session:
    """One session, in a task of its own: it ends with whatever befalls it, and so do the calls in it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: asyncio.Future[mcp.Client] = asyncio.get_running_loop().create_future()
        self._told_to_end = asyncio.Event()
        self._callers = set[asyncio.Task[Any]]()
        self._quiet = asyncio.Event()
        # In a context of its own: it is no part of the call that opens it.
        self._life = asyncio.create_task(self._live(), context=contextvars.Context())
        self._life.add_done_callback(self._cut_off)

    @property
    def is_over(self) -> bool:
        """Whether a new one is needed."""
        return self._life.done() or self._told_to_end.is_set()

    def end(self) -> None:
        """Begin no more calls; end when those under way are over."""
        self._told_to_end.set()

    def when_over(self, tell: Callable[["_Session"], None]) -> None:
        """Let somebody know when it has ended."""
        self._life.add_done_callback(lambda _life: tell(self))

    async def ended(self) -> None:
        """Wait until it has ended, however."""
        await asyncio.wait({self._life})

    async def call(self, whom: str, tool: str, arguments: dict[str, Any]) -> mcp_types.CallToolResult:
        """Call a tool; where the session ends before it answers, raise DependencyUnavailable."""
        caller = cast("asyncio.Task[Any]", asyncio.current_task())
        cancelling = caller.cancelling()
        self._callers.add(caller)
        self._quiet.clear()
        try:
            return await self._call(tool, arguments)
        except asyncio.CancelledError:
            # Of the session's end, unless somebody else cancels the caller, too.
            if self._life.done() and (caller.cancelling() == cancelling or caller.uncancel() == cancelling):
                raise self._lost(whom) from None
            raise
        except MCPError as error:
            if error.code == mcp_types.CONNECTION_CLOSED:
                raise self._lost(whom) from error
            raise DependencyFailed(f"{whom}: {error}") from error
        except (pydantic.ValidationError, RuntimeError) as error:
            raise DependencyFailed(f"{whom}: its answer is no result of a tool: {error}") from error
        finally:
            self._callers.discard(caller)
            if not self._callers:
                self._quiet.set()

    async def _call(self, tool: str, arguments: dict[str, Any]) -> mcp_types.CallToolResult:
        client = self._client.result() if self._client.done() else await asyncio.shield(self._client)
        return await client.call_tool(tool, arguments)

    async def _live(self) -> None:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=_IDLE)
        # A call has a time of its own; but to connect must not take all of it.
        timeout = httpx2.Timeout(None, connect=_CONNECT)
        try:
            async with (
                httpx2.AsyncClient(limits=limits, timeout=timeout) as http,
                mcp.Client(streamable_http_client(self._url, http_client=http)) as client,
            ):
                self._client.set_result(client)
                await self._told_to_end.wait()
                await self._quiet.wait()
        finally:
            self._client.cancel()

    def _cut_off(self, life: asyncio.Task[None]) -> None:
        """End the calls that are under way; that nobody is in it is no trouble, the next call opens another one."""
        for caller in self._callers:
            caller.cancel()
        if not life.cancelled() and (error := life.exception()) is not None:
            log.debug("The session with %s ended: %s", self._url, _innermost(error))

    def _lost(self, whom: str) -> DependencyUnavailable:
        """Return what the end of the session means to a call."""
        why = None if not self._life.done() or self._life.cancelled() else self._life.exception()
        said = "the connection was lost" if why is None else _innermost(why)
        error = DependencyUnavailable(f"{whom}: {said}")
        error.__cause__ = why
        return error


def mcp_url(endpoint: str) -> str:
    """Return where a provider speaks MCP: at its endpoint, or under `/mcp` where that has no path."""
    return endpoint.rstrip("/") + "/mcp" if urlsplit(endpoint).path in ("", "/") else endpoint


def value_of(result: mcp_types.CallToolResult) -> Any:
    """Return what a tool returned: its structured content, else its text; a list of what there is, if it is more."""
    structured = result.structured_content
    if structured is not None:
        return structured["result"] if _is_wrapped(structured, result) else structured
    values = [_plain(each.text) if isinstance(each, mcp_types.TextContent) else each for each in result.content]
    return values if len(values) > 1 else values[0] if values else None


def _plain(text: str) -> Any:
    """Return the object that a text is, where it is written just as the SDK writes those of tools without a type."""
    if not text.startswith(_OBJECT):
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
        return bool(json.loads(_text(result)) != structured)
    except ValueError:
        return True


def _text(result: mcp_types.CallToolResult) -> str:
    return "\n".join(each.text for each in result.content if isinstance(each, mcp_types.TextContent))


def _innermost(error: BaseException) -> str:
    """Return what went wrong first, out of the groups that task groups make of it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
