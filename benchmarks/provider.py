"""A provider to call: one tool that answers a date, served by the SDK as agents serve theirs.

`python -m benchmarks.provider` prints the URL it answers at and serves until it is told to stop.
"""

from mcp.server import MCPServer
from mcp_mesh_client.agent.http_server import AgentHttpServer

RESULT = "2026-11-27"
TOOL = "get_date"


def get_date() -> str:
    """Answer a date."""
    return RESULT


def main() -> None:
    """Serve."""
    server = MCPServer("provider", log_level="WARNING")
    server.add_tool(get_date, name=TOOL)
    site = AgentHttpServer(server, "127.0.0.1", 0, quiet=True)
    print(site.url, flush=True)
    site.run()


if __name__ == "__main__":
    main()
