"""Who sweeps, on a clock the test moves: a lock that stands still is taken, a lost one given up, a stale refused."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import redis

from registry.config.settings import Settings
from registry.errors import StoreUnavailable
from registry.service.liveness.sweeper import Sweeper
from registry.store.agents import RegistrationWrite
from registry.store.redis.connection import endpoint_from_url
from registry.store.store import Store
from registry.store.sweeps import SweepResult
from tests.support.builders import a_spec
from tests.support.polling import wait_until
from tests.support.server_time import clear_outage, make_overdue, server_time_ms

LEASE, DEADLINE, RETRY = 15.0, 10.0, 2.0
LOCK = "{mesh}:leader"


class Replica:
    """A sweeping of one replica, on a clock of its own that only the test moves."""

    def __init__(self, url: str, name: str, *, elects: bool = True) -> None:
        settings = Settings(
            instance_id=name,
            leader_election=elects,
            lease_duration=timedelta(seconds=LEASE),
            renew_deadline=timedelta(seconds=DEADLINE),
            retry_period=timedelta(seconds=RETRY),
            retention=timedelta(hours=1),
        )
        self.now = 1000.0
        self.swept: list[SweepResult] = []
        self.sweep_takes = 0.0
        self.store = Store(endpoint_from_url(url), settings, lambda _script, _seconds: None)
        self.sweeping = Sweeper(
            self.store.leadership,
            self.store.sweeps,
            settings,
            on_swept=self._note,
            clock=lambda: self.now,
        )

    def _note(self, swept: SweepResult) -> None:
        self.swept.append(swept)
        self.now += self.sweep_takes

    async def look(self, *, after: float = 0.0) -> bool:
        """Look once, so many seconds later by this replica's own clock; return whether it leads then."""
        self.now += after
        await self.sweeping.tick()
        return self.sweeping.is_leader


@pytest.fixture(autouse=True)
def _pulsed(raw: redis.Redis) -> None:
    clear_outage(raw)


@pytest.fixture
async def pair(redis_url: str) -> AsyncIterator[tuple[Replica, Replica]]:
    """Provide two replicas on one store; the first leads."""
    one, two = Replica(redis_url, "one"), Replica(redis_url, "two")
    assert await one.look()
    assert not await two.look()
    yield one, two
    await one.store.close()
    await two.store.close()


Pair = tuple[Replica, Replica]


async def overdue_agent(replica: Replica, raw: redis.Redis, agent_id: str = "a") -> None:
    """Let an agent be, whose deadline has just passed."""
    await replica.store.agents.register(RegistrationWrite(agent_id, a_spec(agent_id), 60_000, 120_000))
    make_overdue(raw, agent_id)


def epoch(raw: redis.Redis) -> int:
    """Return the epoch as the store has it."""
    return int(raw.get("{mesh}:epoch") or 0)


def went(raw: redis.Redis) -> list[str]:
    """Return who degraded, by the log, as often as it says so."""
    entries: Any = raw.xrange("{mesh}:log")
    return [fields["id"] for _, fields in entries if fields["reason"] == "degraded"]


def status(raw: redis.Redis, agent_id: str = "a") -> str:
    """Return an agent's status as the store has it."""
    return str(raw.hget(f"{{mesh}}:agent:{agent_id}", "status"))


async def test_the_first_to_look_leads_and_the_lock_says_who(pair: Pair, raw: redis.Redis) -> None:
    """Both know the instance, the process and the epoch."""
    one, two = pair

    for replica in pair:
        lock = replica.sweeping.observed_lock
        assert lock is not None
        assert (lock.instance, lock.epoch) == ("one", epoch(raw))
        assert lock.pid > 0
        assert lock.host
        assert lock.since > 0
    assert one.sweeping.is_leader
    assert not two.sweeping.is_leader


async def test_only_the_leader_sweeps(pair: Pair, raw: redis.Redis) -> None:
    """The follower leaves the overdue agent alone, the leader moves it one step on."""
    one, two = pair
    await overdue_agent(one, raw)

    await two.look(after=1)
    assert status(raw) == "pending"
    await one.look(after=1)

    assert status(raw) == "degraded"
    assert two.swept == []
    assert [swept.degraded for swept in one.swept] == [1]


