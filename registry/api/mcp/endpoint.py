"""POST /mcp: the tools over MCP's streamable HTTP, without sessions, so that any replica answers any call.

What is checked here comes before the SDK: the body's bound and kind, JSON as strict as everywhere, how many calls at
once. The SDK is an extra and takes most of a second to import, so it is, beside the event loop, at the first call.
"""

import asyncio
import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson
from starlette.types import Message, Receive, Scope, Send

from registry.api.error_responses import body_of
from registry.api.mcp.tools import Call
from registry.api.request.body import read_body
from registry.api.request.query_params import bad
from registry.errors import InvalidRequest, NotInstalled, StoreUnavailable
from registry.model.validation.json_body import read_document

if TYPE_CHECKING:
    from registry.api.mcp.server import McpServer

# As many as may wait for the store. The SDK holds each message several times over.
_MOST = 1000
_MOST_BYTES = 16 * 1024 * 1024
_PARSE_ERROR, _INVALID_REQUEST = -32700, -32600
_JSON = (b"content-type", b"application/json")


class McpRoute:
    """Serves POST /mcp, as plain ASGI, over the calls that serve the tools."""

    def __init__(self, calls: Mapping[str, Call]) -> None:
        self._calls = calls
        self._opening: asyncio.Task[McpServer] | None = None
        self._under_way = 0
        self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one message. Raises NotInstalled without the SDK, StoreUnavailable while too many are answered."""
        body = await read_body(scope, receive)
        if self._under_way >= _MOST or self._bytes + len(body) > _MOST_BYTES:
            raise StoreUnavailable("Too many MCP calls are being answered; try again shortly", reason="queue_full")
        self._under_way += 1
        self._bytes += len(body)
        try:
            refusal = _refusal(body)
            if refusal is not None:
                await _refuse(refusal, send)
                return
            server = await self._opened()
            await server.serve(_plain(scope), _once(body, receive), send)
        finally:
            self._under_way -= 1
            self._bytes -= len(body)

    async def _opened(self) -> "McpServer":
        if self._opening is None:
            if importlib.util.find_spec("mcp") is None or importlib.util.find_spec("mcp_types") is None:
                raise NotInstalled("MCP", "mcp", "the same tools are at POST /mcp/tools/<name>")
            self._opening = asyncio.create_task(self._open())
        # Whoever hangs up does not stop the others' waiting.
        return await asyncio.shield(self._opening)

    async def _open(self) -> "McpServer":
        server = await asyncio.to_thread(_imported)
        return server(self._calls)


def _imported() -> "type[McpServer]":
    from registry.api.mcp.server import McpServer  # noqa: PLC0415 - an extra, and slow to import

    return McpServer


def _check_envelope(message: object) -> None:
    """Refuse what is no message of JSON-RPC; the SDK would say so less clearly, or take it for a notification."""
    if not isinstance(message, dict):
        raise bad("body", "expected one JSON-RPC message, an object; MCP has no batches")
    if message.get("jsonrpc") != "2.0":
        raise bad("jsonrpc", 'expected "2.0"')
    if "method" not in message and ("result" in message or "error" in message):
        return
    if not isinstance(message.get("method"), str):
        raise bad("method", "expected the name of a method, a string")
    # By exact type: to Python, True is an int.
    if "id" in message and type(message["id"]) not in (str, int):
        raise bad("id", "expected a string or an integer")
    if not isinstance(message.get("params", {}), dict):
        raise bad("params", "expected an object")


def _refusal(body: bytes) -> bytes | None:
    """Return what answers a body that is no JSON, or none that we keep, or no message; None where it is one."""
    message: Any = None
    try:
        message = read_document(body)
        _check_envelope(message)
    except InvalidRequest as error:
        code = _PARSE_ERROR if message is None else _INVALID_REQUEST
        given = message.get("id") if isinstance(message, dict) else None
        said = {"code": code, "message": str(error), "data": body_of(error)}
        return orjson.dumps({"jsonrpc": "2.0", "id": given if type(given) in (str, int) else None, "error": said})
    return None


async def _refuse(content: bytes, send: Send) -> None:
    headers = [_JSON, (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def _plain(scope: Scope) -> Scope:
    """Return the scope as the SDK wants it: it asks for headers that HTTP lets a client leave out."""
    headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
    if all(name != b"accept" for name, _ in headers):
        headers.append((b"accept", b"*/*"))
    return {**scope, "headers": [*headers, _JSON]}


def _once(body: bytes, receive: Receive) -> Receive:
    """Return a channel that gives a body that was read already, then what else comes."""
    left = [body]

    async def given() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return given
