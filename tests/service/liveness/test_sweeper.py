"""The sweep: overdue agents are transitioned once, under any leader; deadlines are repaired after a clock rollback."""

import asyncio

import pytest
import redis

from registry.store.agents import RegistrationWrite
from tests.service.liveness.sweeping_replicas import (
    DEADLINE,
    LEASE,
    LOCK,
    RETRY,
    Pair,
    Replica,
    create_overdue_agent,
    degraded_ids,
    epoch,
    status,
)
from tests.support.builders import a_spec
from tests.support.polling import wait_until
from tests.support.server_time import make_overdue, server_time_ms

pytestmark = pytest.mark.usefixtures("no_outage")


async def test_one_tick_transitions_each_overdue_agent_once(pair: Pair, redis_client: redis.Redis) -> None:
    """It makes as many calls as needed; the next transition of an agent has its own deadline."""
    one, _ = pair
    for n in range(450):
        await create_overdue_agent(one, redis_client, f"a{n}")

    await one.tick(after=1)

    assert sum(swept.degraded for swept in one.swept) == 450
    assert [swept.degraded for swept in one.swept] == [200, 200, 50]
    one.swept.clear()
    await one.tick(after=1)
    assert one.swept == []


async def test_every_replica_sweeps_without_election(redis_url: str, redis_client: redis.Redis) -> None:
    """With ENABLE_LEADER_ELECTION=false the replicas read the epoch, take no lock, and make each transition once."""
    pair = [Replica(redis_url, name, elects=False) for name in ("one", "two")]
    await create_overdue_agent(pair[0], redis_client)

    for replica in pair:
        assert not await replica.tick()
        assert replica.sweeper.may_sweep

    assert status(redis_client) == "degraded"
    assert [len(replica.swept) for replica in pair] == [1, 0]
    assert not redis_client.exists(LOCK)
    for replica in pair:
        await replica.store.close()


async def test_a_replica_without_election_sweeps_beside_an_elected_leader(
    redis_url: str, redis_client: redis.Redis
) -> None:
    """It uses the epoch that it reads; the elected leader stays leader."""
    elected, free = Replica(redis_url, "elected"), Replica(redis_url, "free", elects=False)
    assert await elected.tick()
    await create_overdue_agent(free, redis_client)

    await free.tick(after=1)
    assert status(redis_client) == "degraded"
    assert await elected.tick(after=1)

    assert free.sweeper.rejected_sweeps == elected.sweeper.rejected_sweeps == 0
    for replica in (elected, free):
        await replica.store.close()


async def create_overdue_agents(
    replica: Replica, redis_client: redis.Redis, count: int, *, namespace: str = "default", name: str = "n"
) -> list[str]:
    """Create agents that have sent a heartbeat and are overdue; return their ids."""
    names = [f"{name}{number}" for number in range(count)]
    await asyncio.gather(
        *(
            replica.store.agents.register(RegistrationWrite(each, a_spec(each), 60_000, 120_000, namespace=namespace))
            for each in names
        )
    )
    await asyncio.gather(*map(replica.store.agents.heartbeat, names))
    make_overdue(redis_client, *names)
    return names


async def test_three_leaders_transition_each_agent_once(redis_url: str, redis_client: redis.Redis) -> None:
    """Their locks were deleted; all sweep at once, two are rejected, count that and step down."""
    three = [Replica(redis_url, name) for name in ("one", "two", "three")]
    await create_overdue_agents(three[0], redis_client, 9)
    redis_client.zadd("{mesh}:deadlines", {f"n{number}": float("9e15") for number in range(9)})
    for replica in three:
        redis_client.delete(LOCK)
        wait_until(lambda: server_time_ms(redis_client) > epoch(redis_client), description="a millisecond has passed")
        assert await replica.tick()
    assert [replica.election.is_leader for replica in three] == [True] * 3
    make_overdue(redis_client, *(f"n{number}" for number in range(9)))

    await asyncio.gather(*(replica.tick(after=RETRY / 2) for replica in three))

    assert [replica.election.is_leader for replica in three] == [False, False, True]
    assert [replica.sweeper.rejected_sweeps for replica in three] == [1, 1, 0]
    assert [sum(swept.degraded for swept in replica.swept) for replica in three] == [0, 0, 9]
    assert sorted(degraded_ids(redis_client)) == [f"n{number}" for number in range(9)]
    for replica in three:
        await replica.store.close()


