"""A child process that cannot outlive the test."""

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
_GUARD_SCRIPT = 'exec 3<&0 </dev/null; { read -r _; kill -KILL 0; } <&3 & exec "$@" 3<&-'
# What a loaded machine may take; where a time is promised, the test says so.
_TIMEOUT_S = 15.0


class ChildProcess:
    """A program in a process group of its own, which dies with us, however we end; what has ended may start again.

    `arguments` stand behind its name, and `env` is all its environment, ours where it is None. As a context manager it
    starts, and is killed at the end.
    """

    def __init__(self, program: str | Path, *arguments: str | Path, env: Mapping[str, str] | None = None) -> None:
        self.program = program
        self.arguments: Sequence[str | Path] = arguments
        self.env = dict(os.environ if env is None else env)
        self._process: subprocess.Popen[bytes] | None = None
        self._last_output = ""

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
        return self._require_process().pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def output(self) -> str:
        """All it has written to standard output and error since it was last started."""
        if self._process is not None:
            # Not by the file's own position, which is where the process writes.
            self._last_output = os.pread(self._file.fileno(), os.fstat(self._file.fileno()).st_size, 0).decode(
                errors="replace"
            )
        return self._last_output

    def start(self) -> None:
        """Start the program and return when it answers; AssertionError with its output when it does not in time."""
        assert not self.is_running, f"{self.program} runs already"
        self.kill()
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - kill() closes it
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD_SCRIPT, "guard", self.program, *self.command_line()],
            env=self.env,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=self._file,
            stderr=self._file,
            start_new_session=True,
        )
        try:
            self.wait_until(self.is_ready, description=f"{self.program} answers")
        except AssertionError:
            self.kill()
            raise

    def command_line(self) -> Sequence[str | Path]:
        """Return what stands behind its name when it is started."""
        return self.arguments

    def is_ready(self) -> bool:
        """Tell whether it does what it was started for; who only runs is taken at his word."""
        return True

    def wait_until(self, condition: Callable[[], object], *, description: str, timeout: float = _TIMEOUT_S) -> None:
        """Return when something is so; AssertionError with its output when it is not in time, or it ended before."""

        def look() -> bool:
            status = self._require_process().poll()
            found = bool(condition())
            assert found or status is None, f"ended with status {status}: {description}"
            return found

        try:
            wait_until(look, description=description, timeout=timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output}") from error

    def wait_for_output(self, text: str, timeout: float = _TIMEOUT_S) -> None:
        """Return when it has written this."""
        self.wait_until(lambda: text in self.output, description=f"it says {text!r}", timeout=timeout)

    def send_signal(self, signal_number: signal.Signals) -> None:
        """Send it a signal; AssertionError when it was not started."""
        self._require_process().send_signal(signal_number)

    def pause(self) -> None:
        """Freeze it: its sockets stay open, nothing is answered."""
        self.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self.send_signal(signal.SIGCONT)

    def wait_for_exit(self, signal_number: signal.Signals | None = None, *, timeout: float = _TIMEOUT_S) -> int:
        """Send it a signal, if one is given, and return its exit status; AssertionError when that is not in time."""
        if signal_number is not None:
            self.send_signal(signal_number)
        try:
            return self._require_process().wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not ended within {timeout:g} s\n{self.output}") from None

    def kill(self) -> None:
        """End it, and all that is left of its group, as a crash would; return when it is gone, or was not there."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        # It closes the pipe of the guard as well.
        self._process.communicate()
        self._last_output = self.output
        self._file.close()
        self._process = None

    def _require_process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"{self.program} does not run"
        return self._process
