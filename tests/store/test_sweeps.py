"""Sweeps: finding overdue agents, and transitions under the fencing epoch."""

import asyncio
import contextlib
from typing import Any

import pytest
import redis

from registry.errors import StoreUnavailable
from registry.store.agents import RegistrationWrite
from registry.store.store import Store
from registry.store.sweeps import Release, StaleEpochError, SweepResult, SweepWork
from tests.support.server_time import clear_outage, make_overdue
from tests.support.server_time import server_time_ms as now

DEADLINES = "{mesh}:deadlines"


@pytest.fixture(autouse=True)
def _no_outage(redis_client: redis.Redis) -> None:
    clear_outage(redis_client)


async def register(store: Store, *names: str) -> None:
    """Open the log and register these agents."""
    await store.change_log.open()
    await asyncio.gather(*(store.agents.register(RegistrationWrite(name, b"{}", 60_000, 120_000)) for name in names))


async def test_the_longest_overdue_agents_come_first(store: Store, redis_client: redis.Redis) -> None:
    """Agents with a deadline in the future are not included."""
    await register(store, *"abcd")
    redis_client.zadd(
        DEADLINES, {"a": now(redis_client) - 100, "b": now(redis_client) - 300, "c": now(redis_client) - 200}
    )

    assert (await store.sweeps.find_work()).ids == ["b", "c", "a"]


async def test_an_empty_mesh_has_no_overdue_agents(store: Store) -> None:
    """This is no error."""
    assert (await store.sweeps.find_work()).ids == []


async def test_the_work_is_limited_to_one_sweep(store: Store, redis_client: redis.Redis) -> None:
    """The rest follows after the first sweep."""
    names = [f"n{number:03}" for number in range(250)]
    await register(store, *names)
    redis_client.zadd(DEADLINES, {name: now(redis_client) - 1000 + at for at, name in enumerate(names)})

    first = (await store.sweeps.find_work()).ids
    await store.sweeps.sweep(first, 0)

    assert first == names[:200]
    assert (await store.sweeps.find_work()).ids == names[200:]


async def test_a_sweep_returns_the_number_of_each_outcome(store: Store, redis_client: redis.Redis) -> None:
    """The outcomes are those of the script."""
    await register(store, *"abcd")
    redis_client.hset("{mesh}:agent:b", "status", "degraded")
    redis_client.hset("{mesh}:agent:c", "status", "expired")
    redis_client.zadd(DEADLINES, dict.fromkeys(["a", "b", "c", "orphan"], now(redis_client) - 10))

    swept = await store.sweeps.sweep(["a", "b", "c", "d", "orphan"], 0)

    assert swept == SweepResult(
        degraded=1, expired=1, removed=1, not_due=1, orphaned=1, bad_record=0, grace_granted=0, suspended=0
    )
    assert redis_client.hmget("{mesh}:agent:a", "status") == ["degraded"]
    assert not redis_client.exists("{mesh}:agent:c")


async def test_the_retention_is_that_of_the_settings(store: Store, redis_client: redis.Redis) -> None:
    """An expired agent stays for that time: four seconds in tests."""
    await register(store, "a")
    redis_client.hset("{mesh}:agent:a", "status", "degraded")
    redis_client.zadd(DEADLINES, {"a": now(redis_client) - 10})

    started = now(redis_client)
    await store.sweeps.sweep(["a"], 0)

    deadline = redis_client.zscore(DEADLINES, "a")
    assert deadline is not None
    assert started + 4000 <= int(deadline) <= now(redis_client) + 4000


async def test_a_stale_epoch_is_rejected(store: Store, redis_client: redis.Redis) -> None:
    """A replica that has lost the leadership writes nothing; the error names both epochs."""
    await register(store, "a")
    redis_client.set("{mesh}:epoch", "8")
    redis_client.zadd(DEADLINES, {"a": now(redis_client) - 10})

    with pytest.raises(StaleEpochError, match=r"Epoch 7 is outdated; the current epoch is 8"):
        await store.sweeps.sweep(["a"], 7)

    assert (await store.sweeps.find_work()).ids == ["a"]


