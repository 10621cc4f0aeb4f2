"""POST /mcp: the registry's tools over MCP's streamable HTTP, without sessions.

Without sessions, any replica can serve any call. The size and type of the body, its JSON, and the number of concurrent
calls are checked here, before the SDK. The first call imports the SDK, in a thread: it takes most of a second.
"""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson
from starlette.types import Message, Receive, Scope, Send

from registry.api.error_responses import JSONRPC_INVALID_REQUEST, jsonrpc_error
from registry.api.mcp.tools import ToolHandler
from registry.api.request.body import read_body
from registry.api.request.query_params import invalid
from registry.api.response.json_responses import send_json
from registry.api.response.json_rewrite import JsonRewriter
from registry.errors import InvalidRequest, StoreUnavailable
from registry.model.validation.json_body import decode_json_body

if TYPE_CHECKING:
    from registry.api.mcp.server import McpServer

# The number of calls that may wait for the store. The SDK keeps several copies of each message in memory.
_MAX_CALLS = 1000
_MAX_BUFFERED_BYTES = 16 * 1024 * 1024
_PARSE_ERROR = -32700
_JSON_CONTENT_TYPE = (b"content-type", b"application/json")


class McpEndpoint:
    """Serves POST /mcp as a plain ASGI application, with the handlers of the tools."""

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
            error = _jsonrpc_error(body)
            if error is not None:
                await send_json(send, 400, error)
                return
            server = await self._get_server()
            respond = JsonRewriter(send, lambda body: body + b"\n")
            await server.serve(_normalize_headers(scope), _replay_body(body, receive), respond)
        finally:
            self._active_calls -= 1
            self._buffered_bytes -= len(body)

    async def _get_server(self) -> "McpServer":
        if self._server_task is None:
            self._server_task = asyncio.create_task(asyncio.to_thread(self._load_server))
        # A client that disconnects must not cancel the import for other clients.
        return await asyncio.shield(self._server_task)

    def _load_server(self) -> "McpServer":
        from registry.api.mcp.server import McpServer  # noqa: PLC0415 - takes most of a second

        return McpServer(self._handlers)


def _check_envelope(message: object) -> None:
    """Raise an error for an invalid JSON-RPC message, because the MCP SDK reports such messages poorly."""
    if not isinstance(message, dict):
        raise invalid("body", "expected one JSON-RPC message, an object; batches are not supported")
    if message.get("jsonrpc") != "2.0":
        raise invalid("jsonrpc", 'expected "2.0"')
    if "method" not in message and ("result" in message or "error" in message):
        return
    if not isinstance(message.get("method"), str):
        raise invalid("method", "expected the name of a method, a string")
    # The exact type is compared because bool is a subclass of int.
    if "id" in message and type(message["id"]) not in (str, int):
        raise invalid("id", "expected a string or an integer")
    if not isinstance(message.get("params", {}), dict):
        raise invalid("params", "expected an object")


def _jsonrpc_error(body: bytes) -> bytes | None:
    """Return the JSON-RPC error for an invalid request body; None for a valid JSON-RPC message."""
    message: Any = None
    try:
        message = decode_json_body(body)
        _check_envelope(message)
    except InvalidRequest as error:
        code = _PARSE_ERROR if message is None else JSONRPC_INVALID_REQUEST
        message_id = message.get("id") if isinstance(message, dict) else None
        shown_id = message_id if type(message_id) in (str, int) else None
        return orjson.dumps({**jsonrpc_error(error, code), "id": shown_id})
    return None


def _normalize_headers(scope: Scope) -> Scope:
    """Return the ASGI scope with the headers that the MCP SDK requires and clients may omit."""
    headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
    if all(name != b"accept" for name, _ in headers):
        headers.append((b"accept", b"*/*"))
    return {**scope, "headers": [*headers, _JSON_CONTENT_TYPE]}


def _replay_body(body: bytes, receive: Receive) -> Receive:
    """Return an ASGI receive function that first delivers a body that was already read."""
    pending = [body]

    async def replay() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await receive()

    return replay
