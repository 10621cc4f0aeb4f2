"""The leader lock: acquired, renewed, lost, resigned, taken over."""

from collections.abc import AsyncIterator, Callable

import orjson
import pytest
import redis

from registry.store.keys import Keys
from registry.store.leader_lock import LeaderLock, Leadership
from registry.store.redis.connection import endpoint_from_url
from registry.store.redis.pipeline import Pipeline
from tests.support.polling import wait_until
from tests.support.server_time import server_time_ms

LEADER = "{mesh}:leader"

Replica = Callable[[str], Leadership]


@pytest.fixture
async def replica(redis_url: str) -> AsyncIterator[Replica]:
    """Provide a function that creates a replica by name."""
    links: list[Pipeline] = []

    def make(name: str) -> Leadership:
        links.append(Pipeline(endpoint_from_url(redis_url).connect))
        return Leadership(Keys("mesh"), links[-1], instance=name, host=f"host of {name}", pid=7)

    yield make
    for pipeline in links:
        await pipeline.close()


async def test_the_first_replica_becomes_the_leader(replica: Replica, redis_client: redis.Redis) -> None:
    """The lock contains its identity and the time."""
    seconds, _ = redis_client.time()

    taken, lock = await replica("one").acquire("")

    assert taken
    assert (lock.instance, lock.host, lock.pid, lock.counter) == ("one", "host of one", 7, 0)
    assert seconds * 1000 <= lock.since < seconds * 1000 + 5000
    assert lock.epoch == lock.since
    assert redis_client.get(LEADER) == lock.encoded


async def test_the_second_replica_follows(replica: Replica) -> None:
    """It gets the identity of the leader."""
    _, lock = await replica("one").acquire("")

    assert await replica("two").acquire("") == (False, lock)


async def test_each_renewal_raises_the_counter(replica: Replica) -> None:
    """All other parts of the lock stay."""
    one, two = replica("one"), replica("two")
    _, first = await one.acquire("")

    second = await one.renew(first)
    assert second is not None
    third = await one.renew(second)

    assert third is not None
    assert [lock.counter for lock in (first, second, third)] == [0, 1, 2]
    assert third._replace(encoded="", counter=0) == first._replace(encoded="")
    assert await two.acquire("") == (False, third)


async def test_a_renewal_with_an_old_lock_is_rejected(replica: Replica) -> None:
    """If its reply was lost, the leader steps down, and acquires the lock again when it expires."""
    one = replica("one")
    _, first = await one.acquire("")
    await one.renew(first)

    assert await one.renew(first) is None


async def test_an_expired_lock_is_taken_over_with_a_new_epoch(replica: Replica) -> None:
    """Of two replicas that read the same lock, compare-and-set accepts one; the old leader has lost it."""
    one, two, three = map(replica, ("one", "two", "three"))
    _, seen = await one.acquire("")

    taken, lock = await two.acquire(seen.encoded)

    assert taken
    assert lock.instance == "two"
    assert lock.epoch > seen.epoch
    assert await three.acquire(seen.encoded) == (False, lock)
    assert await one.renew(seen) is None


async def test_a_renewed_lock_is_not_taken_over(replica: Replica) -> None:
    """Its leader is alive."""
    one, two = replica("one"), replica("two")
    _, seen = await one.acquire("")
    renewed = await one.renew(seen)

    assert await two.acquire(seen.encoded) == (False, renewed)


@pytest.mark.parametrize("lost", [LEADER, "{mesh}:epoch"])
async def test_a_deleted_lock_is_lost(lost: str, replica: Replica, redis_client: redis.Redis) -> None:
    """A renewal does not create it again."""
    one = replica("one")
    _, lock = await one.acquire("")
    redis_client.delete(lost)

    assert await one.renew(lock) is None


async def test_a_resigned_lock_is_free_at_once(replica: Replica, redis_client: redis.Redis) -> None:
    """The next replica leads with a new epoch."""
    one, two = replica("one"), replica("two")
    _, lock = await one.acquire("")

    assert await one.resign(lock)
    assert not redis_client.exists(LEADER)
    taken, next_lock = await two.acquire("")
    assert taken
    assert next_lock.epoch > lock.epoch


async def test_a_lost_lock_cannot_be_resigned(replica: Replica, redis_client: redis.Redis) -> None:
    """It belongs to another replica."""
    one, two = replica("one"), replica("two")
    _, seen = await one.acquire("")
    _, lock = await two.acquire(seen.encoded)

    assert not await one.resign(seen)
    assert redis_client.get(LEADER) == lock.encoded


@pytest.mark.parametrize("text", ["gibberish", "", "1 2 3", "1 2 3 {}", "1 2 3 [1]", "x y z {}"])
async def test_a_lock_with_an_invalid_text_has_an_unknown_leader(
    text: str, replica: Replica, redis_client: redis.Redis
) -> None:
    """It is replaced like an expired one, by its exact text."""
    redis_client.set(LEADER, text)
    one = replica("one")

    taken, seen = await one.acquire("nothing like it")
    assert (taken, seen.encoded, seen.instance, seen.epoch) == (False, text, "?", 0)
    taken, lock = await one.acquire(seen.encoded)

    assert (taken, lock.instance) == (True, "one")


async def test_a_lock_that_is_not_text_does_not_block_the_election(replica: Replica, redis_client: redis.Redis) -> None:
    """The lock that a replica has read must equal the stored one, byte for byte."""
    redis_client.set(LEADER, b"1 2 3 \xff")
    one = replica("one")

    _, seen = await one.acquire("nothing like it")
    taken, _ = await one.acquire(seen.encoded)

    assert taken


def test_a_lock_contains_the_name_of_its_leader() -> None:
    """Blanks in a name are no separators."""
    holder = orjson.dumps({"instance": "a b", "host": "c d", "pid": 9, "later": "x"})

    assert LeaderLock.from_bytes(b"3 4 5 " + holder) == LeaderLock("3 4 5 " + holder.decode(), 3, 4, 5, "a b", "c d", 9)


async def test_no_epoch_is_used_twice_even_after_a_loss_of_all_data(
    replica: Replica, redis_client: redis.Redis
) -> None:
    """After FLUSHALL every later epoch rejects an old leader that has not detected the loss."""
    one, two = replica("one"), replica("two")
    _, old = await one.acquire("")
    redis_client.flushall()
    wait_until(lambda: server_time_ms(redis_client) > old.epoch, description="a millisecond has passed")

    _, new = await two.acquire("")

    assert new.epoch > old.epoch
    assert await one.renew(old) is None
