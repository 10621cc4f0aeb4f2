"""The registries that are compared, each with its database, as processes of their own on loopback."""

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

_TICKS = os.sysconf("SC_CLK_TCK")
_START_SECONDS = 30.0
# No agent falls silent during a run.
_SILENCE_SECONDS = "3600"


@dataclass(frozen=True, slots=True)
class Rival:
    """A registry that runs: the ports of its replicas, and the processes it and its database consist of."""

    ports: tuple[int, ...]
    pids: Callable[[], list[int]]

    @property
    def cpu_seconds(self) -> float:
        """CPU time all of them have used, and those they have seen end."""
        return sum(map(_cpu_seconds, self.pids()))


@contextlib.contextmanager
def ours(replicas: int) -> Iterator[Rival]:
    """Run this registry with a Redis that has on disk what it acknowledged."""
    everywhere = frozenset(os.sched_getaffinity(0))
    with running_mesh(Cores(everywhere, everywhere), replicas=replicas) as mesh:
        pids = [mesh.store.pid, *(replica.pid for replica in mesh.replicas)]
        yield Rival(tuple(replica.port for replica in mesh.replicas), lambda: pids)


@contextlib.contextmanager
def sqlite(binary: Path) -> Iterator[Rival]:
    """Run upstream's registry with SQLite, which is in its process."""
    with contextlib.ExitStack() as undo:
        folder = _folder(undo)
        port, pid = _upstream(undo, binary, f"{folder}/mesh.db", folder)
        yield Rival((port,), lambda: [pid])


@contextlib.contextmanager
def postgres(binary: Path, replicas: int) -> Iterator[Rival]:
    """Run upstream's registry with PostgreSQL as Debian sets it up, each commit on disk."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        raise SystemExit("PostgreSQL is not there; apt-get install postgresql brings it")
    with contextlib.ExitStack() as undo:
        folder, port = _folder(undo), free_port()
        folder.chmod(0o777)
        data = folder / "data"
        _as_postgres(f"{programs[-1]}/initdb", "-D", str(data), "--auth=trust", "-U", "postgres")
        arguments = ["-D", str(data), "-k", str(folder), "-p", str(port), "-h", "127.0.0.1"]
        server = _start(undo, ["runuser", "-u", "postgres", "--", f"{programs[-1]}/postgres", *arguments], folder)
        wait_until((folder / f".s.PGSQL.{port}").exists, description="PostgreSQL comes up", timeout=_START_SECONDS)
        wait_until(
            lambda: _database(programs[-1], folder, port), description="its database comes up", timeout=_START_SECONDS
        )
        url = f"postgres://postgres@127.0.0.1:{port}/mesh?sslmode=disable"
        started = [_upstream(undo, binary, url, folder) for _ in range(replicas)]
        yield Rival(tuple(each for each, _ in started), lambda: [*_tree(server), *(pid for _, pid in started)])


def _database(programs: Path, folder: Path, port: int) -> bool:
    command = [f"{programs}/createdb", "-h", str(folder), "-p", str(port), "-U", "postgres", "mesh"]
    return (
        subprocess.run(["runuser", "-u", "postgres", "--", *command], check=False, capture_output=True).returncode == 0
    )


def _upstream(undo: contextlib.ExitStack, binary: Path, database: str, folder: Path) -> tuple[int, int]:
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "DATABASE_URL": database,
        "MCP_MESH_LOG_LEVEL": "ERROR",
        "DEFAULT_TIMEOUT_THRESHOLD": _SILENCE_SECONDS,
    }
    pid = _start(undo, [str(binary), "-H", "127.0.0.1", "-p", str(port)], folder, environment)
    wait_until(lambda: _answers(port), description="upstream's registry comes up", timeout=_START_SECONDS)
    return port, pid


def _start(
    undo: contextlib.ExitStack, command: list[str], folder: Path, environment: dict[str, str] | None = None
) -> int:
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    undo.callback(process.wait)
    undo.callback(process.terminate)
    return process.pid


def _as_postgres(*command: str) -> None:
    subprocess.run(["runuser", "-u", "postgres", "--", *command], check=True, capture_output=True)


def _folder(undo: contextlib.ExitStack) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="rival-"))
    undo.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _tree(root: int) -> list[int]:
    """Return a process and all below it."""
    children = _proc(f"{root}/task/{root}/children").split()
    return [root, *(pid for child in children for pid in _tree(int(child)))]


def _cpu_seconds(pid: int) -> float:
    fields = _proc(f"{pid}/stat").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def _proc(name: str) -> str:
    """Read what the kernel says of a process; nothing of one that has ended, whose parent has its time."""
    try:
        return Path("/proc", name).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _answers(port: int) -> bool:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=1)) as connection:
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
