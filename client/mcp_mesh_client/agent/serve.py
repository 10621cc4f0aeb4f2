"""Serving what is declared: the last line of an agent's program."""

import contextlib
from typing import TYPE_CHECKING, Any

from mcp_mesh_client.agent.env import endpoint_host, listening_host
from mcp_mesh_client.agent.process import current_process

if TYPE_CHECKING:
    from mcp.server import MCPServer


def serve(
    server: "MCPServer[Any] | None" = None,
    *,
    host: str | None = None,
    port: int | None = None,
    endpoint: str | None = None,
) -> None:
    """Serve the agent of this process over streamable HTTP at `/mcp` until SIGINT or SIGTERM, and keep it registered.

    It serves without MCP sessions, so that agents of the mesh SDK can call it. The tools of `server` are served
    unchanged, together with `GET /health` and the declared functions that are not tools of it yet; without a `server`,
    all declared functions are served. It listens on `host`; the default is loopback, or all addresses if the
    environment sets another public host. `port` defaults to `MCP_MESH_HTTP_PORT`, otherwise a free port. `endpoint` is
    the URL for callers: by default `MCP_MESH_ENDPOINT`, then `MCP_MESH_HTTP_HOST` with the port, then the address it
    listens on.

    Raises McpLibraryMissing, OSError if the port is in use, InvalidData, and DecoratorOrderError for a tool that gets
    no dependencies.
    """
    presence = current_process()
    presence.server.reserve()
    site = presence.server.open_http_server(
        server, host or (listening_host(endpoint_host(endpoint)) if endpoint else None), port
    )
    site.before_shutdown = presence.deregister
    try:
        presence.server.announce(None, endpoint or presence.agent.environment.endpoint or site.url)
        # As uvicorn does at a terminal: Ctrl-C is no error.
        with contextlib.suppress(KeyboardInterrupt):
            site.run()
    finally:
        presence.deregister()
        site.close()


def announce(server: "MCPServer[Any] | None" = None, endpoint: str | None = None) -> None:
    """Say where this process answers, where its own code serves: before `server.run("streamable-http", …)`.

    With `stateless_http=True` agents of the mesh SDK can call it, too. The server is given `GET /health`, and whatever
    is declared and no tool of it yet. Without an `endpoint`, such as `http://host:8080`, the environment must say it.
    Raises InvalidData, and DecoratorOrderError for a tool that gets no dependencies.
    """
    current_process().server.announce(server, endpoint)
