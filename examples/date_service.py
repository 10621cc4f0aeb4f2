"""An agent with one tool, which returns the date and is a dependency of other agents.

python examples/date_service.py
"""

from datetime import UTC, datetime

from mcp.server import MCPServer
from mcp_mesh_client import mesh_agent, serve

server = MCPServer("date-service")


@server.tool()
@mesh_agent(capability="date_service", version="1.2.0", tags=["production", "US_EAST"])
def get_current_date() -> str:
    """Return today's date."""
    return f"{datetime.now(UTC):%Y-%m-%d}"


if __name__ == "__main__":
    serve(server)
