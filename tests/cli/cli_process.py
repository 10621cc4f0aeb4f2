"""The command as users run it: a process of its own, with its output in a file."""

import contextlib
import os
import re
import signal
import sysconfig
from pathlib import Path
from types import TracebackType

import httpx2

from tests.support.child_process import Child

COMMAND = Path(sysconfig.get_path("scripts")) / "mcp-mesh-registry"

# What it gets of our environment: no setting of the developer's own.
_INHERITED = ("PATH", "HOME", "LANG")
_LISTENS = re.compile(r"listens on (http://\S+)")


class Running(Child):
    """`mcp-mesh-registry` with these arguments; everything temporary lies in `directory`. It is told to end."""

    def __init__(self, *arguments: str, directory: Path, **environ: str) -> None:
        super().__init__(COMMAND, *arguments, env=environment(directory, **environ))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(AssertionError):  # then by force
            self.ends(signal.SIGTERM)
        self.kill()

    def serves(self) -> str:
        """Return where it listens, once it is ready."""
        self.says("  try:  curl")
        found = _LISTENS.search(self.output)
        assert found is not None

        def is_ready() -> bool:
            return httpx2.get(f"{found[1]}/ready").status_code == 200

        self.wait_until(is_ready, description="it is ready")
        return found[1]


def environment(directory: Path, **more: str) -> dict[str, str]:
    """Return the environment of a command whose embedded store and temporary files lie in this directory."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return inherited | {"TMPDIR": str(directory), "REGISTRY_DATA_DIR": str(directory / "data")} | more
