"""One agent of the published SDK as a process."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import httpx2

from tests.support.eventually import wait_until
from tests.support.ports import free_port
from tests.support.redis_server import GUARD

SCRIPTS = Path(__file__).parent / "agents"
_HEADERS = {"accept": "application/json, text/event-stream", "content-type": "application/json"}


class SdkAgent:
    """Runs a script of `agents/` against a registry. Its signs of life come each second, so that tests are quick."""

    def __init__(self, python: Path, script: str, registry: str, log: Path, **env: str) -> None:
        self.port = free_port()
        self.log_file = log
        self._command = [str(python), str(SCRIPTS / f"{script}.py")]
        self._env = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "MCP_MESH_REGISTRY_URL": registry,
            "MCP_MESH_HTTP_HOST": "127.0.0.1",
            "MCP_MESH_HTTP_PORT": str(self.port),
            "MCP_MESH_HEALTH_INTERVAL": "1",
            "MCP_MESH_SETTLE_TIMEOUT": "1",
            "MCP_MESH_LOG_LEVEL": "WARNING",
            **env,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the process; it answers when `call` does."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", GUARD, "sdk-agent", *self._command],
                env=self._env,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self) -> None:
        """Let it leave by SIGTERM."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Let it die."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        process.wait(20)
        if process.stdin is not None:
            process.stdin.close()

    def call(self, tool: str, **arguments: Any) -> str | None:
        """Call one of its tools as any MCP client would; None while it does not answer or the tool fails."""
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
        try:
            answer = httpx2.post(f"http://127.0.0.1:{self.port}/mcp", json=call, headers=_HEADERS, timeout=10)
        except httpx2.TransportError:
            return None
        lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith(("data: ", "{"))]
        result = json.loads(lines[-1]).get("result") if answer.status_code == 200 and lines else None
        if result is None or result.get("isError"):
            return None
        return str(result["content"][0]["text"])

    def wait_for(self, expected: str | None, tool: str = "greet", *, within: float = 40, **arguments: Any) -> None:
        """Wait until a tool says what is expected of it."""
        try:
            wait_until(
                lambda: self.call(tool, **arguments) == expected,
                description=f"{tool} says {expected!r}",
                timeout=within,
            )
        except AssertionError as error:
            raise AssertionError(f"{error}; it says {self.call(tool, **arguments)!r}\n{self.log}") from None

    @property
    def log(self) -> str:
        """The last it has written."""
        return self.log_file.read_text(errors="replace")[-4000:]
