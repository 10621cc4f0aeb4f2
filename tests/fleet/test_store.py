"""Redis freezes, dies, loses its data, runs full or is blocked under load: correct responses, quick recovery."""

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

NOT_PERSISTENT = ("--appendonly", "no")


@contextlib.contextmanager
def redis_on_small_disk(megabytes: int) -> Iterator[RedisServer]:
    """Provide a Redis server with its data on an in-memory disk of the given size."""
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


async def wait_until_alive_but_not_ready(fleet: FleetUnderLoad) -> None:
    """Wait until every replica is alive and none is ready."""

    async def all_not_ready() -> bool:
        numbers = range(len(fleet.replicas))
        states = [await fleet.get_health(number) for number in numbers]
        return all(states) and not any([await fleet.is_ready(number) for number in numbers])

    await async_wait_until(all_not_ready, description="all replicas are alive and none is ready")


@pytest.mark.fault(7, "Redis is killed and returns with its data")
async def test_a_persistent_store_loses_no_acknowledged_write(run_fleet: FleetMaker) -> None:
    """Calls are 503 during the outage, and succeed after it; watchers resume without a list."""
    async with run_fleet() as fleet:
        fleet.tolerate(extra_delay_s=10)

        await asyncio.to_thread(fleet.server.kill)
        await fleet.wait_for_refusals()
        await fleet.load.pause(2)
        await asyncio.to_thread(fleet.server.restart)

        await fleet.wait_for_recovery()
        await fleet.wait_until_all_ready()
        await fleet.wait_for_resumes()
        await fleet.wait_for_writes()


@pytest.mark.fault(8, "Redis is killed and returns empty")
async def test_a_store_without_persistence_starts_another_timeline(run_fleet: FleetMaker) -> None:
    """Watchers get 410, agents register again, and versions are above all earlier ones."""
    async with run_fleet(arguments=NOT_PERSISTENT) as fleet:
        fleet.tolerate(extra_delay_s=10)

        fleet.log_recorder.read_and_pause_writes()
        await asyncio.to_thread(fleet.server.kill)
        fleet.log_recorder.start_new_log()
        await fleet.wait_for_refusals()
        await asyncio.to_thread(fleet.server.restart)

        await fleet.wait_for_recovery()
        await wait_until_all_listed_again(fleet)
        await fleet.wait_for_writes()
        assert all("timeline_changed" in replica.output for replica in fleet.replicas)


@pytest.mark.fault(45, "FLUSHALL by mistake")
async def test_a_flushed_store_starts_another_timeline(run_fleet: FleetMaker) -> None:
    """As after a restart without data; every replica logs the change of the timeline."""
    async with run_fleet() as fleet:
        fleet.tolerate(extra_delay_s=10)

        fleet.log_recorder.flush()

        await wait_until_all_listed_again(fleet)
        await fleet.wait_for_writes()
        assert all("timeline_changed" in replica.output for replica in fleet.replicas)


async def wait_until_all_listed_again(fleet: FleetUnderLoad) -> None:
    """Wait until every follower has received 410, listed again and resumed its watch."""
    await async_wait_until(
        lambda: all(each.relist_count for each in fleet.followers), description="all followers listed again"
    )
    await fleet.wait_for_resumes()


@pytest.mark.fault(9, "Redis is frozen for ten seconds")
async def test_a_frozen_store_causes_503(run_fleet: FleetMaker) -> None:
    """Calls do not wait for its return; replicas are alive and not ready, and work again after it."""
    async with run_fleet() as fleet:
        fleet.tolerate(extra_delay_s=10 + PERSISTENT_AGENT_TIMEOUT_S)

        fleet.server.pause()
        try:
            frozen_since = time.monotonic()
            await fleet.wait_for_refusals()
            await wait_until_alive_but_not_ready(fleet)
            await fleet.load.pause(10 - (time.monotonic() - frozen_since))
        finally:
            fleet.server.resume()

        await fleet.wait_for_recovery()
        await fleet.wait_until_all_ready()
        await fleet.wait_for_resumes()


@pytest.mark.fault(10, "Redis is frozen for longer than an agent's timeout")
@pytest.mark.slow
async def test_agents_are_not_degraded_while_redis_is_frozen(run_fleet: FleetMaker) -> None:
    """It is frozen for twice their timeout; then each agent has one whole timeout to send a heartbeat."""
    async with run_fleet(persistent_agent_timeout_s=3) as fleet:
        fleet.tolerate(extra_delay_s=10 + PERSISTENT_AGENT_TIMEOUT_S)

        fleet.server.pause()
        try:
            await fleet.wait_for_refusals()
            await fleet.load.pause(6)
        finally:
            fleet.server.resume()

        await fleet.wait_for_recovery()
        await fleet.wait_for_degraded()


