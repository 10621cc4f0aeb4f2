"""An agent that greets; it adds the date while the agent of examples/date_service.py runs.

    python examples/greeting.py

Start and stop examples/date_service.py in the meantime: the argument `date_service` is None while it does not run.
"""

from mcp.server import MCPServer
from mcp_mesh_client import Dependency, mesh_agent, serve

server = MCPServer("greeting")


@server.tool()
@mesh_agent(
    capability="greeting",
    version="1.0.0",
    tags=["demo", "v1"],
    dependencies=[{"capability": "date_service", "version": ">=1.0.0", "tags": ["production", "US_EAST"]}],
)
def greet(name: str, date_service: Dependency | None = None) -> str:
    """Return a greeting."""
    if date_service:
        return f"Hello {name}, date is {date_service()}"
    return f"Hello {name}"


@server.tool()
@mesh_agent(capability="goodbye", tags=["demo"])
def farewell(name: str) -> str:
    """Return a goodbye."""
    return f"Goodbye {name}"


if __name__ == "__main__":
    serve(server)