async def test_the_epoch_is_0_without_a_leader(store: Store, redis_client: redis.Redis) -> None:
    """A replica without leader election sweeps with the epoch it reads."""
    assert await store.sweeps.epoch() == 0
    redis_client.set("{mesh}:epoch", "8")
    assert await store.sweeps.epoch() == 8


async def test_a_heartbeat_before_the_sweep_prevents_a_transition(store: Store, redis_client: redis.Redis) -> None:
    """The script checks the deadline again."""
    await register(store, "a")
    redis_client.zadd(DEADLINES, {"a": now(redis_client) - 10})
    overdue = (await store.sweeps.find_work()).ids

    heartbeat = await store.agents.heartbeat("a")
    swept = await store.sweeps.sweep(overdue, 0)

    assert heartbeat.outcome == "healthy"
    assert (swept.not_due, swept.degraded) == (1, 0)


@pytest.mark.leaves_damaged_data("an id is no text")
async def test_an_id_that_is_not_text_does_not_stop_the_sweep(store: Store, redis_client: redis.Redis) -> None:
    """Only another Redis client can write it; no agent would ever expire again."""
    await register(store, "a")
    redis_client.zadd(DEADLINES, {b"\xff\xfe": 1})
    redis_client.zadd(DEADLINES, {"a": 2})

    assert "a" in (await store.sweeps.find_work()).ids


async def test_the_work_includes_self_preservation_and_a_clock_rollback(
    store: Store, redis_client: redis.Redis
) -> None:
    """The leader then sweeps even without overdue agents."""
    assert await store.sweeps.find_work() == SweepWork([], self_preservation=False, clock_rollback="")
    redis_client.hset("{mesh}:self_preservation", "n", "1 2 - - 3 4")
    redis_client.set("{mesh}:clock_rollback", "123")

    assert await store.sweeps.find_work() == SweepWork([], self_preservation=True, clock_rollback="123")


async def suspended_agents(store: Store, redis_client: redis.Redis, namespace: str, count: int = 20) -> list[str]:
    """Register agents of a namespace, and let self-preservation suspend them; return their ids."""
    names = [f"{namespace}{number}" for number in range(count)]
    await store.change_log.open()
    await asyncio.gather(
        *(store.agents.register(RegistrationWrite(name, b"{}", 60_000, 120_000, namespace=namespace)) for name in names)
    )
    await asyncio.gather(*map(store.agents.heartbeat, names))
    make_overdue(redis_client, *names)
    assert (await store.sweeps.sweep(names, 0)).suspended == count
    return names


async def test_agents_are_suspended_until_self_preservation_ends(store: Store, redis_client: redis.Redis) -> None:
    """Then they are released, and degraded by the next sweep; only the first call ends self-preservation."""
    assert not await store.sweeps.end_self_preservation()
    names = await suspended_agents(store, redis_client, "n")
    assert (await store.sweeps.find_work()).ids == []
    assert await store.sweeps.update_self_preservation(0) == Release(0, None)

    assert await store.sweeps.end_self_preservation() == 1
    assert await store.sweeps.end_self_preservation() == 0
    assert await store.sweeps.update_self_preservation(0) == Release(20, None)
    assert (await store.sweeps.find_work()).ids == sorted(names)

    assert (await store.sweeps.sweep(names, 0)).degraded == 20


async def test_self_preservation_ends_for_one_namespace_or_all(store: Store, redis_client: redis.Redis) -> None:
    """A namespace without it is no error."""
    for namespace in ("m", "n", "o"):
        await suspended_agents(store, redis_client, namespace)

    assert await store.sweeps.end_self_preservation("n") == 1
    assert await store.sweeps.end_self_preservation("n") == 0
    assert (await store.sweeps.update_self_preservation(0)).agents == 20
    assert await store.sweeps.end_self_preservation() == 2
    assert (await store.sweeps.update_self_preservation(0)).agents == 40


