"""The tools as an MCP server of the official SDK. Importing this takes most of a second: see `mcp`."""

from collections.abc import Mapping
from typing import Any, cast

import mcp_types as types
import orjson
from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from registry import __version__
from registry.api.error_responses import problem
from registry.api.mcp.tools import TOOLS, Call
from registry.api.request.body import LIMIT
from registry.api.response.responses import STALE
from registry.errors import Detail, RegistryError, UnprocessableRequest
from registry.telemetry.logs import get_logger

log = get_logger(__name__)

Context = ServerRequestContext[Any, Any]

_INSTRUCTIONS = (
    "The registry of an agent mesh: which agents there are, what they can do, and whether they are alive. "
    "discover_services and select_agent find agents by capability; get_agent_status shows one."
)
_TOOLS = [
    types.Tool(
        name=tool.name,
        description=tool.description,
        input_schema=dict(tool.schema),
        annotations=types.ToolAnnotations.model_validate(tool.annotations),
    )
    for tool in TOOLS
]
_SCHEMAS = {tool.name: tool.schema for tool in TOOLS}
# Bytes of a list, which goes out twice, as text and as structure. While a longer one was written, which the SDK does
# several times over, this replica would do nothing else; and no model reads as much.
_LONGEST = 2 * LIMIT
# What a release serves does not change while it runs, and is the same for everybody.
_HOUR_MS = 3_600_000


class McpServer:
    """Answers single messages: each is a session of its own that ends with the answer, whatever the replica."""

    def __init__(self, calls: Mapping[str, Call]) -> None:
        self._calls = calls
        self._server: Server[Any] = Server(
            "mcp-mesh-registry",
            version=__version__,
            instructions=_INSTRUCTIONS,
            cache_hints={"tools/list": CacheHint(_HOUR_MS, "public"), "server/discover": CacheHint(_HOUR_MS, "public")},
            on_list_tools=self._list,
            on_call_tool=self._call,
        )
        # Else the SDK asks for the whole list at each call of its newest protocol.
        self._server.get_tool_input_schema = _SCHEMAS.get

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a POST whose body was checked."""
        # One for each message: its tasks live in this one, so that nothing outlives the request.
        manager = StreamableHTTPSessionManager(
            self._server, json_response=True, stateless=True, max_request_body_size=LIMIT
        )
        async with manager.run():
            await manager.handle_request(scope, receive, send)

    async def _list(self, _context: Context, _params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=_TOOLS)

    async def _call(self, context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        call = self._calls.get(params.name)
        if call is None:
            raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {params.name[:253]}; tools/list has them all")
        request = cast("Request", context.request)
        try:
            answer = await call(params.arguments or {}, {})
            if params.name == "discover_services":
                _check_length(len(answer.body))
        except Exception as error:  # noqa: BLE001 - a bug is answered as everywhere else
            return _refused(error, params.name, request.scope["request_id"])
        return _result(bytes(answer.body), answer.headers.get(STALE))


def _check_length(length: int) -> None:
    if length > _LONGEST:
        problem = f"finds {length} bytes of agents, over MCP at most {_LONGEST}; ask for fewer, or call GET /agents"
        raise UnprocessableRequest(f"query {problem}", [Detail("query", problem)])


def _refused(error: Exception, tool: str, request_id: str) -> types.CallToolResult:
    if not isinstance(error, RegistryError):
        log.error("tool failed", tool=tool, request_id=request_id, exc_info=error)
    return _result(problem(error, request_id)[2])


def _result(body: bytes, stale: str | None = None) -> types.CallToolResult:
    told = orjson.loads(body)
    return types.CallToolResult(
        content=[types.TextContent(text=body.decode())],
        structured_content=told,
        is_error=told["status"] == "error",
        _meta=None if stale is None else {"mcp-mesh-registry/stale-seconds": float(stale)},
    )
