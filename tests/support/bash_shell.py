"""One bash session; variables and background jobs persist between its blocks."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

_DONE_MARKER = "__done__"


class BashShell:
    """Runs blocks of commands in one bash process. As a context manager it starts bash and ends it with its jobs."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._folder = folder
        self._env = dict(env)
        self._process: subprocess.Popen[str] | None = None
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the shell

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=self._folder,
            env=self._env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
        )
        # The shell ends when our end of the pipe closes, so a crashed test leaves no jobs behind.
        self.run("trap 'kill 0' EXIT")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._require_process()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.communicate("kill $(jobs -p) 2>/dev/null; wait; exit\n", timeout=10)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._errors.close()

    @property
    def errors(self) -> str:
        """The text on standard error so far."""
        self._errors.seek(0)
        return self._errors.read()

    def run(self, block: str) -> str:
        """Run a block; return its standard output. Raises AssertionError if its last command fails."""
        process = self._require_process()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f'{block}\nprintf "\\n{_DONE_MARKER} %s\\n" $?\n')
        process.stdin.flush()
        printed: list[str] = []
        for line in process.stdout:
            if line.startswith(_DONE_MARKER):
                assert line.split()[1] == "0", f"{block}\n{''.join(printed)}\n{self.errors}"
                return "".join(printed).strip()
            printed.append(line)
        raise AssertionError(f"the shell ended during\n{block}\n{self.errors}")

    def _require_process(self) -> subprocess.Popen[str]:
        assert self._process is not None, "the shell is not running"
        return self._process