async def test_the_leader_renews_every_retry_period_and_not_more_often(pair: Pair, raw: redis.Redis) -> None:
    """Each renewal raises the counter in the lock; nothing else in it changes."""
    one, _ = pair
    first = raw.get(LOCK)

    await one.look(after=RETRY - 0.1)
    assert raw.get(LOCK) == first
    await one.look(after=0.2)
    second = raw.get(LOCK)

    assert isinstance(first, str)
    assert isinstance(second, str)
    assert (first.split(" ", 1)[0], second.split(" ", 1)[0]) == ("0", "1")
    assert first.split(" ", 1)[1] == second.split(" ", 1)[1]


async def test_a_lock_that_is_renewed_is_never_taken(pair: Pair) -> None:
    """However long it lasts: each renewal starts the follower's lease anew."""
    one, two = pair

    for _ in range(20):
        assert await one.look(after=LEASE - 1)
        assert not await two.look(after=LEASE - 1)


async def test_a_lock_that_stands_still_one_lease_is_taken(pair: Pair, raw: redis.Redis) -> None:
    """Not a moment before, by the follower's own clock; the epoch rises."""
    _, two = pair
    first = epoch(raw)

    assert not await two.look(after=LEASE - 0.1)
    assert await two.look(after=0.2)

    assert two.sweeping.observed_lock is not None
    assert (two.sweeping.observed_lock.instance, two.sweeping.observed_lock.epoch) == ("two", epoch(raw))
    assert epoch(raw) > first


async def test_a_step_of_rediss_clock_neither_lengthens_nor_shortens_a_lease(pair: Pair, raw: redis.Redis) -> None:
    """The lock has no time to live, and a wild `since` in it is only shown."""
    _, two = pair

    assert raw.pttl(LOCK) == -1
    text = str(raw.get(LOCK)).split(" ")
    raw.set(LOCK, " ".join([*text[:2], "99999999999999", *text[3:]]))

    assert not await two.look(after=LEASE - 0.1)
    assert not await two.look(after=LEASE - 0.1)
    assert await two.look(after=0.2)


async def test_a_leader_that_was_replaced_steps_down_without_sweeping(pair: Pair, raw: redis.Redis) -> None:
    """It wakes up, finds another's lock at its renewal, and leaves the overdue to that one."""
    one, two = pair
    await two.look(after=LEASE)
    await overdue_agent(one, raw)

    assert not one.sweeping.is_leader or await one.look(after=LEASE) is False

    assert status(raw) == "pending"
    assert one.swept == []
    assert await two.look(after=1)
    assert status(raw) == "degraded"


async def test_a_leader_that_was_replaced_and_does_not_know_is_refused(pair: Pair, raw: redis.Redis) -> None:
    """Between two renewals it still sweeps, under an epoch that is over: refused, it counts that and steps down."""
    one, two = pair
    await two.look(after=LEASE)
    await overdue_agent(one, raw)
    assert one.sweeping.is_leader

    assert not await one.look(after=RETRY / 2)

    assert one.sweeping.refused_sweeps == 1
    assert one.swept == []
    assert status(raw) == "pending"


async def test_past_the_renew_deadline_it_does_not_lead(pair: Pair) -> None:
    """By its own clock, whatever the lock says."""
    one, _ = pair

    one.now += DEADLINE
    assert one.sweeping.is_leader
    one.now += 0.1

    assert not one.sweeping.is_leader


