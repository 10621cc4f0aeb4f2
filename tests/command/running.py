"""The command as users run it: a process of its own, with its output in a file."""

import os
import re
import signal
import subprocess
import sysconfig
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2

from tests.support.eventually import wait_until

COMMAND = Path(sysconfig.get_path("scripts")) / "mcp-mesh-registry"

# What it gets of our environment: no setting of the developer's own.
_INHERITED = ("PATH", "HOME", "LANG")
_LISTENS = re.compile(r"listens on (http://\S+)")
# What a loaded machine may take; where a time is promised, the test says so.
_START_SECONDS = 15.0
_STOP_SECONDS = 15.0


class Running:
    """`mcp-mesh-registry` with these arguments; everything temporary lies in `directory`. A context manager ends it."""

    def __init__(self, *arguments: str, directory: Path, **environ: str) -> None:
        self._output_file = directory.with_suffix(".output")
        with self._output_file.open("wb") as output:
            self.process = subprocess.Popen(
                [str(COMMAND), *arguments],
                env=environment(directory, **environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._output_file.unlink()

    @property
    def output(self) -> str:
        """All it has written to standard output and error."""
        return self._output_file.read_text()

    def serves(self) -> str:
        """Return where it listens, once it is ready."""
        self.says("  try:  curl")
        found = _LISTENS.search(self.output)
        assert found is not None

        def is_ready() -> bool:
            return httpx2.get(f"{found[1]}/ready").status_code == 200

        wait_until(is_ready, description="it is ready", timeout=_START_SECONDS)
        return found[1]

    def says(self, text: str) -> None:
        """Return when it has written this text."""

        def has_said() -> bool:
            assert text in self.output or self.process.poll() is None, f"it ended\n{self.output}"
            return text in self.output

        wait_until(has_said, description=f"it says {text!r}", timeout=_START_SECONDS)

    def ends(self, how: signal.Signals | None = None, *, within: float = _STOP_SECONDS) -> int:
        """Send it a signal, if one is given, and return its exit status, which must come in time."""
        if how is not None:
            self.process.send_signal(how)
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not ended within {within:g} s\n{self.output}") from None


def environment(directory: Path, **more: str) -> dict[str, str]:
    """Return the environment of a command whose embedded store and temporary files lie in this directory."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return inherited | {"TMPDIR": str(directory), "REGISTRY_DATA_DIR": str(directory / "data")} | more


def processes_that_mention(text: str | Path) -> dict[int, str]:
    """Return the command lines in which this text occurs, by process id, of every process that runs now."""
    if Path("/proc/self/cmdline").exists():
        lines = {int(process.name): _command_line(process) for process in Path("/proc").glob("[0-9]*")}
    else:
        listed = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,args="], capture_output=True, text=True, check=True)
        pairs = (line.split(maxsplit=1) for line in listed.stdout.splitlines())
        lines = {int(pid): "".join(line) for pid, *line in pairs}
    return {pid: line for pid, line in lines.items() if str(text) in line}


def _command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:  # it has ended meanwhile
        return ""