async def test_more_periods_than_one_call_updates_are_all_updated(store: Store, redis_client: redis.Redis) -> None:
    """A scan returns some of them at a time."""
    periods: dict[Any, Any] = {f"n{number}": "1 2 2 1 3 4" for number in range(900)}
    redis_client.hset("{mesh}:self_preservation", mapping=periods)
    redis_client.zadd("{mesh}:protected", dict.fromkeys(periods, -1))

    for _ in range(20):
        await store.sweeps.update_self_preservation(0)

    assert not redis_client.exists("{mesh}:self_preservation", "{mesh}:protected")


async def test_a_release_continues_where_it_ended(store: Store, redis_client: redis.Redis) -> None:
    """One call releases about a thousand agents."""
    agents = {f"a{number}": 1 for number in range(2500)}
    redis_client.zadd("{mesh}:suspended", agents)
    redis_client.zadd("{mesh}:missing", {f"suspended n {1:015} {name}": 0 for name in agents})

    first = await store.sweeps.release(0, "")
    second = await store.sweeps.release(0, first.after or "")
    third = await store.sweeps.release(0, second.after or "")

    assert (first, second, third) == (Release(1000, ""), Release(1000, ""), Release(500, None))
    assert redis_client.zcard(DEADLINES) == 2500
    redis_client.delete(DEADLINES)


async def test_a_scan_returns_every_agent(store: Store, redis_client: redis.Redis) -> None:
    """It returns some at a time, each at least once."""
    names = {f"n{number}" for number in range(1000)}
    redis_client.zadd(DEADLINES, dict.fromkeys(names, now(redis_client)))

    cursor, ids = await store.sweeps.scan_agents(None)
    scanned, calls = {*ids}, 1
    while cursor is not None:
        cursor, ids = await store.sweeps.scan_agents(cursor)
        scanned, calls = scanned | {*ids}, calls + 1
    redis_client.delete(DEADLINES)

    assert scanned == names
    assert calls > 1


async def test_a_scan_on_another_connection_starts_again(store: Store, redis_client: redis.Redis) -> None:
    """The connection may lead to another server, where the cursor has no meaning."""
    names = {f"n{number}" for number in range(1000)}
    redis_client.zadd(DEADLINES, dict.fromkeys(names, now(redis_client)))
    _, first = await store.sweeps.scan_agents(None)
    cursor, _ = await store.sweeps.scan_agents(None)
    redis_client.client_kill_filter(_type="normal", skipme=True)

    with contextlib.suppress(StoreUnavailable):  # if the call detects the end of the connection
        await store.sweeps.scan_agents(cursor)
    _, ids = await store.sweeps.scan_agents(cursor)
    redis_client.delete(DEADLINES)

    assert ids == first


async def test_a_clock_rollback_is_repaired_in_calls_of_two_hundred(store: Store, redis_client: redis.Redis) -> None:
    """One scan step may return more agents; the call with the last of them ends the repair."""
    names = [f"n{number}" for number in range(450)]
    await register(store, *names)
    hour = now(redis_client) + 3_600_000
    redis_client.zadd(DEADLINES, dict.fromkeys(names, hour))
    redis_client.set("{mesh}:clock_rollback", now(redis_client))
    rollback = (await store.sweeps.find_work()).clock_rollback

    assert await store.sweeps.repair_clock_rollback(names[:250], rollback, 0, is_last=False)
    assert redis_client.zcount(DEADLINES, hour, "+inf") == 200
    assert await store.sweeps.repair_clock_rollback(names[250:], rollback, 0, is_last=True)

    assert redis_client.zcount(DEADLINES, hour, "+inf") == 0
    assert (await store.sweeps.find_work()).clock_rollback == ""
    assert not await store.sweeps.repair_clock_rollback([], rollback, 0, is_last=True)
    redis_client.set("{mesh}:epoch", "8")
    with pytest.raises(StaleEpochError):
        await store.sweeps.repair_clock_rollback([], rollback, 0, is_last=True)
