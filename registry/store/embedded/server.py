"""The embedded store: a Redis-compatible server that this process starts, watches and ends.

    registry ── pipe ──► wrapper (sh) ──► server
                            └───────────► watcher (sh), which reads the pipe

Nothing is ever written to the pipe; that it ends is the message. However the registry goes, the kernel
closes its end, and the watcher sends SIGTERM to the group, so that the server closes its append-only file.

Two locks lie in the data directory. `lock` is the registry's alone: who holds it is alive. `server.lock` is
inherited by all three children: while it is held, a server may still write. A server starts under both.
"""

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from urllib.parse import quote

from registry.errors import StartupError
from registry.store.embedded.binary import ServerBinary
from registry.telemetry.logs import get_logger

if sys.platform != "win32":
    import fcntl

SERVER_LOCK_TIMEOUT_S = 5.0  # for the server of a registry that was killed to close its files
START_TIMEOUT_S = 60.0  # for a server that loads a large file
CLOSE_TIMEOUT_S = 1.2  # then SIGKILL: what was acknowledged is on disk, and the registry has 5 s to exit
MIN_RESTART_DELAY_S, MAX_RESTART_DELAY_S = 0.1, 5.0
STABLE_AFTER_S = 10.0  # a server that ran this long did not die of what the one before it died of
MAX_SOCKET_PATH_BYTES = 99  # the kernels take 103 (macOS) and 107 (Linux)
_ADDRESS_FILE = "address"  # in the data directory: where the server listens while `lock` is held

# The lock comes in as stdout and moves to 4; the pipe moves to 3, for an asynchronous list loses its stdin.
# `kill 0` is the whole group: no process id that could by now be another's. The watcher ends with 0 only when
# the registry is gone, and only then may the socket's directory go: before, its name must not become free
# for others in /tmp. Both children are waited for, since in a container nobody else may reap them.
WRAPPER_SCRIPT = """
exec 3<&0 4>&1 </dev/null >&2
sockets=$1; shift
"$@" 3<&- & server=$!
{ read -r _; trap '' TERM; kill -TERM 0; } <&3 & watcher=$!
trap '' TERM
exec 2>/dev/null 3<&-
wait "$server"; status=$?
kill -TERM 0
wait "$watcher" && rmdir "$sockets"
exit "$status"
"""

# No RDB preamble: Redis refuses that of Valkey 9, so whoever installs Redis later would have lost the data.
SERVER_ARGUMENTS = shlex.split(
    "--port 0 --unixsocketperm 700 --appendonly yes --appendfsync always --aof-use-rdb-preamble no --save '' "
    "--maxmemory-policy noeviction --notify-keyspace-events Kt --daemonize no --loglevel warning"
)

log = get_logger(__name__)


def running_server_url(data_dir: Path) -> str | None:
    """Return where the embedded server listens whose registry has this data directory now, None where none has."""
    if sys.platform == "win32" or not (data_dir / "lock").exists():
        return None
    with (data_dir / "lock").open("rb") as lock, contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    return (data_dir / _ADDRESS_FILE).read_text()


@dataclass(frozen=True, slots=True)
class _ServerProcess:
    """One life of the server: its wrapper, our end of the pipe, and how long server.log was before."""

    wrapper: asyncio.subprocess.Process
    lifetime_pipe: FileIO
    log_offset: int


