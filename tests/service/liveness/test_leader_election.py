"""Leader election: a follower takes an unchanged lock, a leader gives up a lost one, a stale epoch is rejected."""

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
    create_overdue_agent,
    epoch,
    status,
)

pytestmark = pytest.mark.usefixtures("no_outage")


async def test_the_first_replica_to_tick_leads(pair: Pair, redis_client: redis.Redis) -> None:
    """Both replicas read its name, process and epoch from the lock."""
    one, two = pair

    for replica in pair:
        lock = replica.election.observed_lock
        assert lock is not None
        assert (lock.instance, lock.epoch) == ("one", epoch(redis_client))
        assert lock.pid > 0
        assert lock.host
        assert lock.since > 0
    assert one.election.is_leader
    assert not two.election.is_leader


async def test_only_the_leader_sweeps(pair: Pair, redis_client: redis.Redis) -> None:
    """The follower ignores the overdue agent; the leader degrades it."""
    one, two = pair
    await create_overdue_agent(one, redis_client)

    await two.tick(after=1)
    assert status(redis_client) == "pending"
    await one.tick(after=1)

    assert status(redis_client) == "degraded"
    assert two.swept == []
    assert [swept.degraded for swept in one.swept] == [1]


async def test_the_leader_renews_the_lock_once_per_retry_period(pair: Pair, redis_client: redis.Redis) -> None:
    """Each renewal increments the counter in the lock and changes nothing more."""
    one, _ = pair
    first = redis_client.get(LOCK)

    await one.tick(after=RETRY - 0.1)
    assert redis_client.get(LOCK) == first
    await one.tick(after=0.2)
    second = redis_client.get(LOCK)

    assert isinstance(first, str)
    assert isinstance(second, str)
    assert (first.split(" ", 1)[0], second.split(" ", 1)[0]) == ("0", "1")
    assert first.split(" ", 1)[1] == second.split(" ", 1)[1]


async def test_a_follower_never_takes_a_renewed_lock(pair: Pair) -> None:
    """Each renewal restarts the lease on the follower's clock."""
    one, two = pair

    for _ in range(20):
        assert await one.tick(after=LEASE - 1)
        assert not await two.tick(after=LEASE - 1)


async def test_a_follower_takes_a_lock_that_stays_unchanged_for_one_lease(
    pair: Pair, redis_client: redis.Redis
) -> None:
    """It waits the whole lease by its own clock; the epoch increases."""
    _, two = pair
    first = epoch(redis_client)

    assert not await two.tick(after=LEASE - 0.1)
    assert await two.tick(after=0.2)

    assert two.election.observed_lock is not None
    assert (two.election.observed_lock.instance, two.election.observed_lock.epoch) == ("two", epoch(redis_client))
    assert epoch(redis_client) > first


async def test_the_clock_of_redis_does_not_affect_a_lease(pair: Pair, redis_client: redis.Redis) -> None:
    """The lock has no time to live, and `since` in it is only for display."""
    _, two = pair

    assert redis_client.pttl(LOCK) == -1
    text = str(redis_client.get(LOCK)).split(" ")
    redis_client.set(LOCK, " ".join([*text[:2], "99999999999999", *text[3:]]))

    assert not await two.tick(after=LEASE - 0.1)
    assert not await two.tick(after=LEASE - 0.1)
    assert await two.tick(after=0.2)


async def test_a_replaced_leader_steps_down_without_a_sweep(pair: Pair, redis_client: redis.Redis) -> None:
    """Its renewal finds the lock of the new leader, which sweeps the overdue agent."""
    one, two = pair
    await two.tick(after=LEASE)
    await create_overdue_agent(one, redis_client)

    assert not one.election.is_leader or await one.tick(after=LEASE) is False

    assert status(redis_client) == "pending"
    assert one.swept == []
    assert await two.tick(after=1)
    assert status(redis_client) == "degraded"


async def test_the_sweep_of_a_replaced_leader_is_rejected(pair: Pair, redis_client: redis.Redis) -> None:
    """Between two renewals it sweeps under its old epoch; it counts the rejection and steps down."""
    one, two = pair
    await two.tick(after=LEASE)
    await create_overdue_agent(one, redis_client)
    assert one.election.is_leader

    assert not await one.tick(after=RETRY / 2)

    assert one.sweeper.rejected_sweeps == 1
    assert one.swept == []
    assert status(redis_client) == "pending"


async def test_a_leader_past_the_renew_deadline_does_not_lead(pair: Pair) -> None:
    """Its own clock decides, whatever the lock contains."""
    one, _ = pair

    one.now += DEADLINE
    assert one.election.is_leader
    one.now += 0.1

    assert not one.election.is_leader


