"""Who is overdue, and moving them on under the fencing epoch."""

import asyncio
import contextlib

import pytest
import redis

from registry.errors import StoreUnavailable
from registry.store.agents import RegistrationWrite
from registry.store.store import Store
from registry.store.sweeps import StaleEpochError, SweepResult, SweepWork
from tests.support.server_time import clear_outage, make_overdue
from tests.support.server_time import server_time_ms as now

DEADLINES = "{mesh}:deadlines"


@pytest.fixture(autouse=True)
def _pulsed(raw: redis.Redis) -> None:
    clear_outage(raw)


async def register(store: Store, *names: str) -> None:
    """Register these agents in an open history."""
    await store.change_log.open()
    await asyncio.gather(*(store.agents.register(RegistrationWrite(name, b"{}", 60_000, 120_000)) for name in names))


async def test_the_overdue_come_longest_first(store: Store, raw: redis.Redis) -> None:
    """Those whose deadline lies ahead do not."""
    await register(store, *"abcd")
    raw.zadd(DEADLINES, {"a": now(raw) - 100, "b": now(raw) - 300, "c": now(raw) - 200})

    assert (await store.sweeps.find_work()).ids == ["b", "c", "a"]


async def test_nobody_is_overdue_in_an_empty_mesh(store: Store) -> None:
    """Nor is that an error."""
    assert (await store.sweeps.find_work()).ids == []


async def test_at_most_a_sweeps_worth_comes_at_once(store: Store, raw: redis.Redis) -> None:
    """The rest is found when these are gone."""
    names = [f"n{number:03}" for number in range(250)]
    await register(store, *names)
    raw.zadd(DEADLINES, {name: now(raw) - 1000 + at for at, name in enumerate(names)})

    first = (await store.sweeps.find_work()).ids
    await store.sweeps.sweep(first, 0)

    assert first == names[:200]
    assert (await store.sweeps.find_work()).ids == names[200:]


async def test_a_sweep_counts_what_became_of_each(store: Store, raw: redis.Redis) -> None:
    """By the words of the script."""
    await register(store, *"abcd")
    raw.hset("{mesh}:agent:b", "status", "degraded")
    raw.hset("{mesh}:agent:c", "status", "expired")
    raw.zadd(DEADLINES, dict.fromkeys(["a", "b", "c", "nobody"], now(raw) - 10))

    swept = await store.sweeps.sweep(["a", "b", "c", "d", "nobody"], 0)

    assert swept == SweepResult(degraded=1, expired=1, removed=1, not_due=1, orphaned=1, bad_record=0, grace_granted=0)
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

    with pytest.raises(StaleEpochError, match=r"Epoch 7 is outdated; the current epoch is 8"):
        await store.sweeps.sweep(["a"], 7)

    assert (await store.sweeps.find_work()).ids == ["a"]


async def test_the_epoch_is_0_where_none_was_taken(store: Store, raw: redis.Redis) -> None:
    """A replica without leader election sweeps under whatever it reads."""
    assert await store.sweeps.epoch() == 0
    raw.set("{mesh}:epoch", "8")
    assert await store.sweeps.epoch() == 8


async def test_a_heartbeat_between_look_and_sweep_wins(store: Store, raw: redis.Redis) -> None:
    """The script checks the deadline again."""
    await register(store, "a")
    raw.zadd(DEADLINES, {"a": now(raw) - 10})
    overdue = (await store.sweeps.find_work()).ids

    beat = await store.agents.heartbeat("a")
    swept = await store.sweeps.sweep(overdue, 0)

    assert beat.outcome == "healthy"
    assert swept is not None
    assert (swept.not_due, swept.degraded) == (1, 0)


@pytest.mark.poisoned("an id is no text")
async def test_an_id_that_is_no_text_never_stops_the_sweep(store: Store, raw: redis.Redis) -> None:
    """No registration makes one, but anybody with a Redis client can; nobody would ever expire again."""
    await register(store, "a")
    raw.zadd(DEADLINES, {b"\xff\xfe": 1})
    raw.zadd(DEADLINES, {"a": 2})

    assert "a" in (await store.sweeps.find_work()).ids