async def test_three_replicas_without_election_transition_each_agent_once(
    redis_url: str, redis_client: redis.Redis
) -> None:
    """The deadline in the script is enough to prevent a second transition."""
    three = [Replica(redis_url, name, elects=False) for name in ("one", "two", "three")]
    for n in range(450):
        await create_overdue_agent(three[0], redis_client, f"a{n}")

    await asyncio.gather(*(replica.tick() for replica in three))

    assert len(degraded_ids(redis_client)) == len({*degraded_ids(redis_client)}) == 450
    assert sum(swept.degraded for replica in three for swept in replica.swept) == 450
    for replica in three:
        await replica.store.close()


async def test_a_leader_stops_a_sweep_at_its_deadline(pair: Pair, redis_client: redis.Redis) -> None:
    """It checks its own clock between two calls, because a long sweep may outlast the deadline."""
    one, _ = pair
    for n in range(450):
        await create_overdue_agent(one, redis_client, f"a{n}")
    one.sweep_duration = DEADLINE + 1

    assert not await one.tick(after=1)

    assert [swept.degraded for swept in one.swept] == [200]


async def test_self_preservation_applies_to_all_replicas(pair: Pair, redis_client: redis.Redis) -> None:
    """No leader exceeds the share; the next tick after its end transitions all agents."""
    one, two = pair
    names = await create_overdue_agents(one, redis_client, 450)

    await one.tick(after=1)
    await one.sweeper.resign()
    assert await two.tick(after=1)

    assert sum(status(redis_client, name) == "degraded" for name in names) == 200
    assert [(swept.degraded, swept.suspended) for swept in (*one.swept, *two.swept)] == [(200, 0), (0, 200), (0, 50)]
    assert await two.sweeper.end_self_preservation()
    assert not await two.sweeper.end_self_preservation()
    await two.tick(after=1)
    assert {status(redis_client, name) for name in names} == {"degraded"}


async def test_dead_agents_expire_while_another_namespace_is_in_self_preservation(
    pair: Pair, redis_client: redis.Redis
) -> None:
    """Attack T7: 60 agents of one namespace kept ten dead agents of another healthy for ten minutes."""
    one, _ = pair
    evil = await create_overdue_agents(one, redis_client, 60, namespace="evil", name="evil")
    dead = await create_overdue_agents(one, redis_client, 10, namespace="finance", name="dead")
    await create_overdue_agents(one, redis_client, 20, namespace="finance", name="alive")
    await asyncio.gather(*(one.store.agents.heartbeat(f"alive{number}") for number in range(20)))

    await one.tick(after=1)

    assert {status(redis_client, name) for name in evil} == {"healthy"}
    assert {status(redis_client, name) for name in dead} == {"degraded"}
    assert await one.sweeper.end_self_preservation("finance") == 0
    assert await one.sweeper.end_self_preservation("evil") == 1
    await one.tick(after=1)
    assert {status(redis_client, name) for name in evil} == {"degraded"}


async def test_an_agent_that_returns_during_self_preservation_is_not_suspended_any_more(
    pair: Pair, redis_client: redis.Redis
) -> None:
    """Its heartbeat or registration gives it a deadline; an agent that unregisters is gone."""
    one, _ = pair
    names = await create_overdue_agents(one, redis_client, 20)
    await one.tick(after=1)
    assert redis_client.zcard("{mesh}:suspended") == 20

    await one.store.agents.heartbeat(names[0])
    await one.store.agents.register(RegistrationWrite(names[1], a_spec(names[1]), 60_000, 120_000))
    await one.store.agents.unregister(names[2])

    assert await one.store.agents.overdue_since(names[:3]) == [None] * 3
    assert None not in await one.store.agents.overdue_since(names[3:])
    assert redis_client.zcard("{mesh}:suspended") == 17
    await one.sweeper.end_self_preservation()
    await one.tick(after=1)
    assert [status(redis_client, name) for name in names[:2]] == ["healthy"] * 2