@pytest.mark.fault(17, "Redis accepts no more connections")
async def test_rejected_connections_to_redis_cause_503(run_fleet: FleetMaker) -> None:
    """The log has the reason; the replicas are ready again once Redis accepts connections."""
    async with run_fleet() as fleet:
        fleet.tolerate(extra_delay_s=10)
        redis_client = fleet.log_recorder.redis
        ours = {each["id"] for each in redis_client.client_list()}
        connections = [redis.Redis.from_url(fleet.server.url) for _ in range(40)]
        for client in connections:
            client.ping()

        redis_client.config_set("maxclients", 20)
        for number in ours - {str(redis_client.client_id())}:
            redis_client.client_kill_filter(_id=number)
        await fleet.wait_for_refusals()
        await wait_until_alive_but_not_ready(fleet)
        for client in connections:
            client.close()
        redis_client.config_set("maxclients", 10_000)

        await fleet.wait_for_recovery()
        await fleet.wait_until_all_ready()
        assert all("max number of clients" in replica.output for replica in fleet.replicas)


@pytest.mark.fault(18, "SCRIPT FLUSH is called repeatedly")
async def test_flushed_scripts_fail_no_call(run_fleet: FleetMaker) -> None:
    """SCRIPT FLUSH is called every 50 ms for five seconds."""
    async with run_fleet() as fleet:
        before = fleet.refusal_count
        until = time.monotonic() + 5
        while time.monotonic() < until:
            fleet.log_recorder.redis.script_flush()
            await fleet.load.pause(0.05)

        assert fleet.refusal_count == before


@pytest.mark.fault(21, "The disk of the AOF is full")
async def test_a_full_disk_fails_only_writes(run_fleet: FleetMaker) -> None:
    """Writes are 503, reads and watches continue; writes succeed again once there is space.

    This is `appendfsync everysec`; with `always` Redis exits instead, which is fault 7.
    """
    with redis_on_small_disk(8) as server:
        async with run_fleet(server=server) as fleet:
            fleet.tolerate(extra_delay_s=15)
            ballast = server.data_dir / "ballast"

            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            await fleet.wait_for_refusals()
            full_since = time.monotonic()
            await async_wait_until(
                lambda: [call for call in fleet.calls_since(full_since) if call.kind == "list" and call.status == 200],
                description="lists succeed",
            )
            await fleet.wait_for_resumes()
            ballast.unlink()

            await fleet.wait_for_writes()
            await fleet.wait_for_resumes()


@pytest.mark.fault(22, "Redis is out of memory")
async def test_a_full_store_rejects_only_registrations(run_fleet: FleetMaker) -> None:
    """Registrations are 503; heartbeats, unregistering, reads and the sweep continue; no record is partial."""
    async with run_fleet() as fleet:
        fleet.log_recorder.redis.config_set("maxmemory", "1mb")
        full_since = time.monotonic()

        await fleet.wait_for_refusals()
        await fleet.wait_for_resumes()
        await fleet.wait_for_degraded()
        deeds = fleet.calls_since(full_since + 0.1)
        fleet.log_recorder.redis.config_set("maxmemory", "0")

        await fleet.wait_for_writes()
        statuses = {kind: {call.status for call in deeds if call.kind == kind} for kind in ("register", "heartbeat")}
        assert statuses["register"] == {503}
        assert statuses["heartbeat"] <= {200, 404}
        assert {call.status for call in deeds if call.kind in ("unregister", "list")} <= {200, 404}


@pytest.mark.fault(24, "A script of another client blocks Redis")
async def test_a_busy_store_causes_503(run_fleet: FleetMaker) -> None:
    """Calls succeed again once the script is killed."""
    async with run_fleet(arguments=("--appendonly", "yes", "--busy-reply-threshold", "100")) as fleet:
        fleet.tolerate(extra_delay_s=10)
        endless = asyncio.create_task(asyncio.to_thread(run_endless_script, fleet.server.url))

        await fleet.wait_for_refusals()
        await fleet.load.pause(2)
        fleet.log_recorder.redis.script_kill()

        await fleet.wait_for_recovery()
        await fleet.wait_until_all_ready()
        assert "killed" in await endless


def run_endless_script(url: str) -> str:
    """Run a script that never ends by itself; return the message of the error that ended it."""
    with redis.Redis.from_url(url) as client:
        try:
            client.eval("while true do end", 0)
        except redis.ResponseError as error:
            return str(error)
    return ""