async def test_what_is_due_tells_of_a_hold_and_of_a_clock_that_went_back(store: Store, raw: redis.Redis) -> None:
    """So that the leader calls even where nobody is overdue."""
    assert await store.sweeps.find_work() == SweepWork([], self_preservation=False, clock_rollback="")
    raw.hset("{mesh}:self_preservation", "until", "1")
    raw.set("{mesh}:clock_rollback", "123")

    assert await store.sweeps.find_work() == SweepWork([], self_preservation=True, clock_rollback="123")


async def test_a_mass_silence_is_held_until_it_is_released(store: Store, raw: redis.Redis) -> None:
    """A sweep then says None; a release is told once."""
    names = [f"n{number}" for number in range(20)]
    await register(store, *names)
    await asyncio.gather(*map(store.agents.heartbeat, names))
    make_overdue(raw, *names)
    assert not await store.sweeps.end_self_preservation()

    assert await store.sweeps.sweep(names, 0) is None
    assert await store.sweeps.end_self_preservation()
    assert not await store.sweeps.end_self_preservation()
    swept = await store.sweeps.sweep(names, 0)

    assert swept is not None
    assert swept.degraded == 20


async def test_a_walk_meets_every_agent(store: Store, raw: redis.Redis) -> None:
    """Some at a time, each at least once; then it is at its end."""
    names = {f"n{number}" for number in range(1000)}
    raw.zadd(DEADLINES, dict.fromkeys(names, now(raw)))

    cursor, ids = await store.sweeps.scan_agents(None)
    met, calls = {*ids}, 1
    while cursor is not None:
        cursor, ids = await store.sweeps.scan_agents(cursor)
        met, calls = met | {*ids}, calls + 1
    raw.delete(DEADLINES)

    assert met == names
    assert calls > 1


async def test_a_walk_on_another_connection_begins_anew(store: Store, raw: redis.Redis) -> None:
    """It may lead to another server, where a place in the middle means nothing."""
    names = {f"n{number}" for number in range(1000)}
    raw.zadd(DEADLINES, dict.fromkeys(names, now(raw)))
    _, first = await store.sweeps.scan_agents(None)
    cursor, _ = await store.sweeps.scan_agents(None)
    raw.client_kill_filter(_type="normal", skipme=True)

    with contextlib.suppress(StoreUnavailable):  # where the end of the connection is noticed by the call
        await store.sweeps.scan_agents(cursor)
    _, ids = await store.sweeps.scan_agents(cursor)
    raw.delete(DEADLINES)

    assert ids == first


async def test_times_are_set_right_in_calls_of_two_hundred(store: Store, raw: redis.Redis) -> None:
    """However many a walk meets at once; with the last of them the walk is over."""
    names = [f"n{number}" for number in range(450)]
    await register(store, *names)
    hour = now(raw) + 3_600_000
    raw.zadd(DEADLINES, dict.fromkeys(names, hour))
    raw.set("{mesh}:clock_rollback", now(raw))
    asked = (await store.sweeps.find_work()).clock_rollback

    assert await store.sweeps.repair_clock_rollback(names[:250], asked, 0, is_last=False)
    assert raw.zcount(DEADLINES, hour, "+inf") == 200
    assert await store.sweeps.repair_clock_rollback(names[250:], asked, 0, is_last=True)

    assert raw.zcount(DEADLINES, hour, "+inf") == 0
    assert (await store.sweeps.find_work()).clock_rollback == ""
    assert not await store.sweeps.repair_clock_rollback([], asked, 0, is_last=True)
    raw.set("{mesh}:epoch", "8")
    with pytest.raises(StaleEpochError):
        await store.sweeps.repair_clock_rollback([], asked, 0, is_last=True)
