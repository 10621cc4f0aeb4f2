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
    """Serve this process's agent over streamable HTTP at `/mcp` until SIGINT or SIGTERM, and register it meanwhile.

    There are no sessions, so that agents of the mesh SDK can call it, too. The server's tools are served as they are,
    with `GET /health` and whatever is declared and no tool of it; without a server all that is declared is. It listens
    on loopback, unless the environment has others find it elsewhere, or `host` says so. The port is
    `MCP_MESH_HTTP_PORT`, else a free one. `endpoint` is where others find it: `MCP_MESH_ENDPOINT`, or
    `MCP_MESH_HTTP_HOST` with the port, else where it listens.

    Raises McpLibraryMissing, OSError where the port is taken, InvalidData, and WrongOrder for a tool that gets no
    dependencies.
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
    Raises InvalidData, and WrongOrder for a tool that gets no dependencies.
    """
    current_process().server.announce(server, endpoint)
