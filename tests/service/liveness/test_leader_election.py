"""Leader election: a lock that does not change is acquired, a lost one given up, a stale epoch rejected."""

import asyncio

import pytest
import redis

from registry.errors import StoreUnavailable
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
)

pytestmark = pytest.mark.usefixtures("no_outage")


async def test_the_first_to_look_leads_and_the_lock_says_who(pair: Pair, raw: redis.Redis) -> None:
    """Both know the instance, the process and the epoch."""
    one, two = pair

    for replica in pair:
        lock = replica.election.observed_lock
        assert lock is not None
        assert (lock.instance, lock.epoch) == ("one", epoch(raw))
        assert lock.pid > 0
        assert lock.host
        assert lock.since > 0
    assert one.election.is_leader
    assert not two.election.is_leader


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

    assert two.election.observed_lock is not None
    assert (two.election.observed_lock.instance, two.election.observed_lock.epoch) == ("two", epoch(raw))
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

    assert not one.election.is_leader or await one.look(after=LEASE) is False

    assert status(raw) == "pending"
    assert one.swept == []
    assert await two.look(after=1)
    assert status(raw) == "degraded"


async def test_a_leader_that_was_replaced_and_does_not_know_is_refused(pair: Pair, raw: redis.Redis) -> None:
    """Between two renewals it still sweeps, under an epoch that is over: refused, it counts that and steps down."""
    one, two = pair
    await two.look(after=LEASE)
    await overdue_agent(one, raw)
    assert one.election.is_leader

    assert not await one.look(after=RETRY / 2)

    assert one.sweeper.rejected_sweeps == 1
    assert one.swept == []
    assert status(raw) == "pending"


async def test_past_the_renew_deadline_it_does_not_lead(pair: Pair) -> None:
    """By its own clock, whatever the lock says."""
    one, _ = pair

    one.now += DEADLINE
    assert one.election.is_leader
    one.now += 0.1

    assert not one.election.is_leader


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
        assert one.election.is_leader is leads
    assert one.election.observed_lock is None
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

    assert one.election.observed_lock is not None
    assert one.election.observed_lock.epoch == first


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

    assert one.election.observed_lock is not None
    assert one.election.observed_lock.epoch > first


async def test_who_resigns_is_followed_at_the_next_look(redis_url: str, pair: Pair, raw: redis.Redis) -> None:
    """No lease has to pass; resigning twice, or without the lead, does nothing. Who resigned looks no more."""
    one, two = pair
    three = Replica(redis_url, "three")

    await three.sweeper.resign()
    await three.store.close()
    assert raw.exists(LOCK)
    await one.sweeper.resign()
    await one.sweeper.resign()

    assert not one.election.is_leader
    assert not raw.exists(LOCK)
    assert not await one.look()
    assert not one.sweeper.may_sweep
    assert not raw.exists(LOCK)
    assert await two.look()


async def test_who_resigns_in_the_middle_of_a_look_leaves_no_lock_behind(redis_url: str, raw: redis.Redis) -> None:
    """Whether that look would take the lock or renew it: the end comes after it."""
    one = Replica(redis_url, "one")
    await asyncio.gather(one.look(), one.sweeper.resign())
    assert not raw.exists(LOCK)
    two = Replica(redis_url, "two")
    assert await two.look()

    await asyncio.gather(two.look(after=RETRY), two.sweeper.resign())

    assert not raw.exists(LOCK)
    for replica in (one, two):
        await replica.store.close()


async def test_of_two_who_take_at_the_same_time_one_leads(redis_url: str, pair: Pair) -> None:
    """Compare and set: the other finds a lock it has not seen, and waits a whole lease for that one."""
    _, two = pair
    three = Replica(redis_url, "three")
    assert not await three.look()
    two.now = three.now = three.now + LEASE

    await asyncio.gather(two.sweeper.tick(), three.sweeper.tick())

    leaders = [replica for replica in (two, three) if replica.election.is_leader]
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

    assert not one.election.is_leader