async def test_more_recovered_agents_than_a_sweep_reads_do_not_prolong_self_preservation(
    pair: Pair, redis_client: redis.Redis
) -> None:
    """300 degraded agents of 700 are past their deadline; a call left out only those that it was given."""
    one, _ = pair
    degraded = await create_overdue_agents(one, redis_client, 300)
    healthy = await create_overdue_agents(one, redis_client, 400, name="h")
    await asyncio.gather(*map(one.store.agents.heartbeat, healthy))
    await one.tick(after=1)
    assert {status(redis_client, name) for name in degraded} == {"degraded"}
    make_overdue(redis_client, *degraded)
    now = server_time_ms(redis_client)
    redis_client.hset("{mesh}:self_preservation", "default", f"{now} {now + 100_000} - {now - 61_000} 9 9")
    redis_client.zadd("{mesh}:protected", {"default": now})

    await one.tick(after=1)

    assert not redis_client.exists("{mesh}:self_preservation")


async def test_self_preservation_is_deleted_after_a_time_without_overdue_agents(
    pair: Pair, redis_client: redis.Redis
) -> None:
    """The leader updates it until it is deleted."""
    one, _ = pair
    redis_client.hset("{mesh}:self_preservation", "n", "1 2 - - 3 4")
    redis_client.zadd("{mesh}:protected", {"n": 1})

    await one.tick(after=1)
    since, until, ended, below, *_ = str(redis_client.hget("{mesh}:self_preservation", "n")).split()
    assert (since, until, ended) == ("1", "2", "2")
    redis_client.hset("{mesh}:self_preservation", "n", f"1 2 2 {int(below) - 60_000} 3 4")
    await one.tick(after=1)

    assert not redis_client.exists("{mesh}:self_preservation", "{mesh}:protected")


async def test_all_deadlines_are_repaired_before_a_sweep_after_a_clock_rollback(
    pair: Pair, redis_client: redis.Redis
) -> None:
    """The leader repairs all of them, in several calls and once, before it transitions an agent."""
    one, two = pair
    names = await create_overdue_agents(one, redis_client, 450)
    hour = server_time_ms(redis_client) + 3_600_000
    redis_client.zadd("{mesh}:deadlines", dict.fromkeys(names, hour))
    redis_client.zadd("{mesh}:heartbeats", dict.fromkeys(names, hour))
    redis_client.set("{mesh}:last_probe", hour)

    await one.store.server_health.probe()
    assert redis_client.exists("{mesh}:clock_rollback")
    await one.tick(after=1)

    now = server_time_ms(redis_client)
    assert not redis_client.exists("{mesh}:clock_rollback")
    assert redis_client.zcount("{mesh}:heartbeats", now + 1, "+inf") == 0
    assert redis_client.zcount("{mesh}:deadlines", now - 10_000 + 60_000, now + 60_000) == 450
    assert {status(redis_client, name) for name in names} == {"healthy"}
    assert not await two.tick(after=1)


async def test_the_next_leader_finishes_an_interrupted_repair(
    pair: Pair, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No agent is repaired twice, and none is left out."""
    one, two = pair
    names = await create_overdue_agents(one, redis_client, 450)
    hour = server_time_ms(redis_client) + 3_600_000
    redis_client.zadd("{mesh}:deadlines", dict.fromkeys(names, hour))
    redis_client.set("{mesh}:last_probe", hour)
    await one.store.server_health.probe()
    monkeypatch.setattr("registry.service.liveness.sweeper._MAX_SWEEPS_PER_TICK", 1)
    await one.tick(after=1)
    assert redis_client.exists("{mesh}:clock_rollback")
    repaired = {name: redis_client.zscore("{mesh}:deadlines", name) for name in names}
    repaired = {name: deadline for name, deadline in repaired.items() if deadline != hour}
    assert 0 < len(repaired) < 450
    monkeypatch.setattr("registry.service.liveness.sweeper._MAX_SWEEPS_PER_TICK", 50)

    assert await two.tick(after=LEASE)

    assert not redis_client.exists("{mesh}:clock_rollback")
    assert {name: redis_client.zscore("{mesh}:deadlines", name) for name in repaired} == repaired
    assert redis_client.zcount("{mesh}:deadlines", hour, "+inf") == 0
