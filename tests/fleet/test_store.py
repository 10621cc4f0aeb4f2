"""The store freezes, dies, forgets, fills up or is held up, under load: never a lie, and back at once."""

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import Iterator

import pytest
import redis

from tests.fleet.conftest import FleetMaker
from tests.support.fleet_under_load import PERSISTENT_AGENT_TIMEOUT_S, FleetUnderLoad
from tests.support.polling import async_wait_until
from tests.support.redis_server import RedisServer

# After the store's return the first write must succeed within so many seconds.
RETURN = 2.0
FORGETFUL = ("--appendonly", "no")


@contextlib.contextmanager
def in_memory_of(megabytes: int) -> Iterator[RedisServer]:
    """Provide a server that keeps its data on a disk of so many megabytes, in memory."""
    server = RedisServer("--appendonly", "yes", "--appendfsync", "everysec")
    options = ("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(server.data_dir))
    if os.geteuid() or subprocess.run(["mount", *options], check=False).returncode:
        server.stop()
        pytest.skip("fault 21 needs the right to mount a small disk")
    try:
        server.start()
        yield server
    finally:
        server.kill()
        subprocess.run(["umount", str(server.data_dir)], check=True)
        server.stop()


async def alive_but_not_ready(fleet: FleetUnderLoad) -> None:
    """Wait until every replica says that it lives and should get no requests."""

    async def says_so() -> bool:
        numbers = range(len(fleet.replicas))
        states = [await fleet.get_health(number) for number in numbers]
        return all(states) and not any([await fleet.is_ready(number) for number in numbers])

    await async_wait_until(says_so, description="all live and none is ready")


@pytest.mark.fault(7, "Redis is killed and returns with its data")
async def test_a_store_that_keeps_what_it_acknowledged_lost_nothing(a_fleet: FleetMaker) -> None:
    """503 meanwhile, and a write within two seconds of its return; watchers go on without a list."""
    async with a_fleet() as fleet:
        fleet.tolerate(extra_delay_s=10)

        await asyncio.to_thread(fleet.server.kill)
        await fleet.wait_for_refusals()
        await fleet.load.pause(2)
        await asyncio.to_thread(fleet.server.restart)

        assert await fleet.wait_for_writes(1) < RETURN
        await fleet.wait_until_all_ready()
        await fleet.wait_for_resumes()
        await fleet.wait_for_writes()


@pytest.mark.fault(8, "Redis is killed and returns empty")
async def test_a_store_that_kept_nothing_is_another_history(a_fleet: FleetMaker) -> None:
    """Watchers are told 410 within five seconds, agents register anew, versions rise above all there were."""
    async with a_fleet(arguments=FORGETFUL) as fleet:
        fleet.tolerate(extra_delay_s=10)

        fleet.log_recorder.read_and_pause_writes()
        await asyncio.to_thread(fleet.server.kill)
        fleet.log_recorder.start_new_log()
        await fleet.wait_for_refusals()
        await asyncio.to_thread(fleet.server.restart)
        back = time.monotonic()

        assert await fleet.wait_for_writes(1) < RETURN
        await all_were_told(fleet)
        assert time.monotonic() - back < 5
        await fleet.wait_for_writes()
        assert all("timeline_changed" in replica.output for replica in fleet.replicas)


@pytest.mark.fault(45, "FLUSHALL by mistake")
async def test_a_flushed_store_is_another_history(a_fleet: FleetMaker) -> None:
    """As after a restart without data; each replica's log says how many agents there were."""
    async with a_fleet() as fleet:
        fleet.tolerate(extra_delay_s=10)

        fleet.log_recorder.flush()

        await all_were_told(fleet)
        await fleet.wait_for_writes()
        assert all("timeline_changed" in replica.output for replica in fleet.replicas)


async def all_were_told(fleet: FleetUnderLoad) -> None:
    """Wait until every follower was told that its past is gone, and has begun anew."""
    await async_wait_until(
        lambda: all(each.relist_count for each in fleet.followers), description="all were told", timeout=5
    )
    await fleet.wait_for_resumes()


@pytest.mark.fault(9, "Redis is frozen for ten seconds")
async def test_a_frozen_store_is_503_in_time(a_fleet: FleetMaker) -> None:
    """Every call within three seconds; the replicas live and are not ready; all is well two seconds after it thaws."""
    async with a_fleet() as fleet:
        fleet.tolerate(extra_delay_s=10 + PERSISTENT_AGENT_TIMEOUT_S)

        fleet.server.pause()
        try:
            frozen = time.monotonic()
            await fleet.wait_for_refusals()
            await alive_but_not_ready(fleet)
            await fleet.load.pause(10 - (time.monotonic() - frozen))
        finally:
            fleet.server.resume()

        assert await fleet.wait_for_writes(1) < RETURN
        await fleet.wait_until_all_ready()
        await fleet.wait_for_resumes()
        asked = [deed for deed in fleet.calls_since(frozen + 0.5) if deed.status == 503]
        assert max(deed.ended - deed.started for deed in asked) < 3


@pytest.mark.fault(10, "Redis is frozen for longer than an agent's timeout")
@pytest.mark.slow
async def test_nobody_is_called_silent_who_could_not_be_heard(a_fleet: FleetMaker) -> None:
    """Twice their timeout; when it thaws, each has one whole timeout to be heard again."""
    async with a_fleet(persistent_agent_timeout_s=3) as fleet:
        fleet.tolerate(extra_delay_s=10 + PERSISTENT_AGENT_TIMEOUT_S)

        fleet.server.pause()
        try:
            await fleet.wait_for_refusals()
            await fleet.load.pause(6)
        finally:
            fleet.server.resume()

        assert await fleet.wait_for_writes(1) < RETURN
        await fleet.wait_for_degraded()


@pytest.mark.fault(17, "Redis accepts no more connections")
async def test_too_many_connections_to_the_store_are_503(a_fleet: FleetMaker) -> None:
    """With the reason in the log; ready again when there is room."""
    async with a_fleet() as fleet:
        fleet.tolerate(extra_delay_s=10)
        raw = fleet.log_recorder.redis
        ours = {each["id"] for each in raw.client_list()}
        crowd = [redis.Redis.from_url(fleet.server.url) for _ in range(40)]
        for client in crowd:
            client.ping()

        raw.config_set("maxclients", 20)
        for number in ours - {str(raw.client_id())}:
            raw.client_kill_filter(_id=number)
        await fleet.wait_for_refusals()
        await alive_but_not_ready(fleet)
        for client in crowd:
            client.close()
        raw.config_set("maxclients", 10_000)

        assert await fleet.wait_for_writes(1) < RETURN
        await fleet.wait_until_all_ready(timeout=5)
        assert all("max number of clients" in replica.output for replica in fleet.replicas)


@pytest.mark.fault(18, "SCRIPT FLUSH is called repeatedly")
async def test_forgotten_scripts_go_unnoticed(a_fleet: FleetMaker) -> None:
    """Every 50 ms for five seconds, and not one call fails."""
    async with a_fleet() as fleet:
        before = fleet.refusal_count
        until = time.monotonic() + 5
        while time.monotonic() < until:
            fleet.log_recorder.redis.script_flush()
            await fleet.load.pause(0.05)

        assert fleet.refusal_count == before


@pytest.mark.fault(21, "The disk of the AOF is full")
async def test_a_full_disk_stops_writes_and_nothing_else(a_fleet: FleetMaker) -> None:
    """Writes are 503, reads and watches go on; all is well when there is room again.

    With `appendfsync everysec`; with `always` Redis ends itself instead, which is fault 7.
    """
    with in_memory_of(8) as server:
        async with a_fleet(server=server) as fleet:
            fleet.tolerate(extra_delay_s=15)
            ballast = server.data_dir / "ballast"

            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            await fleet.wait_for_refusals()
            full = time.monotonic()
            await async_wait_until(
                lambda: [deed for deed in fleet.calls_since(full) if deed.kind == "list" and deed.status == 200],
                description="lists are answered",
            )
            await fleet.wait_for_resumes()
            ballast.unlink()

            await fleet.wait_for_writes(timeout=15)
            await fleet.wait_for_resumes()


@pytest.mark.fault(22, "Redis is out of memory")
async def test_a_full_store_stops_newcomers_not_the_living(a_fleet: FleetMaker) -> None:
    """Registering is 503, heartbeats, unregistering, reads and the sweep go on; no record is partial."""
    async with a_fleet() as fleet:
        fleet.log_recorder.redis.config_set("maxmemory", "1mb")
        full = time.monotonic()

        await fleet.wait_for_refusals()
        await fleet.wait_for_resumes()
        await fleet.wait_for_degraded()
        deeds = fleet.calls_since(full + 0.1)
        fleet.log_recorder.redis.config_set("maxmemory", "0")

        await fleet.wait_for_writes()
        statuses = {what: {deed.status for deed in deeds if deed.kind == what} for what in ("register", "heartbeat")}
        assert statuses["register"] == {503}
        assert statuses["heartbeat"] <= {200, 404}
        assert {deed.status for deed in deeds if deed.kind in ("unregister", "list")} <= {200, 404}


@pytest.mark.fault(24, "A script of another client blocks Redis")
async def test_a_busy_store_is_503_in_time(a_fleet: FleetMaker) -> None:
    """And all is well when the script is killed."""
    async with a_fleet(arguments=("--appendonly", "yes", "--busy-reply-threshold", "100")) as fleet:
        fleet.tolerate(extra_delay_s=10)
        endless = asyncio.create_task(asyncio.to_thread(run_for_ever, fleet.server.url))

        await fleet.wait_for_refusals()
        await fleet.load.pause(2)
        fleet.log_recorder.redis.script_kill()

        assert await fleet.wait_for_writes(1) < RETURN
        await fleet.wait_until_all_ready()
        assert "killed" in await endless


def run_for_ever(url: str) -> str:
    """Run a script that never ends; return with which words it was ended."""
    with redis.Redis.from_url(url) as client:
        try:
            client.eval("while true do end", 0)
        except redis.ResponseError as error:
            return str(error)
    return ""