def make_lock_unreachable(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all calls of the replica for the lock fail, as in an outage of Redis."""

    async def fail(*_: object) -> None:
        raise StoreUnavailable("away")

    for call in ("acquire", "renew"):
        monkeypatch.setattr(replica.store.leadership, call, fail)


async def test_an_unreachable_leader_steps_down_at_its_deadline(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each failed renewal is raised to the loop; after the deadline the replica reports no lock."""
    one, _ = pair
    make_lock_unreachable(one, monkeypatch)

    for after, leads in ((RETRY, True), (DEADLINE - RETRY, True), (0.2, False)):
        with pytest.raises(StoreUnavailable):
            await one.tick(after=after)
        assert one.election.is_leader is leads
    assert one.election.observed_lock is None
    with pytest.raises(StoreUnavailable):
        await one.tick(after=1)


async def test_a_leader_that_renews_before_its_deadline_stays_leader(
    pair: Pair, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps its epoch."""
    one, two = pair
    first = epoch(redis_client)
    with monkeypatch.context() as patched:
        make_lock_unreachable(one, patched)
        with pytest.raises(StoreUnavailable):
            await one.tick(after=RETRY)

    assert await one.tick(after=1)
    assert not await two.tick(after=LEASE)

    assert one.election.observed_lock is not None
    assert one.election.observed_lock.epoch == first


async def test_a_leader_takes_its_own_old_lock_after_a_lease(
    pair: Pair, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the deadline it is a follower of its own unchanged lock; it leads again under a new epoch."""
    one, _ = pair
    first = epoch(redis_client)
    with monkeypatch.context() as patched:
        make_lock_unreachable(one, patched)
        with pytest.raises(StoreUnavailable):
            await one.tick(after=DEADLINE + 0.2)

    assert not await one.tick(after=1)
    assert not await one.tick(after=LEASE - 0.1)
    assert await one.tick(after=0.2)

    assert one.election.observed_lock is not None
    assert one.election.observed_lock.epoch > first


async def test_a_follower_takes_over_at_once_after_a_resignation(
    redis_url: str, pair: Pair, redis_client: redis.Redis
) -> None:
    """A second resignation or one of a follower has no effect; a replica that resigned never leads again."""
    one, two = pair
    three = Replica(redis_url, "three")

    await three.sweeper.resign()
    await three.store.close()
    assert redis_client.exists(LOCK)
    await one.sweeper.resign()
    await one.sweeper.resign()

    assert not one.election.is_leader
    assert not redis_client.exists(LOCK)
    assert not await one.tick()
    assert not one.sweeper.may_sweep
    assert not redis_client.exists(LOCK)
    assert await two.tick()


async def test_a_resignation_during_a_tick_leaves_no_lock(redis_url: str, redis_client: redis.Redis) -> None:
    """It waits until the tick has acquired or renewed the lock, then deletes it."""
    one = Replica(redis_url, "one")
    await asyncio.gather(one.tick(), one.sweeper.resign())
    assert not redis_client.exists(LOCK)
    two = Replica(redis_url, "two")
    assert await two.tick()

    await asyncio.gather(two.tick(after=RETRY), two.sweeper.resign())

    assert not redis_client.exists(LOCK)
    for replica in (one, two):
        await replica.store.close()


async def test_one_of_two_simultaneous_candidates_leads(redis_url: str, pair: Pair) -> None:
    """The compare-and-set of the other fails; it waits a whole lease for the new lock."""
    _, two = pair
    three = Replica(redis_url, "three")
    assert not await three.tick()
    two.now = three.now = three.now + LEASE

    await asyncio.gather(two.sweeper.tick(), three.sweeper.tick())

    leaders = [replica for replica in (two, three) if replica.election.is_leader]
    assert len(leaders) == 1
    (follower,) = {two, three} - {*leaders}
    assert not await follower.tick(after=LEASE - 1)
    await three.store.close()


async def test_an_invalid_lock_is_replaced_after_a_lease(pair: Pair, redis_client: redis.Redis) -> None:
    """A value that no replica can parse does not block the election."""
    one, two = pair
    redis_client.set(LOCK, "nonsense")

    assert not await one.tick(after=RETRY)
    assert not await two.tick()
    assert await two.tick(after=LEASE)


async def test_a_deleted_lock_is_taken_at_once(pair: Pair, redis_client: redis.Redis) -> None:
    """FLUSHALL deletes lock and epoch; the first replica to tick leads, and the old leader steps down."""
    one, two = pair
    redis_client.flushall()

    assert await two.tick()
    assert not await one.tick(after=RETRY)
    assert await two.tick(after=RETRY)

    assert not one.election.is_leader
