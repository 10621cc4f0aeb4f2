"""An agent of the published SDK as a process."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx2

from tests.support.child_process import ChildProcess
from tests.support.http_calls import REQUEST_TIMEOUT_S
from tests.support.polling import wait_until
from tests.support.ports import free_port

SCRIPTS_DIR = Path(__file__).parent / "scripts"
_HEADERS = {"accept": "application/json, text/event-stream", "content-type": "application/json"}


class SdkAgent(ChildProcess):
    """Runs a script of `scripts/` against a registry; it sends a heartbeat each second."""

    def __init__(self, python: Path, script: str, registry: str, **env: str) -> None:
        self.port = free_port()
        ours = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "MCP_MESH_REGISTRY_URL": registry,
            "MCP_MESH_HTTP_HOST": "127.0.0.1",
            "MCP_MESH_HTTP_PORT": str(self.port),
            "MCP_MESH_HEALTH_INTERVAL": "1",
            "MCP_MESH_SETTLE_TIMEOUT": "1",
            "MCP_MESH_LOG_LEVEL": "WARNING",
        }
        super().__init__(python, SCRIPTS_DIR / f"{script}.py", env=ours | env)

    def stop(self) -> None:
        """Stop the agent with SIGTERM, so that it deregisters."""
        self.wait_for_exit(signal.SIGTERM)

    def call_tool(self, tool: str, **arguments: Any) -> str | None:
        """Call a tool like any MCP client; return None if the agent does not respond or the tool fails."""
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
        try:
            response = httpx2.post(
                f"http://127.0.0.1:{self.port}/mcp", json=call, headers=_HEADERS, timeout=REQUEST_TIMEOUT_S
            )
        except httpx2.TransportError:
            return None
        lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith(("data: ", "{"))]
        result = json.loads(lines[-1]).get("result") if response.status_code == 200 and lines else None
        if result is None or result.get("isError"):
            return None
        return str(result["content"][0]["text"])

    def wait_for_result(self, expected: str | None, tool: str = "greet", **arguments: Any) -> None:
        """Wait until a tool returns the expected text."""
        try:
            wait_until(
                lambda: self.call_tool(tool, **arguments) == expected,
                description=f"{tool} returns {expected!r}",
            )
        except AssertionError as error:
            raise AssertionError(
                f"{error}; it returns {self.call_tool(tool, **arguments)!r}\n{self.output[-4000:]}"
            ) from None
