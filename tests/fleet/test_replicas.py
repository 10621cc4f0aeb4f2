"""Replicas that die, freeze or lose Redis: the others continue, and no caller receives a wrong response."""

import asyncio
import time
from typing import Any

import pytest

from tests.fleet.conftest import FleetMaker
from tests.support.blocked_event_loop import BLOCKABLE_ENV, block_event_loop
from tests.support.fleet_under_load import LEASE_S, FleetUnderLoad
from tests.support.polling import async_wait_until


async def epoch_of(fleet: FleetUnderLoad, number: int) -> int:
    """Return the epoch in which a replica leads, 0 if it does not lead."""
    return int((await fleet.get_health(number))["leader"]["epoch"] or 0)


async def wait_for_one_leader(fleet: FleetUnderLoad) -> dict[str, Any]:
    """Wait until all replicas report the same leader, and only that one leads; return it."""
    agreed: dict[str, Any] = {}

    async def is_agreed() -> bool:
        leaders = [(await fleet.get_health(number))["leader"] for number in range(len(fleet.replicas))]
        agreed.update(leaders[0])
        same = len({(leader["instance"], leader["epoch"]) for leader in leaders}) == 1
        return same and sum(leader["leading"] for leader in leaders) == 1

    await async_wait_until(is_agreed, description="all replicas follow one leader")
    return agreed


async def test_clients_of_a_killed_replica_continue_on_the_others(run_fleet: FleetMaker) -> None:
    """They then use the restarted replica, without change notifications; no watcher has to list again."""
    async with run_fleet() as fleet:
        victim = await fleet.kill_replica(1)
        await fleet.wait_for_resumes()
        await asyncio.to_thread(victim.start)
        fleet.log_recorder.disable_notifications()
        await fleet.wait_for_resumes()
        await fleet.wait_for_writes()


@pytest.mark.fault(3, "The leader is killed")
async def test_another_replica_leads_after_the_leader_was_killed(run_fleet: FleetMaker) -> None:
    """In a later epoch; the new leader degrades agents that missed heartbeats in the meantime."""
    async with run_fleet() as fleet:
        first = await fleet.wait_for_leader()
        epoch = await epoch_of(fleet, first)
        fleet.tolerate(extra_delay_s=LEASE_S)

        victim = await fleet.kill_replica(first)
        killed_at = time.monotonic()
        fleet.load.urls.remove(victim.url)
        second = await fleet.wait_for_leader(other_than=first)
        fleet.count_if_late("elections", killed_at, LEASE_S + 2)

        assert await epoch_of(fleet, second) > epoch
        await fleet.wait_for_degraded()


@pytest.mark.fault(4, "The leader is paused for longer than its lease")
@pytest.mark.slow
async def test_a_paused_leader_steps_down_before_it_sweeps(run_fleet: FleetMaker) -> None:
    """It uses its own clock, so that no late sweep reaches Redis, which would reject it."""
    async with run_fleet() as fleet:
        first = await fleet.wait_for_leader()
        paused = fleet.replicas[first]
        fleet.tolerate(unresponsive=[paused], extra_delay_s=LEASE_S)

        paused.pause()
        fleet.load.urls.remove(paused.url)
        await fleet.wait_for_leader(other_than=first)
        await fleet.wait_for_degraded()
        paused.resume()

        await wait_for_one_leader(fleet)
        fleet.load.urls.append(paused.url)
        await fleet.wait_for_degraded()


@pytest.mark.fault(5, "Only the leader loses its connection to Redis")
async def test_a_leader_without_redis_stops_before_its_lease_ends(run_fleet: FleetMaker) -> None:
    """It is alive but not ready; another replica leads, and stays the leader when the first one returns."""
    async with run_fleet(proxied=True) as fleet:
        first = await fleet.wait_for_leader()
        fleet.tolerate(extra_delay_s=LEASE_S)

        cut_at = time.monotonic()
        fleet.proxies[first].swallow_requests = fleet.proxies[first].swallow_replies = True
        fleet.load.urls.remove(fleet.replicas[first].url)
        await async_wait_until(lambda: _follows(fleet, first), description="the first replica stops sweeping")
        fleet.count_if_late("resignations", cut_at, LEASE_S)
        second = await fleet.wait_for_leader(other_than=first)
        assert not await fleet.is_ready(first)
        assert (await fleet.get_health(first))["status"] == "degraded"
        await fleet.wait_for_degraded()

        fleet.proxies[first].swallow_requests = fleet.proxies[first].swallow_replies = False
        fleet.proxies[first].cut()
        assert (await wait_for_one_leader(fleet))["instance"] == f"replica-{second}"
        await fleet.wait_until_all_ready()
        fleet.load.urls.append(fleet.replicas[first].url)
        await fleet.wait_for_writes()


