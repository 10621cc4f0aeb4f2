"""The demo's replicas: separate processes on one store, each on a free port."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
from mcp_mesh_client import ClientError, RegistryClient

import registry
from registry.config.settings import SETTINGS
from registry.errors import StartupError

_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 6.0  # a replica takes at most 5 s
_CALL_TIMEOUT_S = 10.0
_POLL_INTERVAL_S = 0.01


class Replica:
    """One replica as a child process, with its URL once it listens, and its log file."""

    def __init__(self, name: str, redis_url: str, directory: Path) -> None:
        self.name = name
        self.url = ""
        self.log_file = directory / f"{name}.log"
        # No setting of the registry is inherited: replicas cannot share a METRICS_PORT, and the demo sends no token.
        setting_names = {setting.env for setting in SETTINGS.values()}
        environ = {
            key: value
            for key, value in os.environ.items()
            if key not in setting_names and not key.startswith("DATABASE_")
        }
        with self.log_file.open("wb") as log_file:
            # Not asyncio's subprocess: after a cancelled creation nothing could stop the process.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "registry", "serve", "--port", "0", "--redis-url", redis_url],
                cwd=Path(registry.__file__).parents[1],  # runs the same package as this process
                env=environ | {"REGISTRY_INSTANCE_ID": name, "REGISTRY_LOG_FORMAT": "json"},
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                start_new_session=True,  # Ctrl-C reaches the demo only, which stops the replicas before the store
            )

    def create_client(self) -> RegistryClient:
        """Return a client that calls this replica once per request, without repeated attempts or cached responses."""
        return RegistryClient(
            self.url, max_rounds=1, timeout=_CALL_TIMEOUT_S, attempt_timeout=_CALL_TIMEOUT_S, offline_ttl=0
        )

    async def wait_until_ready(self) -> None:
        """Wait until it listens and its cache is filled. Raises StartupError."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self.url:
            await self._pause(deadline)
            self.url = next(self._logged_urls(), "")
        async with self.create_client() as client:
            while not await _is_ready(client):
                await self._pause(deadline)

    def terminate(self) -> None:
        """Send SIGTERM; the replica completes the requests it has accepted."""
        self._process.terminate()

    async def wait_until_stopped(self) -> None:
        """Wait until the process has ended; kill it after a timeout."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, _STOP_TIMEOUT_S)
        self._process.kill()
        self._process.wait()

    async def _pause(self, deadline: float) -> None:
        """Wait before the next check. Raises StartupError if the process has ended or the deadline has passed."""
        if self._process.poll() is not None or time.monotonic() >= deadline:
            raise StartupError(f"{self.name} did not start; its log:\n{self.log_file.read_text().strip()}")
        await asyncio.sleep(_POLL_INTERVAL_S)

    def _logged_urls(self) -> Iterator[str]:
        """Yield the URL from the log; its last line may be incomplete."""
        for line in self.log_file.read_bytes().split(b"\n")[:-1]:
            if line.startswith(b"{") and (event := orjson.loads(line))["event"] == "server_started":
                yield event["url"]


async def _is_ready(client: RegistryClient) -> bool:
    try:
        return (await client.ready()).get("status") == "ready"
    except ClientError:
        return False
