"""An agent as a separate process that registers, serves its tools and calls other agents."""

import os
import sys
from typing import Any

import httpx2
from mcp import Client

from tests.support.child_process import ChildProcess
from tests.support.http_calls import REQUEST_TIMEOUT_S
from tests.support.polling import wait_until
from tests.support.source_code import ROOT

HEARTBEAT_INTERVAL_S = 0.3


class AgentProcess(ChildProcess):
    """`python PROGRAM` as an agent of the registry at `urls`.

    `program` is a file of the checkout, or Python code. `name` is `MCP_MESH_AGENT_NAME`; `env` adds variables.
    """

    def __init__(self, program: str, *urls: str, name: str = "agent", **env: str) -> None:
        defaults = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "MCP_MESH_REGISTRY_URL": ",".join(urls),
            "MCP_MESH_AGENT_NAME": name,
            "MCP_MESH_HEALTH_INTERVAL": str(HEARTBEAT_INTERVAL_S),
        }
        command = [program] if program.endswith(".py") else ["-c", program]
        super().__init__(sys.executable, *command, env=defaults | env)


def wait_until_registered(url: str, name: str) -> dict[str, Any]:
    """Wait until the agent with this name is healthy; return it as the replica at `url` returns it."""

    def find_agent() -> Any:
        agents = httpx2.get(f"{url}/agents", params={"status": "healthy"}, timeout=REQUEST_TIMEOUT_S).json()["agents"]
        return next((agent for agent in agents if agent["id"].startswith(f"{name}-")), None)

    found: dict[str, Any] = wait_until(find_agent, description=f"{name} is registered")
    return found


async def call_tool(endpoint: str, tool: str, **arguments: Any) -> Any:
    """Call a tool as an MCP client; return its structured result, None if the result has none."""
    async with Client(endpoint) as client:
        result = await client.call_tool(tool, arguments)
    return None if result.structured_content is None else result.structured_content["result"]
