"""backup, restore and doctor as commands, with running replicas."""

import asyncio
import gzip
import random
import re
import stat
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis

from registry.store.agents import RegistrationWrite
from registry.store.store import Store
from tests.cli.cli_process import EXECUTABLE, CliProcess, environment
from tests.support.builders import a_spec
from tests.support.http_calls import REQUEST_TIMEOUT_S, a_registration, expect_success, list_agent_ids, register
from tests.support.polling import async_wait_until
from tests.support.replica import Replica
from tests.support.watch_client import open_watch

FLEET = 1000
LARGE_FLEET = 100_000


def run(*arguments: str, directory: Path, stdin: bytes = b"", **environ: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command until it exits."""
    return subprocess.run(
        [str(EXECUTABLE), *arguments],
        env=environment(directory, **environ),
        input=stdin,
        capture_output=True,
        check=False,
    )


async def register_fleet(client: httpx2.AsyncClient) -> None:
    """Register many agents and send one heartbeat for each."""
    ids = [f"a{number}" for number in range(FLEET)]
    for at in range(0, FLEET, 200):
        batch = [a_registration(agent_id, namespace="fleet") for agent_id in ids[at : at + 200]]
        expect_success(await client.post("/agents/batch", json={"agents": batch}))
    expect_success(await client.post("/heartbeats", json={"agent_ids": ids}))


async def fleet_agents(client: httpx2.AsyncClient) -> dict[str, Any]:
    """Return the agents of the fleet by id, without their resource versions."""
    agents = (await client.get("/agents", params={"namespace": "fleet"})).json()["agents"]
    return {agent.pop("id"): agent for agent in agents if agent.pop("resource_version")}


@pytest.fixture
async def replica(redis_url: str) -> AsyncIterator[Replica]:
    """Start a replica."""
    with Replica(redis_url) as running:
        yield running


@pytest.mark.fault(47, "A backup is restored after all data was lost")
async def test_a_fleet_is_backed_up_under_load_wiped_and_restored(
    replica: Replica, redis_client: redis.Redis, redis_url: str, directory: Path
) -> None:
    """The agents are equal, with a new timeline and larger versions; watches end, so that clients list again."""
    file = directory / "mesh.gz"
    async with httpx2.AsyncClient(base_url=replica.url, timeout=REQUEST_TIMEOUT_S) as client:
        await register_fleet(client)
        before = await fleet_agents(client)
        load = asyncio.create_task(register_repeatedly(client))
        done = await asyncio.to_thread(run, "backup", str(file), directory=directory, REDIS_URL=redis_url)
        assert not load.done(), load.result()
        load.cancel()
        assert done.returncode == 0, done.stderr
        found = re.search(rb"at version (\d+)", done.stderr)
        assert found is not None
        version = int(found[1])

        async with open_watch(replica.url, namespace="fleet") as stream:
            redis_client.flushall()
            done = await asyncio.to_thread(run, "restore", str(file), directory=directory, REDIS_URL=redis_url)
            assert b" agents restored, 0 already registered and unchanged" in done.stdout, done.stderr
            assert (await stream.remaining_events())[-1].kind == "ERROR"

        response = (await client.get("/agents", params={"namespace": "fleet"})).json()
        assert int(response["resource_version"]) > version
        assert all(int(agent["resource_version"]) > version for agent in response["agents"])
        assert await fleet_agents(client) == before
        expect_success(await client.post("/heartbeat", json={"agent_id": "a0"}))
        again = await asyncio.to_thread(run, "restore", str(file), directory=directory, REDIS_URL=redis_url)
        assert again.stdout.startswith(b"0 agents restored, ")
        diagnosis = await asyncio.to_thread(run, "doctor", directory=directory, REDIS_URL=redis_url)
        assert b"no problems" in diagnosis.stdout


@pytest.mark.slow
@pytest.mark.fault(47, "A backup is restored after all data was lost")
async def test_a_hundred_thousand_agents_are_backed_up_and_restored(
    store: Store, redis_client: redis.Redis, redis_url: str, directory: Path
) -> None:
    """Reading them takes far longer than a request may take, and standard error shows the progress."""
    await store.change_log.open()
    spec = a_spec("a", description="x" * 1000)
    for start in range(0, LARGE_FLEET, 1000):
        writes = [RegistrationWrite(f"a{start + number}", spec, 60_000, 120_000) for number in range(1000)]
        await asyncio.gather(*(store.agents.register(write) for write in writes))
    file = directory / "mesh.gz"

    done = await asyncio.to_thread(run, "backup", str(file), directory=directory, REDIS_URL=redis_url)

    assert done.returncode == 0, done.stderr
    assert re.search(rb"^[0-9,]+ agents read\n", done.stderr), done.stderr
    assert b"\n%d agents of mesh mesh at version " % LARGE_FLEET in done.stderr
    redis_client.flushall()
    done = await asyncio.to_thread(run, "restore", str(file), directory=directory, REDIS_URL=redis_url)
    assert done.stdout.startswith(b"%d agents restored, 0 already registered" % LARGE_FLEET), done.stderr
    assert redis_client.zcard("{mesh}:deadlines") == LARGE_FLEET
    redis_client.flushall()


async def register_repeatedly(client: httpx2.AsyncClient) -> None:
    """Register agents of another namespace, one after another."""
    number = 0
    while True:
        number += 1
        await register(client, f"busy-{number}", namespace="busy")


async def test_restore_does_not_overwrite_an_agent_registered_later(
    replica: Replica, redis_client: redis.Redis, redis_url: str, directory: Path
) -> None:
    """The other agents are restored."""
    async with httpx2.AsyncClient(base_url=replica.url, timeout=REQUEST_TIMEOUT_S) as client:
        await register(client, "early", endpoint="http://old:1")
        await register(client, "late", endpoint="http://old:1")
        backup = run("backup", "-", directory=directory, REDIS_URL=redis_url).stdout
        redis_client.flushall()
        await async_wait_until(lambda: registers_again(client, "early"), description="the agent registers again")

        done = run("restore", "-", directory=directory, stdin=gzip.compress(backup), REDIS_URL=redis_url)

        assert done.stdout.startswith(b"1 agents restored, 1 already registered and unchanged")
        assert await list_agent_ids(client) == ["early", "late"]
        assert (await client.get("/agents/early")).json()["endpoint"] == "http://new:1"
        assert (await client.get("/agents/late")).json()["endpoint"] == "http://old:1"


async def registers_again(client: httpx2.AsyncClient, agent_id: str) -> bool:
    """Register an agent again; return whether the registration succeeded."""
    response = await client.post("/agents", json=a_registration(agent_id, endpoint="http://new:1"))
    return response.status_code == 200


def test_an_incomplete_backup_changes_nothing(redis_url: str, directory: Path, redis_client: redis.Redis) -> None:
    """The file is read to its end before the first write."""
    file = directory / "mesh"
    file.write_text('{"backup_of":"mcp-mesh-registry"}\n')

    done = run("restore", str(file), directory=directory, REDIS_URL=redis_url)

    assert done.returncode == 1
    assert b"nothing was changed" in done.stderr
    assert redis_client.dbsize() == 0


def test_a_backup_that_cannot_be_written_leaves_no_file(redis_url: str, directory: Path) -> None:
    """Neither a partial file nor a temporary file remains."""
    done = run("backup", str(directory / "none" / "mesh"), directory=directory, REDIS_URL=redis_url)

    assert done.returncode == 1
    assert b"No such file or directory" in done.stderr
    assert run("backup", str(directory / "mesh"), directory=directory, REDIS_URL=redis_url).returncode == 0
    assert [path.name for path in directory.iterdir()] == ["mesh"]


@pytest.mark.usefixtures("replica")
def test_a_backup_is_for_its_owner_only(redis_url: str, directory: Path) -> None:
    """T8: also if it replaces a file that everyone may read."""
    file = directory / "backup"
    file.touch()
    file.chmod(0o644)

    done = run("backup", str(file), directory=directory, REDIS_URL=redis_url)

    assert done.returncode == 0
    assert file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_without_redis_no_backup_is_written(directory: Path) -> None:
    """The error names Redis."""
    done = run("backup", str(directory / "mesh"), directory=directory, REDIS_URL="redis://127.0.0.1:1")

    assert done.returncode == 1
    assert b"Redis is unreachable" in done.stderr
    assert list(directory.iterdir()) == []


def test_the_embedded_store_of_a_running_replica_is_backed_up(directory: Path) -> None:
    """A second terminal with the same data directory needs no other setting."""
    with CliProcess("--port", "0", directory=directory) as running:
        url = running.wait_until_serving()
        assert httpx2.post(f"{url}/agents", json=a_registration(), timeout=REQUEST_TIMEOUT_S).status_code == 200

        done = run("backup", str(directory / "mesh"), directory=directory)

    assert b"1 agents of mesh mesh" in done.stderr, done.stderr
    stopped = run("doctor", directory=directory)
    assert (stopped.returncode, stopped.stdout) == (0, b"ok       1 agents, no problems\n")


async def test_doctor_reports_and_repairs(
    store: Store, redis_client: redis.Redis, redis_url: str, directory: Path
) -> None:
    """The exit code is 1 while there are problems; a repair starts a new timeline, so that caches are filled again."""
    await store.change_log.open()
    await store.agents.register(RegistrationWrite("a", a_spec("a"), 60_000, 120_000))
    await store.agents.register(RegistrationWrite("b", a_spec("b"), 60_000, 120_000))
    redis_client.hset("{mesh}:agent:b", "spec", "no JSON")
    redis_client.zadd("{mesh}:deadlines", {"ghost": 1})
    timeline = redis_client.get("{mesh}:timeline")

    found = run("doctor", directory=directory, REDIS_URL=redis_url)
    repaired = run("doctor", "--repair", directory=directory, REDIS_URL=redis_url)
    after = run("doctor", directory=directory, REDIS_URL=redis_url)

    assert found.returncode == 1
    assert b"'ghost': deadline or heartbeat without an agent" in found.stdout
    assert b"'b': damaged record" in found.stdout
    assert b"repaired 1 orphaned entries and 1 damaged records removed" in repaired.stdout
    assert b"ok       1 agents" in after.stdout
    assert redis_client.get("{mesh}:timeline") != timeline


ZEROS = bytes(4096)
GARBAGE = random.Random(11).randbytes(300)  # noqa: S311 - reproducible damage, no secret


@pytest.mark.parametrize("damage", [ZEROS, GARBAGE], ids=["zeros", "garbage"])
def test_doctor_repairs_a_damaged_append_only_file(damage: bytes, directory: Path) -> None:
    """As after a power failure. The start-up error names the command; a copy of the damaged file is left."""
    with CliProcess("--port", "0", directory=directory) as running:
        url = running.wait_until_serving()
        assert httpx2.post(f"{url}/agents", json=a_registration(), timeout=REQUEST_TIMEOUT_S).status_code == 200
    (file,) = (directory / "data" / "appendonlydir").glob("*.incr.aof")
    intact = file.read_bytes()
    file.write_bytes(intact + damage)

    for command in (["--port", "0"], ["doctor"]):
        rejected = run(*command, directory=directory)
        assert rejected.returncode == 1
        assert b"run `mcp-mesh-registry doctor --repair`" in rejected.stderr
        assert b"check-aof" not in rejected.stderr
    repaired = run("doctor", "--repair", directory=directory)

    assert repaired.returncode == 0, repaired.stderr
    first_line = repaired.stdout.decode().splitlines()[0]
    found = re.fullmatch(rf"store    damaged append-only file repaired: {len(damage)} bytes .*: (\S+)", first_line)
    assert found is not None
    assert (Path(found[1]) / file.name).read_bytes() == intact + damage
    assert repaired.stdout.endswith(b"ok       1 agents, no problems\n")
    with CliProcess("--port", "0", directory=directory) as running:
        listed = httpx2.get(f"{running.wait_until_serving()}/agents", timeout=REQUEST_TIMEOUT_S).json()
    assert [agent["id"] for agent in listed["agents"]] == ["a"]
    assert run("doctor", "--repair", directory=directory).stdout == b"ok       1 agents, no problems\n"


def test_an_append_only_file_that_cannot_be_repaired_is_reported(directory: Path) -> None:
    """The error names the copy and the other way out."""
    assert run("backup", "-", directory=directory).returncode == 0
    folder = directory / "data" / "appendonlydir"
    (base,) = folder.glob("*.base.*")
    base.write_bytes(GARBAGE)

    failed = run("doctor", "--repair", directory=directory)

    assert failed.returncode == 1
    assert b"cannot be repaired" in failed.stderr
    assert b"restore a backup" in failed.stderr
    assert b"Traceback" not in failed.stderr
    (copy,) = folder.parent.glob("appendonlydir.damaged-*")
    assert (copy / base.name).read_bytes() == GARBAGE
