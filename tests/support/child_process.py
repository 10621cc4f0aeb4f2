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

from tests.support.machine_speed import scaled
from tests.support.polling import wait_until
from tests.support.source_code import ROOT

# `exec` replaces the shell with the program, so that `pid` is the program's. The shell in the background kills the
# process group when our end of the pipe closes, so a crashed test leaves no process behind.
_GUARD_SCRIPT = 'exec 3<&0 </dev/null; { read -r _; kill -KILL 0; } <&3 & exec "$@" 3<&-'
_EXIT_TIMEOUT_S = 60.0


class ChildProcess:
    """A program in its own process group, which ends with the test process even if that crashes; it can be restarted.

    `env` is its complete environment, by default the one of the test process. As a context manager it starts the
    program and kills it at the end.
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
        """The process id. Raises AssertionError if the program was not started."""
        return self._require_process().pid

    @property
    def is_running(self) -> bool:
        """Whether the program was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def output(self) -> str:
        """Standard output and error since the last start."""
        if self._process is not None:
            # The offset of the file is where the process writes, so it must not move.
            self._last_output = os.pread(self._file.fileno(), os.fstat(self._file.fileno()).st_size, 0).decode(
                errors="replace"
            )
        return self._last_output

    def start(self) -> None:
        """Start the program and wait until it is ready. Raises AssertionError with its output after a timeout."""
        assert not self.is_running, f"{self.program} is already running"
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
            self.wait_until(self.is_ready, description=f"{self.program} is ready")
        except AssertionError:
            self.kill()
            raise

    def command_line(self) -> Sequence[str | Path]:
        """Return the arguments of the program."""
        return self.arguments

    def is_ready(self) -> bool:
        """Return whether the program serves requests; by default a running program is ready."""
        return True

    def wait_until(self, condition: Callable[[], object], *, description: str) -> None:
        """Wait for a condition. Raises AssertionError with the output after a timeout, or if the program ends first."""

        def check() -> bool:
            status = self._require_process().poll()
            found = bool(condition())
            assert found or status is None, f"ended with status {status}: {description}"
            return found

        try:
            wait_until(check, description=description)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output}") from error

    def wait_for_output(self, text: str) -> None:
        """Wait until the output contains this text."""
        self.wait_until(lambda: text in self.output, description=f"output contains {text!r}")

    def send_signal(self, signal_number: signal.Signals) -> None:
        """Send a signal. Raises AssertionError if the program was not started."""
        self._require_process().send_signal(signal_number)

    def pause(self) -> None:
        """Freeze the process: its sockets stay open, but it does not respond."""
        self.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue the process after `pause`."""
        self.send_signal(signal.SIGCONT)

    def wait_for_exit(self, signal_number: signal.Signals | None = None) -> int:
        """Send a signal, if one is given; return the exit status. Raises AssertionError after a timeout."""
        if signal_number is not None:
            self.send_signal(signal_number)
        try:
            return self._require_process().wait(scaled(_EXIT_TIMEOUT_S))
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"not ended within {error.timeout:.0f} s\n{self.output}") from None

    def kill(self) -> None:
        """Kill the program and the rest of its process group, if they run; return when they are gone."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        # This also closes the pipe of the guard.
        self._process.communicate()
        self._last_output = self.output
        self._file.close()
        self._process = None

    def _require_process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"{self.program} is not running"
        return self._process
