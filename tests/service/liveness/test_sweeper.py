"""The sweep: overdue agents are transitioned once, whoever leads, and times are repaired after a clock rollback."""

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
    epoch,
    overdue_agent,
    status,
    went,
)
from tests.support.builders import a_spec
from tests.support.polling import wait_until
from tests.support.server_time import make_overdue, server_time_ms

pytestmark = pytest.mark.usefixtures("no_outage")


async def test_one_look_moves_each_overdue_agent_one_step(pair: Pair, raw: redis.Redis) -> None:
    """More than a call holds, all of them, each once: the next step has a deadline of its own."""
    one, _ = pair
    for n in range(450):
        await overdue_agent(one, raw, f"a{n}")

    await one.look(after=1)

    assert sum(swept.degraded for swept in one.swept) == 450
    assert [swept.degraded for swept in one.swept] == [200, 200, 50]
    one.swept.clear()
    await one.look(after=1)
    assert one.swept == []


async def test_without_election_every_replica_sweeps(redis_url: str, raw: redis.Redis) -> None:
    """ENABLE_LEADER_ELECTION=false: no lock is taken, the epoch is read, and each transition still happens once."""
    pair = [Replica(redis_url, name, elects=False) for name in ("one", "two")]
    await overdue_agent(pair[0], raw)

    for replica in pair:
        assert not await replica.look()
        assert replica.sweeper.may_sweep

    assert status(raw) == "degraded"
    assert [len(replica.swept) for replica in pair] == [1, 0]
    assert not raw.exists(LOCK)
    for replica in pair:
        await replica.store.close()


async def test_without_election_it_sweeps_beside_one_that_elects(redis_url: str, raw: redis.Redis) -> None:
    """Under the epoch it reads; the elected leader goes on as before."""
    elected, free = Replica(redis_url, "elected"), Replica(redis_url, "free", elects=False)
    assert await elected.look()
    await overdue_agent(free, raw)

    await free.look(after=1)
    assert status(raw) == "degraded"
    assert await elected.look(after=1)

    assert free.sweeper.rejected_sweeps == elected.sweeper.rejected_sweeps == 0
    for replica in (elected, free):
        await replica.store.close()


async def heard(replica: Replica, raw: redis.Redis, count: int) -> list[str]:
    """Let so many agents be, which sent a heartbeat and are overdue since."""
    names = [f"n{number}" for number in range(count)]
    await asyncio.gather(
        *(replica.store.agents.register(RegistrationWrite(name, a_spec(name), 60_000, 120_000)) for name in names)
    )
    await asyncio.gather(*map(replica.store.agents.heartbeat, names))
    make_overdue(raw, *names)
    return names


async def test_when_three_think_they_lead_each_agent_is_moved_once(redis_url: str, raw: redis.Redis) -> None:
    """Locks deleted under their holders: all three sweep at once, two are refused, count that and step down."""
    three = [Replica(redis_url, name) for name in ("one", "two", "three")]
    await heard(three[0], raw, 9)
    raw.zadd("{mesh}:deadlines", {f"n{number}": float("9e15") for number in range(9)})
    for replica in three:
        raw.delete(LOCK)
        wait_until(lambda: server_time_ms(raw) > epoch(raw), description="a millisecond has passed")
        assert await replica.look()
    assert [replica.election.is_leader for replica in three] == [True] * 3
    make_overdue(raw, *(f"n{number}" for number in range(9)))

    await asyncio.gather(*(replica.look(after=RETRY / 2) for replica in three))

    assert [replica.election.is_leader for replica in three] == [False, False, True]
    assert [replica.sweeper.rejected_sweeps for replica in three] == [1, 1, 0]
    assert [sum(swept.degraded for swept in replica.swept) for replica in three] == [0, 0, 9]
    assert sorted(went(raw)) == [f"n{number}" for number in range(9)]
    for replica in three:
        await replica.store.close()


async def test_when_three_sweep_under_one_epoch_each_agent_is_moved_once(redis_url: str, raw: redis.Redis) -> None:
    """Without election nothing but the deadline in the script keeps them apart, and that is enough."""
    three = [Replica(redis_url, name, elects=False) for name in ("one", "two", "three")]
    for n in range(450):
        await overdue_agent(three[0], raw, f"a{n}")

    await asyncio.gather(*(replica.look() for replica in three))

    assert len(went(raw)) == len({*went(raw)}) == 450
    assert sum(swept.degraded for replica in three for swept in replica.swept) == 450
    for replica in three:
        await replica.store.close()


