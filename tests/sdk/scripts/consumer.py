"""An agent of the mesh SDK with an optional and a required dependency on a date."""

from typing import Any

import mesh  # type: ignore[import-not-found]
from fastmcp import FastMCP  # type: ignore[import-not-found]

app = FastMCP("consumer")
DATE = {"capability": "date_service", "version": ">=1.0.0", "tags": ["system", "+utc"]}


@app.tool()
@mesh.tool(capability="greeting", dependencies=[DATE])
async def greet(name: str, date: mesh.McpMeshTool | None = None) -> str:
    """Return a greeting, with the date if it is available."""
    if date is None:
        return f"hello {name}"
    today: Any = await date()
    return f"hello {name} on {today}"


@app.tool()
@mesh.tool(capability="strict_greeting", dependencies=[{**DATE, "required": True}])
async def greet_strictly(date: mesh.McpMeshTool | None = None) -> str:
    """Return the date; the dependency is required."""
    assert date is not None
    return f"on {await date()}"


@mesh.agent(name="sdk-consumer", http_port=0, enable_http=True, auto_run=True)
class Consumer:
    """The agent."""
