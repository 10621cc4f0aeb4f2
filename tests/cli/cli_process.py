"""The command line as users run it: a process, with its output in a file."""

import contextlib
import os
import re
import signal
import sysconfig
from pathlib import Path
from types import TracebackType

import httpx2

from tests.support.child_process import ChildProcess
from tests.support.http_calls import REQUEST_TIMEOUT_S

EXECUTABLE = Path(sysconfig.get_path("scripts")) / "mcp-mesh-registry"

# The process inherits only these variables, so that settings of the developer have no effect.
_INHERITED_VARIABLES = ("PATH", "HOME", "LANG")
_WAITING_URL = re.compile(r"on (http://\S+) waits for Redis at ")
_LISTENING_URL = re.compile(r"listens on (http://\S+)")


class CliProcess(ChildProcess):
    """`mcp-mesh-registry` with these arguments; all temporary files are in `directory`. It is stopped by SIGTERM."""

    def __init__(self, *arguments: str, directory: Path, **environ: str) -> None:
        super().__init__(EXECUTABLE, *arguments, env=environment(directory, **environ))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(AssertionError):  # then by SIGKILL
            self.wait_for_exit(signal.SIGTERM)
        self.kill()

    def wait_until_serving(self) -> str:
        """Wait until the replica is ready; return its URL."""
        self.wait_for_output("  try:  curl")
        match = _LISTENING_URL.search(self.output)
        assert match is not None

        def is_ready() -> bool:
            return httpx2.get(f"{match[1]}/ready", timeout=REQUEST_TIMEOUT_S).status_code == 200

        self.wait_until(is_ready, description="it is ready")
        return match[1]

    def wait_until_waiting(self) -> str:
        """Wait until the replica reports that it waits for Redis; return its URL."""
        self.wait_for_output(" waits for Redis at ")
        match = _WAITING_URL.search(self.output)
        assert match is not None
        return match[1]


def environment(directory: Path, **more: str) -> dict[str, str]:
    """Return the environment of a command whose data directory and temporary files are below this directory."""
    inherited = {name: os.environ[name] for name in _INHERITED_VARIABLES if name in os.environ}
    return inherited | {"TMPDIR": str(directory), "REGISTRY_DATA_DIR": str(directory / "data")} | more
