"""The command as users run it: a process of its own, with its output in a file."""

import contextlib
import os
import re
import signal
import sysconfig
from pathlib import Path
from types import TracebackType

import httpx2

from tests.support.child_process import ChildProcess

EXECUTABLE = Path(sysconfig.get_path("scripts")) / "mcp-mesh-registry"

# What it gets of our environment: no setting of the developer's own.
_INHERITED_VARIABLES = ("PATH", "HOME", "LANG")
_LISTENING_URL = re.compile(r"listens on (http://\S+)")


class CliProcess(ChildProcess):
    """`mcp-mesh-registry` with these arguments; everything temporary lies in `directory`. It is told to end."""

    def __init__(self, *arguments: str, directory: Path, **environ: str) -> None:
        super().__init__(EXECUTABLE, *arguments, env=environment(directory, **environ))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(AssertionError):  # then by force
            self.wait_for_exit(signal.SIGTERM)
        self.kill()

    def wait_until_serving(self) -> str:
        """Return where it listens, once it is ready."""
        self.wait_for_output("  try:  curl")
        found = _LISTENING_URL.search(self.output)
        assert found is not None

        def is_ready() -> bool:
            return httpx2.get(f"{found[1]}/ready").status_code == 200

        self.wait_until(is_ready, description="it is ready")
        return found[1]


def environment(directory: Path, **more: str) -> dict[str, str]:
    """Return the environment of a command whose embedded store and temporary files lie in this directory."""
    inherited = {name: os.environ[name] for name in _INHERITED_VARIABLES if name in os.environ}
    return inherited | {"TMPDIR": str(directory), "REGISTRY_DATA_DIR": str(directory / "data")} | more
