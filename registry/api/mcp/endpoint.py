"""POST /mcp: the tools over MCP's streamable HTTP, without sessions, so that any replica answers any call.

The size and type of the body, its JSON, and the number of concurrent calls are checked here, before the SDK. Importing
the SDK takes most of a second, so the first call imports it, in a thread.
"""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson
from starlette.types import Message, Receive, Scope, Send

from registry.api.error_responses import error_body
from registry.api.mcp.tools import ToolHandler
from registry.api.request.body import read_body
from registry.api.request.query_params import invalid
from registry.errors import InvalidRequest, StoreUnavailable
from registry.model.validation.json_body import decode_json_body

if TYPE_CHECKING:
    from registry.api.mcp.server import McpServer

# As many as may wait for the store. The SDK holds each message several times over.
_MAX_CALLS = 1000
_MAX_BUFFERED_BYTES = 16 * 1024 * 1024
_PARSE_ERROR, _INVALID_REQUEST = -32700, -32600
_JSON_CONTENT_TYPE = (b"content-type", b"application/json")


class McpEndpoint:
    """Serves POST /mcp, as plain ASGI, over the calls that serve the tools."""

    def __init__(self, handlers: Mapping[str, ToolHandler]) -> None:
        self._handlers = handlers
        self._server_task: asyncio.Task[McpServer] | None = None
        self._active_calls = 0
        self._buffered_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one JSON-RPC message. Raises StoreUnavailable while too many calls are in progress."""
        body = await read_body(scope, receive)
        if self._active_calls >= _MAX_CALLS or self._buffered_bytes + len(body) > _MAX_BUFFERED_BYTES:
            raise StoreUnavailable("Too many MCP calls in progress; try again shortly", reason="queue_full")
        self._active_calls += 1
        self._buffered_bytes += len(body)
        try:
            refusal = _jsonrpc_error(body)
            if refusal is not None:
                await _send_bad_request(refusal, send)
                return
            server = await self._get_server()
            await server.serve(_normalize_headers(scope), _replay_body(body, receive), send)
        finally:
            self._active_calls -= 1
            self._buffered_bytes -= len(body)

    async def _get_server(self) -> "McpServer":
        if self._server_task is None:
            self._server_task = asyncio.create_task(self._load_server())
        # Whoever hangs up does not stop the others' waiting.
        return await asyncio.shield(self._server_task)

    async def _load_server(self) -> "McpServer":
        server = await asyncio.to_thread(_import_server_class)
        return server(self._handlers)


def _import_server_class() -> "type[McpServer]":
    from registry.api.mcp.server import McpServer  # noqa: PLC0415 - takes most of a second

    return McpServer


def _check_envelope(message: object) -> None:
    """Refuse what is no message of JSON-RPC; the SDK would say so less clearly, or take it for a notification."""
    if not isinstance(message, dict):
        raise invalid("body", "expected one JSON-RPC message, an object; batches are not supported")
    if message.get("jsonrpc") != "2.0":
        raise invalid("jsonrpc", 'expected "2.0"')
    if "method" not in message and ("result" in message or "error" in message):
        return
    if not isinstance(message.get("method"), str):
        raise invalid("method", "expected the name of a method, a string")
    # By exact type: to Python, True is an int.
    if "id" in message and type(message["id"]) not in (str, int):
        raise invalid("id", "expected a string or an integer")
    if not isinstance(message.get("params", {}), dict):
        raise invalid("params", "expected an object")


def _jsonrpc_error(body: bytes) -> bytes | None:
    """Return what answers a body that is no JSON, or none that we keep, or no message; None where it is one."""
    message: Any = None
    try:
        message = decode_json_body(body)
        _check_envelope(message)
    except InvalidRequest as error:
        code = _PARSE_ERROR if message is None else _INVALID_REQUEST
        given = message.get("id") if isinstance(message, dict) else None
        said = {"code": code, "message": str(error), "data": error_body(error)}
        return orjson.dumps({"jsonrpc": "2.0", "id": given if type(given) in (str, int) else None, "error": said})
    return None


async def _send_bad_request(body: bytes, send: Send) -> None:
    headers = [_JSON_CONTENT_TYPE, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _normalize_headers(scope: Scope) -> Scope:
    """Return the scope as the SDK wants it: it asks for headers that HTTP lets a client leave out."""
    headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
    if all(name != b"accept" for name, _ in headers):
        headers.append((b"accept", b"*/*"))
    return {**scope, "headers": [*headers, _JSON_CONTENT_TYPE]}


def _replay_body(body: bytes, receive: Receive) -> Receive:
    """Return a channel that gives a body that was read already, then what else comes."""
    left = [body]

    async def given() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return given
