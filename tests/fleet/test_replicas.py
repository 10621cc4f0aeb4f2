"""A replica dies, freezes, or is cut off from the store; the others go on, and nobody is told a lie."""

import asyncio
import time
from typing import Any

import pytest

from tests.fleet.conftest import FleetMaker
from tests.support.blocked_event_loop import BLOCKABLE_ENV, block_event_loop
from tests.support.fleet_under_load import LEASE_S, FleetUnderLoad
from tests.support.polling import async_wait_until


async def epoch_of(fleet: FleetUnderLoad, number: int) -> int:
    """Return the epoch under which a replica leads."""
    return int((await fleet.get_health(number))["leader"]["epoch"] or 0)


async def the_one_leader(fleet: FleetUnderLoad, timeout: float = LEASE_S + 2) -> dict[str, Any]:
    """Wait until all replicas name the same leader, which says so itself and alone; return it."""
    agreed: dict[str, Any] = {}

    async def one() -> bool:
        leaders = [(await fleet.get_health(number))["leader"] for number in range(len(fleet.replicas))]
        agreed.update(leaders[0])
        same = len({(leader["instance"], leader["epoch"]) for leader in leaders}) == 1
        return same and sum(leader["leading"] for leader in leaders) == 1

    await async_wait_until(one, description="all follow one leader", timeout=timeout)
    return agreed


async def test_clients_of_a_killed_replica_go_on_at_the_others(a_fleet: FleetMaker) -> None:
    """Then at the one that came back, and without a bell; nobody has to list again."""
    async with a_fleet() as fleet:
        victim = await fleet.kill_replica(1)
        await fleet.wait_for_resumes()
        await asyncio.to_thread(victim.start)
        fleet.log_recorder.disable_notifications()
        await fleet.wait_for_resumes()
        await fleet.wait_for_writes()


@pytest.mark.fault(3, "The leader is killed")
async def test_another_leads_within_a_lease_and_two_seconds(a_fleet: FleetMaker) -> None:
    """Under a later epoch; who fell silent meanwhile is marked by the new one."""
    async with a_fleet() as fleet:
        first = await fleet.wait_for_leader()
        epoch = await epoch_of(fleet, first)
        fleet.tolerate(extra_delay_s=LEASE_S)

        victim = await fleet.kill_replica(first)
        fleet.load.urls.remove(victim.url)
        second = await fleet.wait_for_leader(timeout=LEASE_S + 2, other_than=first)

        assert await epoch_of(fleet, second) > epoch
        await fleet.wait_for_degraded()


@pytest.mark.fault(4, "The leader is paused for longer than its lease")
@pytest.mark.slow
async def test_a_leader_that_slept_steps_down_before_it_sweeps(a_fleet: FleetMaker) -> None:
    """By its own clock, so that not even one late sweep of it reaches Redis, where it would be refused."""
    async with a_fleet() as fleet:
        first = await fleet.wait_for_leader()
        sleeper = fleet.replicas[first]
        fleet.tolerate(unresponsive=[sleeper], extra_delay_s=LEASE_S)

        sleeper.pause()
        fleet.load.urls.remove(sleeper.url)
        await fleet.wait_for_leader(timeout=LEASE_S + 2, other_than=first)
        await fleet.wait_for_degraded()
        sleeper.resume()

        await the_one_leader(fleet, timeout=1)
        fleet.load.urls.append(sleeper.url)
        await fleet.wait_for_degraded()


@pytest.mark.fault(5, "Only the leader loses its connection to Redis")
async def test_a_leader_cut_off_stops_before_its_lease_is_over(a_fleet: FleetMaker) -> None:
    """It is not ready, but lives; it does not lead any more; another does, and goes on when the first comes back."""
    async with a_fleet(proxied=True) as fleet:
        first = await fleet.wait_for_leader()
        fleet.tolerate(extra_delay_s=LEASE_S)

        cut_at = time.monotonic()
        fleet.proxies[first].swallow_requests = fleet.proxies[first].swallow_replies = True
        fleet.load.urls.remove(fleet.replicas[first].url)
        await async_wait_until(lambda: _stopped(fleet, first), description="it stops sweeping", timeout=LEASE_S)
        assert time.monotonic() - cut_at < LEASE_S
        second = await fleet.wait_for_leader(timeout=LEASE_S + 2, other_than=first)
        assert not await fleet.is_ready(first)
        assert (await fleet.get_health(first))["status"] == "degraded"
        await fleet.wait_for_degraded()

        fleet.proxies[first].swallow_requests = fleet.proxies[first].swallow_replies = False
        fleet.proxies[first].cut()
        assert (await the_one_leader(fleet))["instance"] == f"replica-{second}"
        await fleet.wait_until_all_ready()
        fleet.load.urls.append(fleet.replicas[first].url)
        await fleet.wait_for_writes()


