"""Replicas as they run in earnest: processes of their own on one store, each on a free port."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import orjson

import registry
from registry.cli.caller import Caller, CallFailed
from registry.config.settings import SETTINGS
from registry.errors import StartupError

_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 6.0  # a replica takes 5 at most
_POLL_INTERVAL_S = 0.01


class Replica:
    """One replica as a child process: its name, its address once it listens, and its log as a file."""

    def __init__(self, name: str, redis_url: str, directory: Path) -> None:
        self.name = name
        self.url = ""
        self.log_file = directory / f"{name}.log"
        # None of our own settings: three replicas cannot share a METRICS_PORT, and nobody knows the AUTH_TOKEN here.
        ours = {setting.env for setting in SETTINGS.values()}
        environ = {
            key: value for key, value in os.environ.items() if key not in ours and not key.startswith("DATABASE_")
        }
        with self.log_file.open("wb") as log_file:
            # Popen and not asyncio's own: whoever is cancelled while he waits for that one never learns the process.
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "registry", "serve", "--port", "0", "--redis-url", redis_url],
                cwd=Path(registry.__file__).parents[1],  # so that it is this very package that is run
                env=environ | {"REGISTRY_INSTANCE_ID": name, "REGISTRY_LOG_FORMAT": "json"},
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                start_new_session=True,  # Ctrl-C in a terminal is for us, who end the replicas before the store
            )

    async def wait_until_ready(self) -> None:
        """Return when it listens and its cache is filled. Raises StartupError."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not await self._is_ready():
            if self._process.poll() is not None or time.monotonic() >= deadline:
                raise StartupError(f"{self.name} does not serve; its log says:\n{self.log_file.read_text().strip()}")
            await asyncio.sleep(_POLL_INTERVAL_S)

    def terminate(self) -> None:
        """Send SIGTERM: it finishes what it has accepted."""
        self._process.terminate()

    async def wait_until_stopped(self) -> None:
        """Return when it has ended, by force if it takes longer than it may."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, _STOP_TIMEOUT_S)
        self._process.kill()
        self._process.wait()

    async def _is_ready(self) -> bool:
        self.url = self.url or next(self._logged_urls(), "")
        if not self.url:
            return False
        caller = Caller(self.url)
        try:
            await caller.call("GET", "/ready")
        except CallFailed:
            return False
        else:
            return True
        finally:
            caller.close()

    def _logged_urls(self) -> Iterator[str]:
        """Yield the address it has logged. The last line of the file may be half a line."""
        for line in self.log_file.read_bytes().split(b"\n")[:-1]:
            if line.startswith(b"{") and (event := orjson.loads(line))["event"] == "listening":
                yield event["url"]