async def test_a_leader_stops_in_the_middle_of_a_look_when_its_time_is_up(pair: Pair, raw: redis.Redis) -> None:
    """By its own clock, between two calls: a look over many agents may take longer than the deadline."""
    one, _ = pair
    for n in range(450):
        await overdue_agent(one, raw, f"a{n}")
    one.sweep_takes = DEADLINE + 1

    assert not await one.look(after=1)

    assert [swept.degraded for swept in one.swept] == [200]


async def test_a_mass_silence_is_held_for_all_replicas_and_told(pair: Pair, raw: redis.Redis) -> None:
    """No more than the share is moved, whoever leads; released, all go at the next look."""
    one, two = pair
    names = await heard(one, raw, 450)

    await one.look(after=1)
    await one.sweeper.resign()
    assert await two.look(after=1)

    assert sum(status(raw, name) == "degraded" for name in names) == 200
    assert [swept.degraded for swept in (*one.swept, *two.swept)] == [200]
    assert await two.sweeper.end_self_preservation()
    assert not await two.sweeper.end_self_preservation()
    await two.look(after=1)
    assert {status(raw, name) for name in names} == {"degraded"}


async def test_a_hold_is_over_for_good_only_after_looks_without_overdue_agents(pair: Pair, raw: redis.Redis) -> None:
    """The leader calls the sweep while there is a hold to be remembered, and no longer."""
    one, _ = pair
    raw.hset("{mesh}:self_preservation", mapping={"since": "1", "until": "2", "overdue": "3", "healthy": "4"})

    await one.look(after=1)
    assert raw.hget("{mesh}:self_preservation", "ended") == "2"
    below = int(raw.hget("{mesh}:self_preservation", "below_since") or 0)
    assert below
    raw.hset("{mesh}:self_preservation", "below_since", below - 60_000)
    await one.look(after=1)

    assert not raw.exists("{mesh}:self_preservation")


async def test_after_the_clock_went_back_all_agents_are_walked_over_before_anything_else(
    pair: Pair, raw: redis.Redis
) -> None:
    """By whoever leads then, however many they are; only then somebody is swept, and once is enough."""
    one, two = pair
    names = await heard(one, raw, 450)
    hour = server_time_ms(raw) + 3_600_000
    raw.zadd("{mesh}:deadlines", dict.fromkeys(names, hour))
    raw.zadd("{mesh}:heartbeats", dict.fromkeys(names, hour))
    raw.set("{mesh}:last_probe", hour)

    await one.store.server_health.probe()
    assert raw.exists("{mesh}:clock_rollback")
    await one.look(after=1)

    now = server_time_ms(raw)
    assert not raw.exists("{mesh}:clock_rollback")
    assert raw.zcount("{mesh}:heartbeats", now + 1, "+inf") == 0
    assert raw.zcount("{mesh}:deadlines", now - 10_000 + 60_000, now + 60_000) == 450
    assert {status(raw, name) for name in names} == {"healthy"}
    assert not await two.look(after=1)


async def test_a_walk_that_its_leader_did_not_end_is_ended_by_the_next(
    pair: Pair, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed midway: nobody is walked over twice, nobody is forgotten."""
    one, two = pair
    names = await heard(one, raw, 450)
    hour = server_time_ms(raw) + 3_600_000
    raw.zadd("{mesh}:deadlines", dict.fromkeys(names, hour))
    raw.set("{mesh}:last_probe", hour)
    await one.store.server_health.probe()
    monkeypatch.setattr("registry.service.liveness.sweeper._MAX_SWEEPS_PER_TICK", 1)
    await one.look(after=1)
    assert raw.exists("{mesh}:clock_rollback")
    walked = {name: raw.zscore("{mesh}:deadlines", name) for name in names}
    walked = {name: deadline for name, deadline in walked.items() if deadline != hour}
    assert 0 < len(walked) < 450
    monkeypatch.setattr("registry.service.liveness.sweeper._MAX_SWEEPS_PER_TICK", 50)

    assert await two.look(after=LEASE)

    assert not raw.exists("{mesh}:clock_rollback")
    assert {name: raw.zscore("{mesh}:deadlines", name) for name in walked} == walked
    assert raw.zcount("{mesh}:deadlines", hour, "+inf") == 0
