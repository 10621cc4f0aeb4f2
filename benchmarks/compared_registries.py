"""The compared registries as processes on loopback, each with its database."""

import contextlib
import http.client
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.servers import Cores, running_mesh
from tests.support.polling import wait_until
from tests.support.ports import free_port

_CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# No agent expires during a run.
_AGENT_TIMEOUT_S = "3600"


@dataclass(frozen=True, slots=True)
class RunningRegistry:
    """A running registry: the ports of its replicas, and its processes including the database."""

    ports: tuple[int, ...]
    pids: Callable[[], list[int]]

    @property
    def cpu_seconds(self) -> float:
        """CPU time of all processes and their ended children."""
        return sum(map(_cpu_seconds, self.pids()))


@contextlib.contextmanager
def running_ours(replicas: int) -> Iterator[RunningRegistry]:
    """Run this registry with a Redis that acknowledges a write when it is on disk."""
    all_cores = frozenset(os.sched_getaffinity(0))
    with running_mesh(Cores(all_cores, all_cores), replicas=replicas) as mesh:
        pids = [mesh.store.pid, *(replica.pid for replica in mesh.replicas)]
        yield RunningRegistry(tuple(replica.port for replica in mesh.replicas), lambda: pids)


@contextlib.contextmanager
def running_upstream_sqlite(binary: Path) -> Iterator[RunningRegistry]:
    """Run upstream's registry with SQLite in its process."""
    with contextlib.ExitStack() as stack:
        folder = _temporary_folder(stack)
        port, pid = _start_upstream(stack, binary, f"{folder}/mesh.db", folder)
        yield RunningRegistry((port,), lambda: [pid])


@contextlib.contextmanager
def running_upstream_postgres(binary: Path, replicas: int) -> Iterator[RunningRegistry]:
    """Run upstream's registry with PostgreSQL in Debian's default configuration, each commit on disk."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        raise SystemExit("PostgreSQL is not installed; run apt-get install postgresql")
    with contextlib.ExitStack() as stack:
        folder, port = _temporary_folder(stack), free_port()
        folder.chmod(0o777)
        data = folder / "data"
        _run_as_postgres(f"{programs[-1]}/initdb", "-D", str(data), "--auth=trust", "-U", "postgres")
        arguments = ["-D", str(data), "-k", str(folder), "-p", str(port), "-h", "127.0.0.1"]
        server = _start_process(
            stack, ["runuser", "-u", "postgres", "--", f"{programs[-1]}/postgres", *arguments], folder
        )
        wait_until((folder / f".s.PGSQL.{port}").exists, description="PostgreSQL listens")
        wait_until(lambda: _create_database(programs[-1], folder, port), description="its database exists")
        url = f"postgres://postgres@127.0.0.1:{port}/mesh?sslmode=disable"
        started = [_start_upstream(stack, binary, url, folder) for _ in range(replicas)]
        yield RunningRegistry(
            tuple(each for each, _ in started), lambda: [*_process_tree(server), *(pid for _, pid in started)]
        )


def _create_database(programs: Path, folder: Path, port: int) -> bool:
    command = [f"{programs}/createdb", "-h", str(folder), "-p", str(port), "-U", "postgres", "mesh"]
    return (
        subprocess.run(["runuser", "-u", "postgres", "--", *command], check=False, capture_output=True).returncode == 0
    )


def _start_upstream(stack: contextlib.ExitStack, binary: Path, database: str, folder: Path) -> tuple[int, int]:
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "DATABASE_URL": database,
        "MCP_MESH_LOG_LEVEL": "ERROR",
        "DEFAULT_TIMEOUT_THRESHOLD": _AGENT_TIMEOUT_S,
    }
    pid = _start_process(stack, [str(binary), "-H", "127.0.0.1", "-p", str(port)], folder, environment)
    wait_until(lambda: _is_healthy(port), description="upstream's registry is healthy")
    return port, pid


def _start_process(
    stack: contextlib.ExitStack, command: list[str], folder: Path, environment: dict[str, str] | None = None
) -> int:
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return process.pid


def _run_as_postgres(*command: str) -> None:
    subprocess.run(["runuser", "-u", "postgres", "--", *command], check=True, capture_output=True)


def _temporary_folder(stack: contextlib.ExitStack) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="compared-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _process_tree(root: int) -> list[int]:
    """Return a process and its descendants."""
    children = _read_proc(f"{root}/task/{root}/children").split()
    return [root, *(pid for child in children for pid in _process_tree(int(child)))]


def _cpu_seconds(pid: int) -> float:
    fields = _read_proc(f"{pid}/stat").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _CLOCK_TICKS_PER_S


def _read_proc(name: str) -> str:
    """Read a file under /proc; empty for a process that has ended, whose parent has its CPU time."""
    try:
        return Path("/proc", name).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _is_healthy(port: int) -> bool:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=1)) as connection:
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
