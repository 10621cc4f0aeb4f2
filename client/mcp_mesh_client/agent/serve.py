"""`serve` and `announce`: register the agent of this process and make it callable."""

import contextlib
from typing import TYPE_CHECKING, Any, Unpack

from mcp_mesh_client.agent.agent_process import current_process
from mcp_mesh_client.agent.env import endpoint_host, listening_host
from mcp_mesh_client.agent.options import AgentOptions, checked_options

if TYPE_CHECKING:
    from mcp.server import MCPServer


def serve(
    server: "MCPServer[Any] | None" = None,
    *,
    host: str | None = None,
    port: int | None = None,
    endpoint: str | None = None,
    **options: Unpack[AgentOptions],
) -> None:
    """Serve the agent of this process over streamable HTTP at `/mcp`, registered, until SIGINT or SIGTERM.

    It serves without MCP sessions, so that agents of the mesh SDK can call it. The tools of `server` are served
    unchanged, together with `GET /health` and the declared functions that are not tools of it yet; without a `server`,
    all declared functions are served. It listens on `host`; the default is loopback, or all addresses if the
    environment sets another public host. `port` defaults to `MCP_MESH_HTTP_PORT`, otherwise a free port. `endpoint` is
    the URL for callers: by default `MCP_MESH_ENDPOINT`, then `MCP_MESH_HTTP_HOST` with the port, then the address it
    listens on. `options` are described in AgentOptions.

    Raises McpLibraryMissing, OSError if the port is in use, InvalidData, and DecoratorOrderError for a tool without
    dependency injection.
    """
    process = current_process()
    process.agent.set_options(**checked_options("serve", options))
    process.server.reserve()
    http_server = process.server.open_http_server(
        server, host or (listening_host(endpoint_host(endpoint)) if endpoint else None), port
    )
    http_server.before_shutdown = process.deregister
    try:
        process.server.announce(None, endpoint, http_server.url)
        # Ctrl-C is not an error, as in uvicorn.
        with contextlib.suppress(KeyboardInterrupt):
            http_server.run()
    finally:
        process.deregister()
        http_server.close()


def announce(
    server: "MCPServer[Any] | None" = None, endpoint: str | None = None, **options: Unpack[AgentOptions]
) -> None:
    """Set the agent's URL for callers, for an application that runs the server itself.

    Call it before `server.run("streamable-http", …)`. Agents of the mesh SDK can only call a server that runs with
    `stateless_http=True`. The server gets `GET /health`, and the declared functions that are not tools of it yet.
    Without an `endpoint`, such as `http://host:8080/mcp`, the environment must set it. `options` are described in
    AgentOptions. Raises InvalidData, and DecoratorOrderError for a tool without dependency injection.
    """
    process = current_process()
    process.agent.set_options(**checked_options("announce", options))
    process.server.announce(server, endpoint)