def cut(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the replica's calls for the lock fail, as they do when Redis is away."""

    async def away(*_: object) -> None:
        raise StoreUnavailable("away")

    for call in ("acquire", "renew"):
        monkeypatch.setattr(replica.store.leadership, call, away)


async def test_a_leader_cut_off_leads_until_its_deadline_and_then_steps_down(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each failed renewal is raised, for the loop to tell; past the deadline it knows of no lock any more."""
    one, _ = pair
    cut(one, monkeypatch)

    for after, leads in ((RETRY, True), (DEADLINE - RETRY, True), (0.2, False)):
        with pytest.raises(StoreUnavailable):
            await one.look(after=after)
        assert one.sweeping.is_leader is leads
    assert one.sweeping.observed_lock is None
    with pytest.raises(StoreUnavailable):
        await one.look(after=1)


async def test_a_leader_that_comes_back_in_time_goes_on(
    pair: Pair, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renewed within the deadline: the same epoch, no step down."""
    one, two = pair
    first = epoch(raw)
    with monkeypatch.context() as patched:
        cut(one, patched)
        with pytest.raises(StoreUnavailable):
            await one.look(after=RETRY)

    assert await one.look(after=1)
    assert not await two.look(after=LEASE)

    assert one.sweeping.observed_lock is not None
    assert one.sweeping.observed_lock.epoch == first


async def test_after_the_deadline_it_may_lead_again_a_lease_later(
    pair: Pair, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone in the world it finds its own old lock standing still, and takes it under a new epoch."""
    one, _ = pair
    first = epoch(raw)
    with monkeypatch.context() as patched:
        cut(one, patched)
        with pytest.raises(StoreUnavailable):
            await one.look(after=DEADLINE + 0.2)

    assert not await one.look(after=1)
    assert not await one.look(after=LEASE - 0.1)
    assert await one.look(after=0.2)

    assert one.sweeping.observed_lock is not None
    assert one.sweeping.observed_lock.epoch > first


async def test_who_resigns_is_followed_at_the_next_look(redis_url: str, pair: Pair, raw: redis.Redis) -> None:
    """No lease has to pass; resigning twice, or without the lead, does nothing. Who resigned looks no more."""
    one, two = pair
    three = Replica(redis_url, "three")

    await three.sweeping.resign()
    await three.store.close()
    assert raw.exists(LOCK)
    await one.sweeping.resign()
    await one.sweeping.resign()

    assert not one.sweeping.is_leader
    assert not raw.exists(LOCK)
    assert not await one.look()
    assert not one.sweeping.may_sweep
    assert not raw.exists(LOCK)
    assert await two.look()


async def test_who_resigns_in_the_middle_of_a_look_leaves_no_lock_behind(redis_url: str, raw: redis.Redis) -> None:
    """Whether that look would take the lock or renew it: the end comes after it."""
    one = Replica(redis_url, "one")
    await asyncio.gather(one.look(), one.sweeping.resign())
    assert not raw.exists(LOCK)
    two = Replica(redis_url, "two")
    assert await two.look()

    await asyncio.gather(two.look(after=RETRY), two.sweeping.resign())

    assert not raw.exists(LOCK)
    for replica in (one, two):
        await replica.store.close()


async def test_of_two_who_take_at_the_same_time_one_leads(redis_url: str, pair: Pair) -> None:
    """Compare and set: the other finds a lock it has not seen, and waits a whole lease for that one."""
    _, two = pair
    three = Replica(redis_url, "three")
    assert not await three.look()
    two.now = three.now = three.now + LEASE

    await asyncio.gather(two.sweeping.tick(), three.sweeping.tick())

    leaders = [replica for replica in (two, three) if replica.sweeping.is_leader]
    assert len(leaders) == 1
    (follower,) = {two, three} - {*leaders}
    assert not await follower.look(after=LEASE - 1)
    await three.store.close()


async def test_a_lock_that_was_tampered_with_is_replaced_after_a_lease(pair: Pair, raw: redis.Redis) -> None:
    """Nonsense in the key wedges nobody."""
    one, two = pair
    raw.set(LOCK, "nonsense")

    assert not await one.look(after=RETRY)
    assert not await two.look()
    assert await two.look(after=LEASE)


async def test_a_lost_lock_is_taken_at_once_and_the_old_leader_steps_down(pair: Pair, raw: redis.Redis) -> None:
    """FLUSHALL: lock and epoch are gone; whoever looks first leads, and the other learns it at its next renewal."""
    one, two = pair
    raw.flushall()

    assert await two.look()
    assert not await one.look(after=RETRY)
    assert await two.look(after=RETRY)

    assert not one.sweeping.is_leader


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
        assert replica.sweeping.may_sweep

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

    assert free.sweeping.refused_sweeps == elected.sweeping.refused_sweeps == 0
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
    assert [replica.sweeping.is_leader for replica in three] == [True] * 3
    make_overdue(raw, *(f"n{number}" for number in range(9)))

    await asyncio.gather(*(replica.look(after=RETRY / 2) for replica in three))

    assert [replica.sweeping.is_leader for replica in three] == [False, False, True]
    assert [replica.sweeping.refused_sweeps for replica in three] == [1, 1, 0]
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
    await one.sweeping.resign()
    assert await two.look(after=1)

    assert sum(status(raw, name) == "degraded" for name in names) == 200
    assert [swept.degraded for swept in (*one.swept, *two.swept)] == [200]
    assert await two.sweeping.end_self_preservation()
    assert not await two.sweeping.end_self_preservation()
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
