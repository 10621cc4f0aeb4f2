"""A server that listens, and what it answers besides MCP. Imported only to serve: it brings the SDK along."""

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

# Seconds that requests under way have when the server ends.
_SHUTDOWN_TIMEOUT_S = 5
_LISTEN_BACKLOG = 2048
_WILDCARD_HOSTS = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - compared with, not listened on


class AgentHttpServer(uvicorn.Server):
    """An MCP server on a port of its own, from the moment it is made: who comes before it runs, waits.

    `url` is where others find it: by the host it listens on, unless that is another one. On `::` it listens to both
    kinds of addresses. `before_shutdown` is called before it stops to answer.
    """

    def __init__(
        self, server: "MCPServer[Any]", host: str, port: int, *, public_host: str | None = None, quiet: bool
    ) -> None:
        self._socket = _listen(host, port)
        self.before_shutdown: Callable[[], None] = _no_op
        shown = public_host or (socket.gethostname() if host in _WILDCARD_HOSTS else host)
        self.url: str = http_url(shown, self._socket.getsockname()[1])
        level = "warning" if quiet else server.settings.log_level.lower()
        # Without sessions, as agents of the mesh SDK and `meshctl` call: they greet nobody before.
        app = server.streamable_http_app(host=host, stateless_http=True)
        super().__init__(uvicorn.Config(app, log_level=level, timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT_S))

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until SIGINT or SIGTERM."""
        super().run(sockets or [self._socket])

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until it is closed."""
        await super().serve(sockets or [self._socket])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take leave, then stop to answer."""
        await asyncio.to_thread(self.before_shutdown)
        await super().shutdown(sockets)

    def close(self) -> None:
        """Stop to answer."""
        self.should_exit = True
        if not self.started:
            self._socket.close()


def _listen(host: str, port: int) -> socket.socket:
    both = host == "::" and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_LISTEN_BACKLOG, dualstack_ipv6=both)


def new_mcp_server(name: str) -> "MCPServer[Any]":
    """Return a server without any tools."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    server: MCPServer[Any] = MCPServer(name, log_level="WARNING")
    # It has set up logging for the whole process, which is for those to do who make a server themselves.
    root.handlers[:] = handlers
    root.setLevel(level)
    return server


def add_health_route(server: "MCPServer[Any]", health: Callable[[], dict[str, Any]]) -> None:
    """Let a server answer `GET /health`, unless it does so already."""

    async def answer(_request: Request) -> JSONResponse:
        return JSONResponse(health())

    server.custom_route("/health", methods=["GET"])(answer)


def _no_op() -> None:
    """Stand for nothing to be done."""