class EmbeddedServer:
    """The embedded server on one data directory: `start()`, then `supervise()` as a task, at last `stop()`.

    `data_dir` is created when absent, for its owner only. What was acknowledged is on disk there, in a form
    that any server from 7.0 on reads. One registry at a time may use it.
    """

    _socket_path: Path  # from start() on

    def __init__(self, data_dir: Path, binary: ServerBinary) -> None:
        self.data_dir = data_dir.absolute()
        self.binary = binary
        self._log_file = self.data_dir / "server.log"
        self._process: _ServerProcess | None = None
        self._cleanup = contextlib.AsyncExitStack()

    @property
    def url(self) -> str:
        """Where the server listens, as redis-py takes it; the same from `start()` on, whatever dies."""
        return f"unix://{quote(str(self._socket_path))}"

    async def start(self) -> None:
        """Start the server and return once it answers, at most a minute later.

        Raises:
            StartupError: the data directory is in use by another registry or cannot be used, or the server
                does not come up. Nothing is left running, and `start()` may be called again.
        """
        try:
            async with contextlib.AsyncExitStack() as undo:
                self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
                lock = undo.enter_context(await self._acquire_lock("lock", 0))
                lock.write(b"%d\n" % os.getpid())
                self._socket_path = _make_socket_directory() / "redis.sock"
                undo.callback(shutil.rmtree, self._socket_path.parent, ignore_errors=True)
                undo.push_async_callback(self._terminate)
                self._process = await self._launch()
                await self._wait_until_ready(self._process)
                (self.data_dir / _ADDRESS_FILE).write_text(self.url)
                self._cleanup = undo.pop_all()
        except OSError as error:
            raise StartupError(
                f"The embedded store cannot run on {self.data_dir}: {error}; "
                "set REGISTRY_DATA_DIR to a directory that this user may write to"
            ) from error

    async def stop(self) -> None:
        """End the server and release the data directory; harmless when nothing runs.

        Cancel `supervise()` first. Takes milliseconds; a server that does not end within 2 s is killed.
        """
        await self._cleanup.aclose()

    async def supervise(self) -> None:
        """Restart the server whenever it dies, for ever; to be cancelled before `stop()`.

        Waits 0.1 s before a restart, twice as long each time up to 5 s, and 0.1 s again once a server has run
        for 10 s. Each death is a warning in the log.
        """
        pause = MIN_RESTART_DELAY_S
        while (run := self._process) is not None:
            watched_from = time.monotonic()
            status = await run.wrapper.wait()
            if run is not self._process:
                return
            if time.monotonic() - watched_from >= STABLE_AFTER_S:
                pause = MIN_RESTART_DELAY_S
            words, see = self._log_tail(run), str(self._log_file)
            log.warning("embedded_store_died", status=status, last_words=words, restart_in_seconds=pause, see=see)
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_RESTART_DELAY_S)
            try:
                await self._reap(run)
                self._process = await self._launch()
            except (OSError, StartupError) as error:
                log.warning("embedded_store_not_restarted", problem=str(error), next_try_in_seconds=pause)

    async def _acquire_lock(self, name: str, timeout_s: float) -> FileIO:
        """The lock, taken within this time and still to be signed; else StartupError, naming who holds it."""
        path, deadline = self.data_dir / name, time.monotonic() + timeout_s
        with contextlib.ExitStack() as undo:
            lock = undo.enter_context(path.open("ab", buffering=0))
            while True:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    lock.truncate(0)
                    undo.pop_all()
                    return lock
                if time.monotonic() >= deadline:
                    holder = "registry, process" if name == "lock" else "dead registry's server, process group"
                    raise StartupError(
                        f"The data directory {self.data_dir} is in use by a {holder} "
                        f"{path.read_text().strip() or '(unknown)'}; "
                        "stop that one, or set REGISTRY_DATA_DIR to another directory"
                    )
                await asyncio.sleep(0.01)

    async def _launch(self) -> _ServerProcess:
        with contextlib.ExitStack() as ours:
            lock = ours.enter_context(await self._acquire_lock("server.lock", SERVER_LOCK_TIMEOUT_S))
            log_file = ours.enter_context(self._log_file.open("ab", buffering=0))
            log_start = log_file.tell()
            reading, writing = os.pipe()
            ours.callback(os.close, reading)
            pipe = FileIO(writing, "wb")
            command = [str(self.binary.path), *SERVER_ARGUMENTS, "--unixsocket", str(self._socket_path)]
            command += ["--dir", str(self.data_dir), "--logfile", str(self._log_file)]
            try:
                wrapper = await asyncio.create_subprocess_exec(
                    *("/bin/sh", "-c", WRAPPER_SCRIPT, "mcp-mesh-registry", str(self._socket_path.parent), *command),
                    stdin=reading,
                    stdout=lock,
                    stderr=log_file,
                    start_new_session=True,  # Ctrl-C in a terminal is for the registry, which ends the server
                )
            except BaseException:
                pipe.close()
                raise
            lock.write(b"%d\n" % wrapper.pid)
            return _ServerProcess(wrapper, pipe, log_start)

    async def _wait_until_ready(self, process: _ServerProcess) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        pause = 0.01
        while not await _responds_to_ping(self._socket_path):
            if (status := process.wrapper.returncode) is not None or time.monotonic() >= deadline:
                how = f"ended with status {status}" if status is not None else "does not answer"
                raise StartupError(
                    f"The embedded store ({self.binary.path} {self.binary.version}) {how}; mend what "
                    f"{self._log_file} says, or set REDIS_URL to a server of your own. "
                    f"Its last words: {self._log_tail(process) or 'none'}"
                )
            await asyncio.sleep(pause)
            pause = min(1.5 * pause, 0.5)

    def _log_tail(self, process: _ServerProcess) -> str:
        with contextlib.suppress(OSError), self._log_file.open("rb") as file:
            file.seek(max(process.log_offset, file.seek(0, os.SEEK_END) - 2_000))
            return file.read().decode(errors="replace").strip()
        return ""

    async def _terminate(self) -> None:
        run, self._process = self._process, None
        if run is not None:
            await self._reap(run)

    async def _reap(self, process: _ServerProcess) -> None:
        """Return when nothing of this life is left."""
        process.lifetime_pipe.close()
        # A wrapper that ended by itself has seen the server's end: the rest of the group is debris, such as a
        # half-done rewrite. One that was killed has not: the server may be well, and shall close its file.
        patience = 0.0 if (process.wrapper.returncode or 0) > 0 else CLOSE_TIMEOUT_S
        try:
            (await self._acquire_lock("server.lock", patience)).close()
        except StartupError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.wrapper.pid, signal.SIGKILL)
        await process.wrapper.wait()


def _make_socket_directory() -> Path:
    """A fresh directory of ours alone, short enough for a socket's address whatever TMPDIR says."""
    made = Path(tempfile.mkdtemp(prefix="mcp-mesh-"))
    if len(os.fsencode(made / "redis.sock")) > MAX_SOCKET_PATH_BYTES:
        made.rmdir()
        made = Path(tempfile.mkdtemp(prefix="mcp-mesh-", dir="/tmp"))
    return made


async def _responds_to_ping(socket: Path) -> bool:
    """Whether the server takes commands by now: not before it listens, nor while it loads."""
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_unix_connection(socket)
            with contextlib.closing(writer):
                writer.write(b"PING\r\n")
                return await reader.readline() == b"+PONG\r\n"
    except OSError:
        return False
