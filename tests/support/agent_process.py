"""An agent as users run it: a program of its own, which registers, answers and calls others."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2
from mcp import Client

from tests.support.eventually import wait_until
from tests.support.source import ROOT

BEAT_SECONDS = 0.3


class AgentProcess:
    """`python PROGRAM` with its registry at `urls`, in the block; at its end it is killed if it still runs.

    `program` is a file of the checkout, or Python code. `name` is its `MCP_MESH_AGENT_NAME`, `env` adds to the rest.
    """

    def __init__(self, program: str, *urls: str, name: str = "agent", **env: str) -> None:
        self.name = name
        self._command = [str(ROOT / program)] if program.endswith(".py") else ["-c", program]
        self._env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "MCP_MESH_REGISTRY_URL": ",".join(urls),
            "MCP_MESH_AGENT_NAME": name,
            "MCP_MESH_HEALTH_INTERVAL": str(BEAT_SECONDS),
            **env,
        }
        self._folder = tempfile.TemporaryDirectory(prefix="mesh-agent-")
        self._log = Path(self._folder.name) / "log"
        self._log.touch()
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._folder.cleanup()

    @property
    def log(self) -> str:
        """All it has written to standard output and error."""
        return self._log.read_text(errors="replace")

    def start(self) -> None:
        """Start it, again if it has ended."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self._command], env=self._env, stdout=log, stderr=log, cwd=ROOT
            )

    def stop(self, number: signal.Signals = signal.SIGTERM, within: float = 10.0) -> int:
        """Send a signal; return the status it ends with."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(within)

    def kill(self) -> None:
        """End it as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def said(self, text: str, timeout: float = 15.0) -> None:
        """Wait until it has written this."""
        wait_until(
            lambda: text in self.log, description=f"{self.name} says {text!r}; its log:\n{self.log}", timeout=timeout
        )


def registered(url: str, name: str, timeout: float = 15.0) -> dict[str, Any]:
    """Return the one agent of this name, as a replica shows it, once it is healthy."""

    def look() -> Any:
        agents = httpx2.get(f"{url}/agents", params={"status": "healthy"}, timeout=5).json()["agents"]
        return next((agent for agent in agents if agent["id"].startswith(f"{name}-")), None)

    found: dict[str, Any] = wait_until(look, description=f"{name} is registered", timeout=timeout)
    return found


async def call(endpoint: str, tool: str, **arguments: Any) -> Any:
    """Call an agent's tool as any MCP client does; return its structured result, None where it failed."""
    async with Client(f"{endpoint}/mcp") as client:
        result = await client.call_tool(tool, arguments)
    return None if result.structured_content is None else result.structured_content["result"]
