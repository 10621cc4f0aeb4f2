"""Data of the embedded server is for its owner only, and the server receives no secret of the registry."""

import os
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from structlog.testing import LogCapture

from registry.errors import StartupError
from registry.store.embedded.binary import ServerBinary, find_server_binary
from registry.store.embedded.server import EmbeddedServer
from tests.support.polling import async_wait_until
from tests.support.processes import processes_that_mention

ALLOWED_VARIABLES = {"PATH", "LANG", "TZ"}


@pytest.fixture
async def server(directory: Path) -> AsyncIterator[EmbeddedServer]:
    """Provide a server that is not started yet; it is stopped after the test."""
    binary = find_server_binary()
    assert binary is not None
    server = EmbeddedServer(directory / "data", binary)
    yield server
    await server.stop()


@pytest.fixture
def open_umask() -> Iterator[None]:
    """Let new files be for everyone, as far as their program asks for that."""
    umask = os.umask(0)
    yield
    os.umask(umask)


def modes(data_dir: Path) -> dict[str, int]:
    """Return the permissions of a directory and everything in it, by relative path."""
    return {
        str(path.relative_to(data_dir)): stat.S_IMODE(path.stat().st_mode) for path in [data_dir, *data_dir.rglob("*")]
    }


@pytest.mark.usefixtures("open_umask")
async def test_no_other_user_reads_the_agents(server: EmbeddedServer, events: LogCapture) -> None:
    """T8: every new file is for its owner only, also those of the server, and after a rewrite."""
    await server.start()
    async with Redis.from_url(server.url) as client:
        await client.set("agent", "secret")
        await client.bgrewriteaof()
    folder = server.data_dir / "appendonlydir"
    await async_wait_until(lambda: list(folder.glob("*.2.base.*")), description="the rewrite is done")

    found = modes(server.data_dir)
    assert {"lock", "server.lock", "server.log", "address", "appendonlydir/appendonly.aof.manifest"} <= found.keys()
    assert {path: mode for path, mode in found.items() if mode & 0o077} == {}
    assert events.entries == []


async def test_wider_modes_of_an_existing_directory_are_corrected(server: EmbeddedServer, events: LogCapture) -> None:
    """T8: the log has each file. Files of others and targets of links are unchanged."""
    await server.start()
    await server.stop()
    other, target = server.data_dir / "notes.txt", server.data_dir.parent / "target"
    damaged = server.data_dir / "appendonlydir.damaged-1"
    damaged.mkdir()
    for file in (other, target, damaged / "file"):
        file.touch()
    (server.data_dir / "temp-link").symlink_to(target)
    for path in [server.data_dir, *server.data_dir.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)

    await server.start()

    assert {path for path, mode in modes(server.data_dir).items() if mode & 0o077} == {"notes.txt", "temp-link"}
    (event,) = events.entries
    assert (event["event"], event["log_level"]) == ("data_dir_modes_corrected", "warning")
    assert event["data_dir"] == str(server.data_dir)
    assert {". 0755", "lock 0644", "appendonlydir 0755", "appendonlydir.damaged-1/file 0644"} <= {*event["files"]}
    assert event["count"] == len(event["files"])


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o775, 0o702])
async def test_a_data_directory_that_others_may_write_to_is_refused(server: EmbeddedServer, mode: int) -> None:
    """T25: they could replace the agents. Nothing is written to it."""
    if os.getgid() != 0 and not mode & stat.S_IWOTH:
        pytest.skip("the group of this user may have no other member")
    server.data_dir.mkdir()
    server.data_dir.chmod(mode)

    with pytest.raises(StartupError, match=r"REGISTRY_DATA_DIR is '.*/data', which may be written by"):
        await server.start()

    assert list(server.data_dir.iterdir()) == []


async def test_a_directory_of_its_own_in_a_volume_for_everyone_is_used(server: EmbeddedServer) -> None:
    """Volumes of Kubernetes have such modes."""
    server.data_dir.mkdir()
    server.data_dir.chmod(0o2777)
    inner = EmbeddedServer(server.data_dir / "registry", server.binary)

    await inner.start()
    await inner.stop()

    assert {path: mode & 0o077 for path, mode in modes(inner.data_dir).items() if mode & 0o077} == {}


def variables(environ: Path) -> dict[str, str]:
    """Return the variables in a file of /proc."""
    return dict(line.split("=", 1) for line in environ.read_text().split("\0") if line)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc shows the environment of a process")
async def test_the_server_and_its_shells_receive_no_secret(
    server: EmbeddedServer, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T8: the program copies its first environment, because Redis overwrites it with the title of the process."""
    for name in ("AUTH_TOKEN", "ENCRYPTION_KEY", "REDIS_URL", "HOME"):
        monkeypatch.setenv(name, "s3cret")
    for name, value in {"LANG": "C.UTF-8", "TZ": "UTC"}.items():
        monkeypatch.setenv(name, value)
    program, copy = directory / "program", directory / "environ"
    program.write_text(f'#!/bin/sh\ncat /proc/$$/environ > {copy}\nexec {server.binary.path} "$@"\n')
    program.chmod(0o700)
    started = EmbeddedServer(server.data_dir, ServerBinary(program, server.binary.version))
    await started.start()

    shells = processes_that_mention(started._socket_path.parent)
    found = {pid: variables(Path(f"/proc/{pid}/environ")) for pid in shells}
    await started.stop()

    assert len(found) == 3, shells
    assert {pid: each for pid, each in found.items() if each and each.keys() != ALLOWED_VARIABLES} == {}
    assert variables(copy) == {"LANG": "C.UTF-8", "TZ": "UTC", "PATH": os.environ["PATH"]}


async def test_a_program_below_a_folder_with_an_equals_sign_starts(server: EmbeddedServer) -> None:
    """Env would read its path as a variable."""
    folder = server.data_dir.parent / "a=b"
    folder.mkdir()
    (folder / "server").symlink_to(server.binary.path)
    other = EmbeddedServer(server.data_dir, ServerBinary(folder / "server", server.binary.version))

    await other.start()
    await other.stop()