async def _follows(fleet: FleetUnderLoad, number: int) -> bool:
    return not (await fleet.get_health(number))["leader"]["leading"]


@pytest.mark.fault(6, "The leader lock is deleted")
@pytest.mark.slow
async def test_a_deleted_lock_leaves_one_leader_of_a_later_epoch(run_fleet: FleetMaker) -> None:
    """Any replica may take the lock; the old leader detects the loss at its next renewal."""
    async with run_fleet() as fleet:
        epoch = await epoch_of(fleet, await fleet.wait_for_leader())

        fleet.log_recorder.redis.delete("{mesh}:leader")

        await async_wait_until(lambda: _all_in_later_epoch(fleet, epoch), description="a later epoch")
        await wait_for_one_leader(fleet)
        await fleet.wait_for_degraded()


async def _all_in_later_epoch(fleet: FleetUnderLoad, epoch: int) -> bool:
    return all([(await epoch_of(fleet, number)) > epoch for number in range(len(fleet.replicas))])


@pytest.mark.fault(11, "Packets between one replica and Redis are dropped")
async def test_a_replica_whose_packets_are_lost_reports_not_ready(run_fleet: FleetMaker) -> None:
    """With 503 for every call; watchers resume elsewhere.

    The replica does not end its watch streams, since the fault may be short; the time limits of the clients end them.
    """
    async with run_fleet(proxied=True) as fleet:
        proxy = fleet.proxies[0]
        fleet.tolerate(extra_delay_s=LEASE_S)

        proxy.swallow_requests = proxy.swallow_replies = True
        await async_wait_until(lambda: _is_not_ready(fleet, 0), description="the replica is not ready")
        await fleet.wait_for_refusals()
        # A balancer would have stopped using the replica by now.
        url = fleet.load.urls.pop(0)
        await fleet.wait_for_resumes()
        await fleet.wait_for_writes()

        proxy.swallow_requests = proxy.swallow_replies = False
        await fleet.wait_until_all_ready()
        fleet.load.urls.append(url)
        await fleet.wait_for_resumes()


async def _is_not_ready(fleet: FleetUnderLoad, number: int) -> bool:
    return not await fleet.is_ready(number)


@pytest.mark.fault(48, "A client opens more connections than a replica has file descriptors")
async def test_a_replica_survives_too_many_connections(run_fleet: FleetMaker) -> None:
    """The connections that are idle longest close, and the replica serves all other clients meanwhile."""
    async with run_fleet(command_prefix=("prlimit", "--nofile=128")) as fleet:
        crowded = fleet.replicas[0]
        pid, port = crowded.pid, int(crowded.url.rpartition(":")[2])

        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(300)]
        for reader, _ in idle[:200]:
            assert await reader.read() == b""
        await fleet.wait_for_writes()
        assert await _is_responsive(fleet, 0)
        for _, writer in idle:
            writer.transport.abort()

        assert crowded.pid == pid


async def _is_responsive(fleet: FleetUnderLoad, number: int) -> bool:
    return bool(await fleet.get_health(number))


@pytest.mark.fault(50, "The leader's event loop is blocked")
@pytest.mark.slow
async def test_a_leader_with_a_blocked_event_loop_steps_down(run_fleet: FleetMaker) -> None:
    """The call blocks longer than the lease: another replica leads, and the first does not sweep when it resumes."""
    async with run_fleet(**BLOCKABLE_ENV) as fleet:
        first = await fleet.wait_for_leader()
        fleet.tolerate(unresponsive=[fleet.replicas[first]], extra_delay_s=LEASE_S)

        block_event_loop(fleet.replicas[first])
        fleet.load.urls.remove(fleet.replicas[first].url)
        second = await fleet.wait_for_leader(other_than=first)

        await async_wait_until(lambda: _is_responsive(fleet, first), description="the replica responds again")
        assert (await wait_for_one_leader(fleet))["instance"] == f"replica-{second}"
        fleet.load.urls.append(fleet.replicas[first].url)
        await fleet.wait_for_degraded()
