"""The embedded store: a Redis-compatible server that this process starts, supervises and stops.

    registry ── pipe ──► wrapper (sh) ──► server
                            └───────────► watcher (sh), which reads the pipe

The registry never writes to the pipe. When it exits or is killed, the kernel closes the pipe; then the watcher
sends SIGTERM to the process group, so that the server closes its append-only file.

The data directory has two locks. `lock` is held by the registry only, as long as it runs. `server.lock` is
inherited by all three children: while it is held, a server may still write. A server starts only under both.
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
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from urllib.parse import quote

from registry.config.data_directory import find_access_problem
from registry.errors import StartupError
from registry.store.embedded.append_only_file import (
    DamagedFileError,
    FileRepair,
    is_damage_report,
    repair_append_only_file,
)
from registry.store.embedded.binary import ServerBinary, child_environment
from registry.store.embedded.file_modes import open_private, restrict_to_owner
from registry.telemetry.logs import get_logger

if sys.platform != "win32":
    import fcntl

SERVER_LOCK_TIMEOUT_S = 5.0  # the server of a killed registry needs time to close its files
START_TIMEOUT_S = 60.0  # from the start, or from the last reply that the server is loading a large file
LOADING_LOG_DELAY_S, LOADING_LOG_INTERVAL_S = 1.0, 10.0
CLOSE_TIMEOUT_S = 1.2  # then SIGKILL: acknowledged data is on disk, and the registry has to exit within 5 s
MIN_RESTART_DELAY_S, MAX_RESTART_DELAY_S = 0.1, 5.0
STABLE_AFTER_S = 10.0  # an exit after this time counts as a new failure, not as a repetition of the previous one
MAX_SOCKET_PATH_BYTES = 99  # the limits are 103 (macOS) and 107 (Linux)
MAX_LOGGED_FILES = 20
_ADDRESS_FILE = "address"  # in the data directory: the URL of the server while `lock` is held

# The lock arrives as stdout and is moved to 4; the pipe is moved to 3, because sh replaces stdin of background jobs.
# `kill 0` signals the whole group and never a reused process id. The watcher exits with 0 only after the registry
# ended, and only then the socket's directory is removed: until then its name in /tmp must not become free for
# other users. The wrapper waits for both children, because a container may have no init process that reaps them.
WRAPPER_SCRIPT = """
umask 077
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

# No RDB preamble: Redis rejects that of Valkey 9, so installing Redis later would lose the data.
SERVER_ARGUMENTS = shlex.split(
    "--port 0 --unixsocketperm 700 --appendonly yes --appendfsync always --aof-use-rdb-preamble no --save '' "
    "--maxmemory-policy noeviction --notify-keyspace-events Kt --daemonize no --loglevel warning"
)

log = get_logger(__name__)


def running_server_url(data_dir: Path) -> str | None:
    """Return the URL of the embedded Redis server that runs on this data directory, or None if none runs."""
    if sys.platform == "win32" or not (data_dir / "lock").exists():
        return None
    with (data_dir / "lock").open("rb") as lock, contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    return (data_dir / _ADDRESS_FILE).read_text()


@dataclass(frozen=True, slots=True)
class _ServerProcess:
    """A started Redis server: its wrapper process, the pipe that ties it to the registry, and its offset in the log."""

    wrapper: asyncio.subprocess.Process
    lifetime_pipe: FileIO
    log_offset: int


