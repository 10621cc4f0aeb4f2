"""One replica as a separate process with an HTTP client."""

import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import httpx2

from tests.support.child_process import ChildProcess
from tests.support.http_calls import REQUEST_TIMEOUT_S
from tests.support.ports import free_port

# Variables that the process inherits; a developer's REGISTRY_… or REDIS_URL must not affect a test.
_INHERITED_VARIABLES = ("PATH", "HOME", "TMPDIR", "LANG")
_LISTENING_URL = re.compile(r'(?:listens on |"event":"server_started",.*"url":")(http://[^\s"]+)')
# The longest shutdown after the delay for balancers, in seconds on an idle machine.
SHUTDOWN_S = 5.0


class Replica(ChildProcess):
    """`python -m registry` on its own port, which stays the same over `stop()` or `kill()` and `start()`.

    `redis_url` is the store, None for the embedded one; `env` adds variables. `url` is where it listens.
    `command_prefix` precedes the command, for example to enter a network namespace. As a context manager it starts and
    stops the replica.
    """

    def __init__(self, redis_url: str | None = None, *, command_prefix: Sequence[str] = (), **env: str) -> None:
        inherited = {name: os.environ[name] for name in _INHERITED_VARIABLES if name in os.environ}
        store = {} if redis_url is None else {"REDIS_URL": redis_url}
        env = inherited | {"REGISTRY_PORT": str(free_port())} | store | env
        super().__init__(*command_prefix, sys.executable, "-m", "registry", env=env)
        self.url = ""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._process is not None:
            self.stop()
        self.kill()

    def is_ready(self) -> bool:
        """Return whether the replica has logged its URL and is ready."""
        found = _LISTENING_URL.search(self.output)
        if found is None:
            return False
        self.url = found[1]
        try:
            return httpx2.get(f"{self.url}/ready", timeout=REQUEST_TIMEOUT_S).status_code == 200
        except httpx2.TransportError:
            return False

    def stop(self) -> None:
        """Send SIGTERM; assert that the process ends with status 0."""
        try:
            status = self.wait_for_exit(signal.SIGTERM)
        finally:
            self.kill()
        assert status == 0, f"ended with status {status}\n{self.output}"

    @property
    def resident_bytes(self) -> int:
        """The resident memory of the process in bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
