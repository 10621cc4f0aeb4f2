"""A program that a test runs as a process, and that does not outlive the test."""

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.polling import wait_until
from tests.support.source_code import ROOT

# The program takes the place of the shell, so that its process id is the one we got. The shell in the
# background kills the group when our end of the pipe closes: tests that crash leave nobody behind.
_GUARD = 'exec 3<&0 </dev/null; { read -r _; kill -KILL 0; } <&3 & exec "$@" 3<&-'
# What a loaded machine may take; where a time is promised, the test says so.
_PATIENCE = 15.0


class Child:
    """A program in a process group of its own, which dies with us, however we end; what has ended may start again.

    `arguments` stand behind its name, and `env` is all its environment, ours where it is None. As a context manager it
    starts, and is killed at the end.
    """

    def __init__(self, program: str | Path, *arguments: str | Path, env: Mapping[str, str] | None = None) -> None:
        self.program = program
        self.arguments: Sequence[str | Path] = arguments
        self.env = dict(os.environ if env is None else env)
        self._process: subprocess.Popen[bytes] | None = None
        self._written = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """The process id; AssertionError when it was not started."""
        return self._started().pid

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def output(self) -> str:
        """All it has written to standard output and error since it was last started."""
        if self._process is not None:
            # Not by the file's own position, which is where the process writes.
            self._written = os.pread(self._file.fileno(), os.fstat(self._file.fileno()).st_size, 0).decode(
                errors="replace"
            )
        return self._written

    def start(self) -> None:
        """Start the program and return when it answers; AssertionError with its output when it does not in time."""
        assert not self.runs, f"{self.program} runs already"
        self.kill()
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - kill() closes it
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "guard", self.program, *self.command_line()],
            env=self.env,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=self._file,
            stderr=self._file,
            start_new_session=True,
        )
        try:
            self.wait_until(self.answers, description=f"{self.program} answers")
        except AssertionError:
            self.kill()
            raise

    def command_line(self) -> Sequence[str | Path]:
        """Return what stands behind its name when it is started."""
        return self.arguments

    def answers(self) -> bool:
        """Tell whether it does what it was started for; who only runs is taken at his word."""
        return True

    def wait_until(self, is_so: Callable[[], object], *, description: str, timeout: float = _PATIENCE) -> None:
        """Return when something is so; AssertionError with its output when it is not in time, or it ended before."""

        def look() -> bool:
            status = self._started().poll()
            found = bool(is_so())
            assert found or status is None, f"ended with status {status}: {description}"
            return found

        try:
            wait_until(look, description=description, timeout=timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output}") from error

    def says(self, text: str, timeout: float = _PATIENCE) -> None:
        """Return when it has written this."""
        self.wait_until(lambda: text in self.output, description=f"it says {text!r}", timeout=timeout)

    def send_signal(self, how: signal.Signals) -> None:
        """Send it a signal; AssertionError when it was not started."""
        self._started().send_signal(how)

    def pause(self) -> None:
        """Freeze it: its sockets stay open, nothing is answered."""
        self.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self.send_signal(signal.SIGCONT)

    def ends(self, how: signal.Signals | None = None, *, within: float = _PATIENCE) -> int:
        """Send it a signal, if one is given, and return its exit status; AssertionError when that is not in time."""
        if how is not None:
            self.send_signal(how)
        try:
            return self._started().wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not ended within {within:g} s\n{self.output}") from None

    def kill(self) -> None:
        """End it, and all that is left of its group, as a crash would; return when it is gone, or was not there."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        # It closes the pipe of the guard as well.
        self._process.communicate()
        self._written = self.output
        self._file.close()
        self._process = None

    def _started(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"{self.program} does not run"
        return self._process
