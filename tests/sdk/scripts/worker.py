"""An agent of the mesh SDK whose tool is a task, so that the agent asks the registry for jobs."""

import mesh  # type: ignore[import-not-found]
from fastmcp import FastMCP  # type: ignore[import-not-found]

app = FastMCP("worker")


@app.tool()
@mesh.tool(capability="reporting", task=True)
async def write_report(subject: str) -> str:
    """Return a report."""
    return f"a report on {subject}"


@mesh.agent(name="sdk-worker", http_port=0, enable_http=True, auto_run=True)
class Worker:
    """The agent."""
