"""One replica as users run it: a process of its own, spoken to over a real socket."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2

from tests.support.eventually import wait_until
from tests.support.ports import free_port
from tests.support.redis_server import GUARD

# What the process gets of our environment; a REGISTRY_… or REDIS_URL of the developer's own is none of a test's.
_INHERITED = ("PATH", "HOME", "TMPDIR", "LANG")
_LISTENS = re.compile(r'(?:listens on |"event":"listening",.*"url":")(http://[^\s"]+)')
STOP_SECONDS = 5.0


class Replica:
    """`python -m registry` on a port of its own, which stays the same over `stop()` or `kill()` and `start()`.

    `redis_url` is the store, None for the embedded one; `env` adds to its environment. `url` is where it listens, and
    `log` all it has written. `within` stands before the command, such as one that enters a network namespace. As a
    context manager it starts and stops.
    """

    def __init__(self, redis_url: str | None = None, *, within: Sequence[str] = (), **env: str) -> None:
        self.url = ""
        self._within = tuple(within)
        store = {} if redis_url is None else {"REDIS_URL": redis_url}
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        self._env = {**inherited, "REGISTRY_PORT": str(free_port()), **store, **env}
        self._log: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            if kind is None:
                self.stop()
            else:
                self.kill()

    @property
    def runs(self) -> bool:
        """Whether it was started and not ended by us."""
        return self._process is not None

    @property
    def log(self) -> str:
        """All it has written to standard output and error."""
        return "" if self._log is None else self._log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        """The process id; AssertionError when it does not run."""
        return self._running().pid

    def start(self) -> None:
        """Start the process and return when it is ready; AssertionError with its log when it does not come up."""
        assert self._process is None, "the replica runs already"
        handle, name = tempfile.mkstemp(prefix="mesh-replica-", suffix=".log")
        self._log = Path(name)
        with os.fdopen(handle, "wb") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", GUARD, "mesh-replica", *self._within, sys.executable, "-m", "registry"],
                env=self._env,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self.url = wait_until(self._announced, description="the replica listens", timeout=15)
            wait_until(self._is_ready, description="the replica is ready", timeout=15)
        except AssertionError as error:
            words = self.log
            self.kill()
            raise AssertionError(f"{error}\n{words}") from error

    def stop(self, within: float = STOP_SECONDS) -> None:
        """Send SIGTERM; the process must end by itself in time, with status 0."""
        process, log = self._running(), self.log
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"not ended {within:g} s after SIGTERM\n{log}") from None
        log = self.log
        self._forget()
        assert status == 0, f"ended with status {status}\n{log}"

    def kill(self) -> None:
        """End the process as a crash would; return when it is gone."""
        process = self._running()
        process.kill()
        process.wait()
        self._forget()

    def pause(self) -> None:
        """Freeze the process: its sockets stay open, nothing is answered."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on."""
        self._running().send_signal(signal.SIGCONT)

    @property
    def resident(self) -> int:
        """The bytes of memory it occupies."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the replica does not run"
        return self._process

    def _forget(self) -> None:
        process, self._process = self._running(), None
        if process.stdin is not None:
            process.stdin.close()
        if self._log is not None:
            self._log.unlink(missing_ok=True)
            self._log = None

    def _announced(self) -> str:
        status = self._running().poll()
        assert status is None, f"the replica ended with status {status}"
        found = _LISTENS.search(self.log)
        return found[1] if found else ""

    def _is_ready(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/ready", timeout=2).status_code == 200
        except httpx2.TransportError:
            return False
