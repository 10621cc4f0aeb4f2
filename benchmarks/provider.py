"""The provider of the injected_call benchmark: one tool that returns a date, served like an agent's tools.

`python -m benchmarks.provider` prints its URL and serves until it is stopped.
"""

from mcp.server import MCPServer
from mcp_mesh_client.agent.http_server import AgentHttpServer

RESULT = "2026-11-27"
TOOL = "get_date"


def get_date() -> str:
    """Return a date."""
    return RESULT


def main() -> None:
    """Run the server."""
    server = MCPServer("provider", log_level="WARNING")
    server.add_tool(get_date, name=TOOL)
    http_server = AgentHttpServer(server, "127.0.0.1", 0, quiet=True)
    print(http_server.url, flush=True)
    http_server.run()


if __name__ == "__main__":
    main()