async def _stopped(fleet: FleetUnderLoad, number: int) -> bool:
    return not (await fleet.get_health(number))["leader"]["leading"]


@pytest.mark.fault(6, "The leader lock is deleted")
@pytest.mark.slow
async def test_a_deleted_lock_leaves_one_leader_of_a_later_epoch(a_fleet: FleetMaker) -> None:
    """Whoever takes it; the old one notices at its next renewal."""
    async with a_fleet() as fleet:
        epoch = await epoch_of(fleet, await fleet.wait_for_leader())

        fleet.log_recorder.redis.delete("{mesh}:leader")

        await async_wait_until(lambda: _later(fleet, epoch), description="a later epoch", timeout=3)
        await the_one_leader(fleet, timeout=2)
        await fleet.wait_for_degraded()


async def _later(fleet: FleetUnderLoad, epoch: int) -> bool:
    return all([(await epoch_of(fleet, number)) > epoch for number in range(len(fleet.replicas))])


@pytest.mark.fault(11, "Packets between one replica and Redis are dropped")
async def test_a_replica_in_a_black_hole_says_so(a_fleet: FleetMaker) -> None:
    """Not ready within 5 s, and every call of it is 503 in time; its streams end, and their watchers go on elsewhere.

    They are not ended by the replica, which cannot know how long it lasts: clients' own limits move them on.
    """
    async with a_fleet(proxied=True) as fleet:
        hole = fleet.proxies[0]
        fleet.tolerate(extra_delay_s=LEASE_S)

        hole.swallow_requests = hole.swallow_replies = True
        await async_wait_until(lambda: _unready(fleet, 0), description="it is not ready", timeout=5)
        await fleet.wait_for_refusals()
        # A balancer would turn away by now.
        url = fleet.load.urls.pop(0)
        await fleet.wait_for_resumes()
        await fleet.wait_for_writes()

        hole.swallow_requests = hole.swallow_replies = False
        await fleet.wait_until_all_ready(timeout=5)
        fleet.load.urls.append(url)
        await fleet.wait_for_resumes()


async def _unready(fleet: FleetUnderLoad, number: int) -> bool:
    return not await fleet.is_ready(number)


@pytest.mark.fault(48, "A replica runs out of file descriptors")
async def test_too_many_connections_pass(a_fleet: FleetMaker) -> None:
    """Those beyond the limit wait or are refused; it lives on, and serves again as soon as they are gone."""
    async with a_fleet(command_prefix=("prlimit", "--nofile=128")) as fleet:
        crowded = fleet.replicas[0]
        fleet.tolerate(unresponsive=[crowded])
        pid, port = crowded.pid, int(crowded.url.rpartition(":")[2])

        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(300)]
        async with asyncio.timeout(10):
            await asyncio.gather(*(_unanswered(fleet, 0) for _ in range(3)))
        fleet.load.urls.remove(crowded.url)
        await fleet.wait_for_writes()
        for _, writer in idle:
            writer.transport.abort()

        await async_wait_until(lambda: _answers(fleet, 0), description="it serves again", timeout=5)
        assert crowded.pid == pid
        fleet.load.urls.append(crowded.url)
        await fleet.wait_for_writes()


async def _unanswered(fleet: FleetUnderLoad, number: int) -> None:
    await async_wait_until(lambda: _silent(fleet, number), description="it is full", timeout=8)


async def _silent(fleet: FleetUnderLoad, number: int) -> bool:
    return not await fleet.get_health(number)


async def _answers(fleet: FleetUnderLoad, number: int) -> bool:
    return bool(await fleet.get_health(number))


@pytest.mark.fault(50, "The leader's event loop is blocked")
@pytest.mark.slow
async def test_a_leader_whose_loop_stands_still_steps_down(a_fleet: FleetMaker) -> None:
    """A blocking call longer than the lease: another leads, and the first does not sweep when it wakes."""
    async with a_fleet(**BLOCKABLE_ENV) as fleet:
        first = await fleet.wait_for_leader()
        fleet.tolerate(unresponsive=[fleet.replicas[first]], extra_delay_s=LEASE_S)

        block_event_loop(fleet.replicas[first])
        fleet.load.urls.remove(fleet.replicas[first].url)
        second = await fleet.wait_for_leader(timeout=LEASE_S + 2, other_than=first)

        await async_wait_until(lambda: _answers(fleet, first), description="it moves again", timeout=8)
        assert (await the_one_leader(fleet, timeout=1))["instance"] == f"replica-{second}"
        fleet.load.urls.append(fleet.replicas[first].url)
        await fleet.wait_for_degraded()
