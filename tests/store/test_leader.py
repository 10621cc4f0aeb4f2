"""The lock that says who sweeps: taken, renewed, lost, resigned, taken over."""

from collections.abc import AsyncIterator, Callable

import orjson
import pytest
import redis

from registry.store.keys import Keys
from registry.store.leader import LeaderLock, Leadership
from registry.store.redis.connection import endpoint_from_url
from registry.store.redis.pipeline import Pipeline
from tests.support.polling import wait_until
from tests.support.server_time import server_time_ms

LEADER = "{mesh}:leader"

Replica = Callable[[str], Leadership]


@pytest.fixture
async def replica(redis_url: str) -> AsyncIterator[Replica]:
    """Makes a replica by its name."""
    links: list[Pipeline] = []

    def make(name: str) -> Leadership:
        links.append(Pipeline(endpoint_from_url(redis_url).connect))
        return Leadership(Keys("mesh"), links[-1], instance=name, host=f"host of {name}", pid=7)

    yield make
    for link in links:
        await link.close()


async def test_who_comes_first_leads(replica: Replica, raw: redis.Redis) -> None:
    """And the lock says who that is, and since when."""
    seconds, _ = raw.time()

    taken, lock = await replica("one").acquire("")

    assert taken
    assert (lock.instance, lock.host, lock.pid, lock.counter) == ("one", "host of one", 7, 0)
    assert seconds * 1000 <= lock.since < seconds * 1000 + 5000
    assert lock.epoch == lock.since
    assert raw.get(LEADER) == lock.encoded


async def test_who_comes_second_follows(replica: Replica) -> None:
    """And is told who leads."""
    _, lock = await replica("one").acquire("")

    assert await replica("two").acquire("") == (False, lock)


async def test_each_renewal_shows_that_the_leader_lives(replica: Replica) -> None:
    """The counter rises, all else stays."""
    one, two = replica("one"), replica("two")
    _, first = await one.acquire("")

    second = await one.renew(first)
    assert second is not None
    third = await one.renew(second)

    assert third is not None
    assert [lock.counter for lock in (first, second, third)] == [0, 1, 2]
    assert third._replace(encoded="", counter=0) == first._replace(encoded="")
    assert await two.acquire("") == (False, third)


async def test_a_renewal_with_an_old_lock_is_refused(replica: Replica) -> None:
    """As when its reply was lost: the holder steps down, and takes the lock again when it stands still."""
    one = replica("one")
    _, first = await one.acquire("")
    await one.renew(first)

    assert await one.renew(first) is None


async def test_a_lock_that_stood_still_is_taken_over_under_a_new_epoch(replica: Replica) -> None:
    """By compare-and-set: of two that saw the same lock, one gets it; the old holder finds it lost."""
    one, two, three = map(replica, ("one", "two", "three"))
    _, seen = await one.acquire("")

    taken, lock = await two.acquire(seen.encoded)

    assert taken
    assert lock.instance == "two"
    assert lock.epoch > seen.epoch
    assert await three.acquire(seen.encoded) == (False, lock)
    assert await one.renew(seen) is None


async def test_a_lock_that_moved_is_not_taken_over(replica: Replica) -> None:
    """Its holder lives."""
    one, two = replica("one"), replica("two")
    _, seen = await one.acquire("")
    renewed = await one.renew(seen)

    assert await two.acquire(seen.encoded) == (False, renewed)


@pytest.mark.parametrize("lost", [LEADER, "{mesh}:epoch"])
async def test_a_lock_that_was_deleted_is_lost(lost: str, replica: Replica, raw: redis.Redis) -> None:
    """Nobody renews it back to life."""
    one = replica("one")
    _, lock = await one.acquire("")
    raw.delete(lost)

    assert await one.renew(lock) is None


async def test_who_resigns_makes_room_at_once(replica: Replica, raw: redis.Redis) -> None:
    """The next to ask leads, under a new epoch."""
    one, two = replica("one"), replica("two")
    _, lock = await one.acquire("")

    assert await one.resign(lock)
    assert not raw.exists(LEADER)
    taken, next_lock = await two.acquire("")
    assert taken
    assert next_lock.epoch > lock.epoch


async def test_who_lost_the_lock_cannot_resign_it(replica: Replica, raw: redis.Redis) -> None:
    """It is another's by now."""
    one, two = replica("one"), replica("two")
    _, seen = await one.acquire("")
    _, lock = await two.acquire(seen.encoded)

    assert not await one.resign(seen)
    assert raw.get(LEADER) == lock.encoded


@pytest.mark.parametrize("text", ["gibberish", "", "1 2 3", "1 2 3 {}", "1 2 3 [1]", "x y z {}"])
async def test_a_lock_that_was_tampered_with_is_held_by_nobody_known(
    text: str, replica: Replica, raw: redis.Redis
) -> None:
    """It is replaced like one that stands still, by its exact text."""
    raw.set(LEADER, text)
    one = replica("one")

    taken, seen = await one.acquire("nothing like it")
    assert (taken, seen.encoded, seen.instance, seen.epoch) == (False, text, "?", 0)
    taken, lock = await one.acquire(seen.encoded)

    assert (taken, lock.instance) == (True, "one")


async def test_a_lock_that_is_no_text_does_not_end_the_leading_for_ever(replica: Replica, raw: redis.Redis) -> None:
    """What a replica saw of it must compare equal to what is there, byte for byte."""
    raw.set(LEADER, b"1 2 3 \xff")
    one = replica("one")

    _, seen = await one.acquire("nothing like it")
    taken, _ = await one.acquire(seen.encoded)

    assert taken


def test_a_lock_reads_what_its_holder_is_called() -> None:
    """Blanks in a name are no separators."""
    holder = orjson.dumps({"instance": "a b", "host": "c d", "pid": 9, "later": "x"})

    assert LeaderLock.from_bytes(b"3 4 5 " + holder) == LeaderLock("3 4 5 " + holder.decode(), 3, 4, 5, "a b", "c d", 9)


async def test_no_epoch_comes_twice_even_after_everything_was_lost(replica: Replica, raw: redis.Redis) -> None:
    """FLUSHALL: an old leader that does not know of it is refused by every epoch that follows."""
    one, two = replica("one"), replica("two")
    _, old = await one.acquire("")
    raw.flushall()
    wait_until(lambda: server_time_ms(raw) > old.epoch, description="a millisecond has passed")

    _, new = await two.acquire("")

    assert new.epoch > old.epoch
    assert await one.renew(old) is None
