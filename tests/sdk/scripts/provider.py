"""An agent of the mesh SDK that provides a date; `MESH_TEST_WORD` replaces the date."""

import os

import mesh  # type: ignore[import-not-found]
from fastmcp import FastMCP  # type: ignore[import-not-found]

app = FastMCP("provider")


@app.tool()
@mesh.tool(capability="date_service", version="1.2.0", tags=["system", "utc"])
def get_date() -> str:
    """Return the date."""
    return os.environ.get("MESH_TEST_WORD", "monday")


@mesh.agent(name="sdk-provider", http_port=0, enable_http=True, auto_run=True)
class Provider:
    """The agent."""