class EmbeddedServer:
    """The embedded server on one data directory: `start()`, then `supervise()` as a task, finally `stop()`.

    Creates `data_dir` if it does not exist, for its owner only. Acknowledged data is on disk there, in a format
    that every server from 7.0 on reads. Only one registry at a time can use it.
    """

    _socket_path: Path  # set by start()

    def __init__(self, data_dir: Path, binary: ServerBinary) -> None:
        self.data_dir = data_dir.absolute()
        self.binary = binary
        self._log_file = self.data_dir / "server.log"
        self._process: _ServerProcess | None = None
        self._cleanup = contextlib.AsyncExitStack()

    @property
    def url(self) -> str:
        """The URL of the server for redis-py; it does not change when the server is restarted."""
        return f"unix://{quote(str(self._socket_path))}"

    async def start(self) -> None:
        """Start the server and return when it has loaded its data and accepts commands.

        Raises StartupError if the data directory is in use by another registry or not usable, or if the server does
        not start. After an error no process is left, and `start()` can be called again.
        """
        async with self._usable_directory() as undo:
            self._socket_path = _make_socket_directory() / "redis.sock"
            undo.callback(shutil.rmtree, self._socket_path.parent, ignore_errors=True)
            undo.push_async_callback(self._terminate)
            self._process = await self._launch()
            await self._wait_until_ready(self._process)
            address_file = self.data_dir / _ADDRESS_FILE
            with open_private(address_file, "wb") as file:
                file.write(self.url.encode())
            self._cleanup = undo.pop_all()

    async def repair(self) -> FileRepair:
        """Repair the append-only file while no server runs on it. Raises StartupError if that fails."""
        async with self._usable_directory() as stack:
            stack.enter_context(await self._acquire_lock("server.lock", SERVER_LOCK_TIMEOUT_S))
            return await asyncio.to_thread(repair_append_only_file, self.data_dir, self.binary)

    async def stop(self) -> None:
        """Stop the server and release the data directory; does nothing if no server runs.

        Cancel `supervise()` first. Takes milliseconds; a server that does not exit in time is killed.
        """
        await self._cleanup.aclose()

    async def supervise(self) -> None:
        """Restart the server whenever it exits, until cancelled; cancel it before `stop()`.

        Waits 0.1 s before a restart, then twice as long each time up to 5 s, and 0.1 s again after a server ran for
        10 s. Each exit is logged as a warning.
        """
        delay_s = MIN_RESTART_DELAY_S
        while (run := self._process) is not None:
            started = time.monotonic()
            status = await run.wrapper.wait()
            if run is not self._process:
                return
            if time.monotonic() - started >= STABLE_AFTER_S:
                delay_s = MIN_RESTART_DELAY_S
            log.warning(
                "embedded_store_exited",
                status=status,
                log_tail=self._log_tail(run),
                restart_in_s=delay_s,
                log_file=str(self._log_file),
            )
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, MAX_RESTART_DELAY_S)
            try:
                await self._reap(run)
                self._process = await self._launch()
            except (OSError, StartupError) as error:
                log.warning("embedded_store_restart_failed", error=str(error), retry_in_s=delay_s)

    @contextlib.asynccontextmanager
    async def _usable_directory(self) -> AsyncIterator[contextlib.AsyncExitStack]:
        """Create, lock and protect the data directory; the stack unlocks it. An OSError in it is a StartupError."""
        try:
            async with contextlib.AsyncExitStack() as stack:
                self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
                if (problem := find_access_problem(self.data_dir)) is not None:
                    raise StartupError(problem)
                lock = stack.enter_context(await self._acquire_lock("lock", 0))
                lock.write(b"%d\n" % os.getpid())
                if corrected := restrict_to_owner(self.data_dir):
                    log.warning(
                        "data_dir_modes_corrected",
                        data_dir=str(self.data_dir),
                        files=corrected[:MAX_LOGGED_FILES],
                        count=len(corrected),
                    )
                yield stack
        except OSError as error:
            raise StartupError(
                f"The embedded store cannot use {self.data_dir}: {error}; set REGISTRY_DATA_DIR to a writable directory"
            ) from error

    async def _acquire_lock(self, name: str, timeout_s: float) -> FileIO:
        """Lock a file of the data directory and empty it. Raises StartupError with the holder after `timeout_s`."""
        path, deadline = self.data_dir / name, time.monotonic() + timeout_s
        with contextlib.ExitStack() as undo:
            lock = undo.enter_context(open_private(path, "ab"))
            while True:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    lock.truncate(0)
                    undo.pop_all()
                    return lock
                if time.monotonic() >= deadline:
                    other = "server of a stopped registry with process group"
                    holder = "registry with process id" if name == "lock" else other
                    raise StartupError(
                        f"The data directory {self.data_dir} is in use by the {holder} "
                        f"{path.read_text().strip() or '(unknown)'}; "
                        "stop it or set REGISTRY_DATA_DIR to another directory"
                    )
                await asyncio.sleep(0.01)  # flock cannot be awaited, and a blocking one could not be cancelled

    async def _launch(self) -> _ServerProcess:
        with contextlib.ExitStack() as stack:
            lock = stack.enter_context(await self._acquire_lock("server.lock", SERVER_LOCK_TIMEOUT_S))
            log_file = stack.enter_context(open_private(self._log_file, "ab"))
            log_start = log_file.tell()
            read_end, write_end = os.pipe()
            stack.callback(os.close, read_end)
            pipe = FileIO(write_end, "wb")
            environment = child_environment()
            command = [
                *_env_command(environment, self.binary.path),
                str(self.binary.path),
                *SERVER_ARGUMENTS,
                "--unixsocket",
                str(self._socket_path),
            ]
            command += ["--dir", str(self.data_dir), "--logfile", str(self._log_file)]
            try:
                wrapper = await asyncio.create_subprocess_exec(
                    *("/bin/sh", "-c", WRAPPER_SCRIPT, "mcp-mesh-registry", str(self._socket_path.parent), *command),
                    stdin=read_end,
                    stdout=lock,
                    stderr=log_file,
                    env=environment,
                    start_new_session=True,  # Ctrl-C in a terminal reaches only the registry, which stops the server
                )
            except BaseException:
                pipe.close()
                raise
            lock.write(b"%d\n" % wrapper.pid)
            return _ServerProcess(wrapper, pipe, log_start)

    async def _wait_until_ready(self, process: _ServerProcess) -> None:
        now = time.monotonic()
        deadline, log_at = now + START_TIMEOUT_S, now + LOADING_LOG_DELAY_S
        delay_s = 0.01
        while (reply := await _ping(self._socket_path)) != b"+PONG\r\n":
            now = time.monotonic()
            if reply.startswith(b"-LOADING"):
                deadline = now + START_TIMEOUT_S
            if now >= log_at:
                log_at = now + LOADING_LOG_INTERVAL_S
                log.info("embedded_store_loading", data_dir=str(self.data_dir), effect="/ready and requests return 503")
            if (status := process.wrapper.returncode) is not None or now >= deadline:
                raise self._start_error(status, self._log_tail(process))
            await asyncio.sleep(delay_s)
            delay_s = min(1.5 * delay_s, 0.5)

    def _start_error(self, status: int | None, log_tail: str) -> StartupError:
        if is_damage_report(log_tail):
            return DamagedFileError(self.data_dir)
        failure = f"exited with status {status}" if status is not None else "does not respond"
        return StartupError(
            f"The embedded store ({self.binary.path} {self.binary.version}) {failure}; see {self._log_file}, or set "
            f"REDIS_URL to another server. End of the log: {log_tail or 'empty'}"
        )

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
        """Wait until the server and its subprocesses have ended; kill those that do not end in time."""
        process.lifetime_pipe.close()
        # A wrapper that exited has waited for the server: the rest of the group, such as an unfinished rewrite, is
        # killed. A wrapper that was killed has not: the server may still run and needs time to close its file.
        timeout_s = 0.0 if (process.wrapper.returncode or 0) > 0 else CLOSE_TIMEOUT_S
        try:
            (await self._acquire_lock("server.lock", timeout_s)).close()
        except StartupError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.wrapper.pid, signal.SIGKILL)
        await process.wrapper.wait()


def _env_command(environment: Mapping[str, str], program: Path) -> list[str]:
    """Return the command that starts a program without the variables that a shell adds, such as PWD."""
    # env reads a path with this sign as a variable; the program then has the variables of the shell, too.
    if "=" in str(program):
        return []
    return ["env", "-i", *(f"{name}={value}" for name, value in environment.items())]


def _make_socket_directory() -> Path:
    """Create a directory of this user with a path short enough for a unix socket, even if TMPDIR is long."""
    directory = Path(tempfile.mkdtemp(prefix="mcp-mesh-"))
    if len(os.fsencode(directory / "redis.sock")) > MAX_SOCKET_PATH_BYTES:
        directory.rmdir()
        directory = Path(tempfile.mkdtemp(prefix="mcp-mesh-", dir="/tmp"))
    return directory


async def _ping(socket: Path) -> bytes:
    """Return the reply to PING: `+PONG`, `-LOADING …` while the server loads its data, or nothing."""
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_unix_connection(socket)
            with contextlib.closing(writer):
                writer.write(b"PING\r\n")
                return await reader.readline()
    except OSError:
        return b""
