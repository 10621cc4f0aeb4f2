"""The HTTP server of an agent: MCP and `GET /health`. It imports the MCP SDK, so only serving imports it."""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from mcp.server import MCPServer
from starlette.requests import Request
from starlette.responses import JSONResponse

from mcp_mesh_client.agent.env import http_url
from mcp_mesh_client.errors import InvalidData

# For requests in progress when the server stops.
_SHUTDOWN_TIMEOUT_S = 5
_LISTEN_BACKLOG = 2048
# The name of an MCPServer that was made without one.
_UNNAMED_SERVER = "mcp-server"
_WILDCARD_HOSTS = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - compared, not listened on


class AgentHttpServer(uvicorn.Server):
    """An MCP server with its own listening socket; the socket queues connections until the server runs.

    `url` is the URL for callers: with the host it listens on, or `public_host`. On `::` it accepts IPv4 and IPv6.
    `before_shutdown` is called before it stops serving.
    """

    def __init__(
        self, server: "MCPServer[Any]", host: str, port: int, *, public_host: str | None = None, quiet: bool
    ) -> None:
        self._socket = _listen(host, port)
        self.before_shutdown: Callable[[], None] = _no_op
        host_in_url = public_host or (socket.gethostname() if host in _WILDCARD_HOSTS else host)
        self.url: str = http_url(host_in_url, self._socket.getsockname()[1])
        level = "warning" if quiet else server.settings.log_level.lower()
        # Without MCP sessions: agents of the mesh SDK and `meshctl` call tools without an initialize request.
        app = server.streamable_http_app(host=host, stateless_http=True)
        super().__init__(
            uvicorn.Config(app, log_level=level, access_log=False, timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT_S)
        )

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve requests until SIGINT or SIGTERM."""
        super().run(sockets or [self._socket])

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve requests until `close` is called."""
        await super().serve(sockets or [self._socket])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Call `before_shutdown`, then stop the server."""
        await asyncio.to_thread(self.before_shutdown)
        await super().shutdown(sockets)

    def close(self) -> None:
        """Stop the server."""
        self.should_exit = True
        if not self.started:
            self._socket.close()


def _listen(host: str, port: int) -> socket.socket:
    dual_stack = host == "::" and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_LISTEN_BACKLOG, dualstack_ipv6=dual_stack)


def new_mcp_server(name: str) -> "MCPServer[Any]":
    """Return a new MCP server without tools."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    server: MCPServer[Any] = MCPServer(name, log_level="WARNING")
    # The constructor configured logging for the whole process; undo that: the application did not create this server.
    root.handlers[:] = handlers
    root.setLevel(level)
    return server


def own_name(server: "MCPServer[Any]") -> str | None:
    """Return the name that the application gave to an MCP server. Raises InvalidData for another kind of server."""
    if not isinstance(server, MCPServer):
        raise InvalidData(
            "server",
            f"server: expected an MCPServer of the MCP SDK, not {type(server).__qualname__}; "
            "run this server yourself, and call announce(endpoint=...) without it",
        )
    return None if server.name == _UNNAMED_SERVER else server.name


def log_one_line_per_record() -> None:
    """Replace the log handler that MCPServer installed, which wraps and indents each record over several lines."""
    root = logging.getLogger()
    for handler in root.handlers:
        if type(handler).__module__ == "rich.logging" and getattr(handler, "rich_tracebacks", False):
            plain = logging.StreamHandler()
            plain.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
            plain.setLevel(handler.level)
            root.handlers[root.handlers.index(handler)] = plain


def add_health_route(server: "MCPServer[Any]", health: Callable[[], dict[str, Any]]) -> None:
    """Add `GET /health` to an MCP server."""

    async def get_health(_request: Request) -> JSONResponse:
        return JSONResponse(health())

    server.custom_route("/health", methods=["GET"])(get_health)


def _no_op() -> None:
    """Do nothing."""
