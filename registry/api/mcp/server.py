"""The registry's tools as an MCP server of the official SDK, whose import takes most of a second."""

from collections.abc import Mapping
from typing import Any, cast

import mcp_types as types
import orjson
from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from registry import __version__
from registry.api.error_responses import error_response
from registry.api.mcp.tools import TOOLS, Sender, ToolHandler
from registry.api.request.body import MAX_BODY_BYTES
from registry.api.response.json_responses import STALE_HEADER
from registry.errors import Detail, RegistryError, UnprocessableRequest
from registry.telemetry.logs import get_logger

log = get_logger(__name__)

RequestContext = ServerRequestContext[Any, Any]

_INSTRUCTIONS = (
    "Registry of an agent mesh: lists agents, their capabilities and their health. "
    "Use discover_services and select_agent to find agents by capability, get_agent_status for one agent."
)
_TOOLS = [
    types.Tool(
        name=tool.name,
        description=tool.description,
        input_schema=dict(tool.input_schema),
        annotations=types.ToolAnnotations.model_validate(tool.annotations),
    )
    for tool in TOOLS
]
_INPUT_SCHEMAS = {tool.name: tool.input_schema for tool in TOOLS}
# A list is sent twice, as text and as structured content, and the SDK serializes it several times: a longer list would
# block this replica, and is too long for a language model.
_MAX_LIST_BYTES = 2 * MAX_BODY_BYTES
# RequestChecks has checked Host and Origin for all paths; the SDK knows neither any address nor `*.suffix`.
_SECURITY_SETTINGS = TransportSecuritySettings(enable_dns_rebinding_protection=False)
# The tool list is the same for all clients and changes only with a new release.
_TOOL_LIST_TTL_MS = 3_600_000


class McpServer:
    """An MCP server without sessions: any replica can process any message."""

    def __init__(self, handlers: Mapping[str, ToolHandler]) -> None:
        self._handlers = handlers
        self._server: Server[Any] = Server(
            "mcp-mesh-registry",
            version=__version__,
            instructions=_INSTRUCTIONS,
            cache_hints={
                "tools/list": CacheHint(_TOOL_LIST_TTL_MS, "public"),
                "server/discover": CacheHint(_TOOL_LIST_TTL_MS, "public"),
            },
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
        )
        # Otherwise the SDK lists all tools at each call in its newest protocol version.
        self._server.get_tool_input_schema = _INPUT_SCHEMAS.get

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a POST request whose body is a valid JSON-RPC message."""
        # One manager per message: its tasks end with the request.
        manager = StreamableHTTPSessionManager(
            self._server,
            json_response=True,
            stateless=True,
            security_settings=_SECURITY_SETTINGS,
            max_request_body_size=MAX_BODY_BYTES,
        )
        async with manager.run():
            await manager.handle_request(scope, receive, send)

    async def _list_tools(
        self, _context: RequestContext, _params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(tools=_TOOLS)

    async def _call_tool(self, context: RequestContext, params: types.CallToolRequestParams) -> types.CallToolResult:
        handler = self._handlers.get(params.name)
        if handler is None:
            raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {params.name[:253]}; tools/list returns all tools")
        request = cast("Request", context.request)
        try:
            response = await handler(params.arguments or {}, Sender({}, request.scope))
            if params.name == "discover_services":
                _check_list_size(len(response.body))
        except Exception as error:  # noqa: BLE001 - an unexpected exception gets the same response as over HTTP
            return _error_result(error, params.name, request.scope["request_id"])
        return _result(bytes(response.body), response.headers.get(STALE_HEADER))


def _check_list_size(size: int) -> None:
    if size > _MAX_LIST_BYTES:
        problem = (
            f"the result is {size} bytes, above the MCP limit of {_MAX_LIST_BYTES}; narrow the query or use GET /agents"
        )
        raise UnprocessableRequest.of([Detail("query", problem)])


def _error_result(error: Exception, tool: str, request_id: str) -> types.CallToolResult:
    if not isinstance(error, RegistryError):
        log.error("tool_call_failed", tool=tool, request_id=request_id, exc_info=error)
    return _result(error_response(error, request_id)[2])


def _result(body: bytes, stale_seconds: str | None = None) -> types.CallToolResult:
    content = orjson.loads(body)
    return types.CallToolResult(
        content=[types.TextContent(text=body.decode().rstrip("\n"))],
        structured_content=content,
        is_error=content["status"] == "error",
        _meta=None if stale_seconds is None else {"mcp-mesh-registry/stale-seconds": float(stale_seconds)},
    )
