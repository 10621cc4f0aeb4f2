"""Who is overdue, and moving them on under the fencing epoch."""

import asyncio

import pytest
import redis

from registry.store.agents import Registration
from registry.store.store import Store
from registry.store.sweeps import StaleEpochError, Swept

DEADLINES = "{mesh}:deadlines"


async def register(store: Store, *names: str) -> None:
    """Register these agents in an open history."""
    await store.changes.open()
    await asyncio.gather(*(store.agents.register(Registration(name, b"{}", 60_000, 120_000)) for name in names))


def now(raw: redis.Redis) -> int:
    """Return the server's time in milliseconds."""
    seconds, micro = raw.time()
    return seconds * 1000 + micro // 1000


async def test_the_overdue_come_longest_first(store: Store, raw: redis.Redis) -> None:
    """Those whose deadline lies ahead do not."""
    await register(store, *"abcd")
    raw.zadd(DEADLINES, {"a": now(raw) - 100, "b": now(raw) - 300, "c": now(raw) - 200})

    assert await store.sweeps.overdue() == ["b", "c", "a"]


async def test_nobody_is_overdue_in_an_empty_mesh(store: Store) -> None:
    """Nor is that an error."""
    assert await store.sweeps.overdue() == []


async def test_at_most_a_sweeps_worth_comes_at_once(store: Store, raw: redis.Redis) -> None:
    """The rest is found when these are gone."""
    names = [f"n{number:03}" for number in range(250)]
    await register(store, *names)
    raw.zadd(DEADLINES, {name: now(raw) - 1000 + at for at, name in enumerate(names)})

    first = await store.sweeps.overdue()
    await store.sweeps.sweep(first, 0)

    assert first == names[:200]
    assert await store.sweeps.overdue() == names[200:]


async def test_a_sweep_counts_what_became_of_each(store: Store, raw: redis.Redis) -> None:
    """By the words of the script."""
    await register(store, *"abcd")
    raw.hset("{mesh}:agent:b", "status", "degraded")
    raw.hset("{mesh}:agent:c", "status", "expired")
    raw.zadd(DEADLINES, dict.fromkeys(["a", "b", "c", "nobody"], now(raw) - 10))

    swept = await store.sweeps.sweep(["a", "b", "c", "d", "nobody"], 0)

    assert swept == Swept(degraded=1, expired=1, removed=1, early=1, orphaned=1, bad=0)
    assert raw.hmget("{mesh}:agent:a", "status") == ["degraded"]
    assert not raw.exists("{mesh}:agent:c")


async def test_the_retention_of_the_settings_counts(store: Store, raw: redis.Redis) -> None:
    """An expired agent stays for so long: four seconds in tests."""
    await register(store, "a")
    raw.hset("{mesh}:agent:a", "status", "degraded")
    raw.zadd(DEADLINES, {"a": now(raw) - 10})

    began = now(raw)
    await store.sweeps.sweep(["a"], 0)

    deadline = raw.zscore(DEADLINES, "a")
    assert deadline is not None
    assert began + 4000 <= int(deadline) <= now(raw) + 4000


async def test_a_stale_epoch_is_refused(store: Store, raw: redis.Redis) -> None:
    """Whoever lost the lead unknowingly writes nothing; the message names both epochs."""
    await register(store, "a")
    raw.set("{mesh}:epoch", "8")
    raw.zadd(DEADLINES, {"a": now(raw) - 10})

    with pytest.raises(StaleEpochError, match=r"Epoch 7 is over; epoch 8 sweeps now"):
        await store.sweeps.sweep(["a"], 7)

    assert await store.sweeps.overdue() == ["a"]


async def test_the_epoch_is_0_where_none_was_taken(store: Store, raw: redis.Redis) -> None:
    """A replica without leader election sweeps under whatever it reads."""
    assert await store.sweeps.epoch() == 0
    raw.set("{mesh}:epoch", "8")
    assert await store.sweeps.epoch() == 8


async def test_a_heartbeat_between_look_and_sweep_wins(store: Store, raw: redis.Redis) -> None:
    """The script checks the deadline again."""
    await register(store, "a")
    raw.zadd(DEADLINES, {"a": now(raw) - 10})
    overdue = await store.sweeps.overdue()

    beat = await store.agents.heartbeat("a")
    swept = await store.sweeps.sweep(overdue, 0)

    assert beat.found == "healthy"
    assert (swept.early, swept.degraded) == (1, 0)


@pytest.mark.poisoned("an id is no text")
async def test_an_id_that_is_no_text_never_stops_the_sweep(store: Store, raw: redis.Redis) -> None:
    """No registration makes one, but anybody with a Redis client can; nobody would ever expire again."""
    await register(store, "a")
    raw.zadd(DEADLINES, {b"\xff\xfe": 1})
    raw.zadd(DEADLINES, {"a": 2})

    assert "a" in await store.sweeps.overdue()
