"""The change log: its position, the entries since a version, and a scan of the whole state."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis

from registry.errors import StoreUnavailable
from registry.model.agent import StoredAgent
from registry.model.change import Change, LogPosition
from registry.store.agents import RegistrationWrite
from registry.store.change_log import ChangeLog
from registry.store.keys import Keys
from registry.store.redis.connection import endpoint_from_url
from registry.store.redis.pipeline import Pipeline
from registry.store.seen_version import SeenVersion
from registry.store.store import Store
from tests.support.faulty_tcp_proxy import FaultyTcpProxy

LOG = "{mesh}:log"


async def register(store: Store, *names: str) -> list[int]:
    """Register these agents and return their versions."""
    registered = (store.agents.register(RegistrationWrite(name, b"{}", 60_000, 120_000)) for name in names)
    return [one.version for one in await asyncio.gather(*registered)]


async def scanned(changes: ChangeLog) -> dict[str, StoredAgent]:
    """Return all scanned agents by id."""
    return {one.agent.id: one async for some in changes.scan() for one in some}


@pytest.fixture
async def opened(store: Store) -> LogPosition:
    """Provide the position of the mesh after its log was opened."""
    return await store.change_log.open()


async def test_opening_an_empty_store_creates_a_timeline(store: Store, redis_client: redis.Redis) -> None:
    """Its log has one entry, from which a watch can start."""
    position = await store.change_log.open()

    pulled = await store.change_log.read_since(position.version)
    assert position == LogPosition(
        int(redis_client.get("{mesh}:version") or 0), str(redis_client.get("{mesh}:timeline"))
    )
    assert len(position.timeline) == 16
    assert LogPosition(pulled.version, pulled.timeline) == position
    assert (pulled.contiguous, pulled.changes) == (True, ())


async def test_opening_a_store_again_returns_the_same_timeline(store: Store, opened: LogPosition) -> None:
    """The position has the current version."""
    (version,) = await register(store, "a")

    assert await store.change_log.open() == LogPosition(version, opened.timeline)


@pytest.mark.leaves_damaged_data("what remains of the log leads nowhere")
@pytest.mark.parametrize("lost", ["version", "timeline", "log"])
async def test_a_log_that_lost_a_part_gets_another_timeline(
    lost: str, store: Store, opened: LogPosition, redis_client: redis.Redis
) -> None:
    """Its version is higher than all earlier ones."""
    (version,) = await register(store, "a")
    redis_client.delete(f"{{mesh}}:{lost}")

    position = await store.change_log.open()

    assert position.timeline != opened.timeline
    assert position.version > version


async def test_a_read_returns_the_entries_after_a_version(store: Store, opened: LogPosition) -> None:
    """They are in order, each following the one before it."""
    first = await register(store, "a", "b")
    await store.agents.heartbeat("a")

    pulled = await store.change_log.read_since(opened.version)
    later = await store.change_log.read_since(first[1])

    assert [change.kind for change in pulled.changes] == ["add", "add", "modify"]
    assert [change.prev for change in pulled.changes] == [opened.version, *first]
    assert pulled.version == later.version == pulled.changes[-1].version
    assert later.changes == pulled.changes[2:]
    recovered = pulled.changes[2]
    assert recovered.agent is not None
    assert (recovered.reason, recovered.agent.id, recovered.status_before) == ("first_heartbeat", "a", "pending")


async def test_a_long_log_is_read_in_parts(store: Store, opened: LogPosition) -> None:
    """The version of an incomplete read is that of its last entry."""
    for at in range(0, 1000, 100):
        await register(store, *(f"n{number}" for number in range(at, at + 100)))
    (last,) = await register(store, "last")

    pulled = await store.change_log.read_since(opened.version)
    rest = await store.change_log.read_since(pulled.changes[-1].version)

    assert pulled.version == last > pulled.changes[-1].version
    assert [change.version for change in pulled.changes + rest.changes][-1] == last
    assert rest.version == last


@pytest.mark.leaves_damaged_data("the log is trimmed by hand")
async def test_a_trimmed_entry_is_a_gap(store: Store, opened: LogPosition, redis_client: redis.Redis) -> None:
    """The entries after it may be incomplete, so none is returned."""
    (version,) = await register(store, "a")
    redis_client.xtrim(LOG, maxlen=1, approximate=False)

    trimmed = await store.change_log.read_since(opened.version)

    assert (trimmed.contiguous, trimmed.changes, trimmed.version) == (False, (), version)
    assert (await store.change_log.read_since(version)).contiguous


async def test_a_version_without_an_entry_is_a_gap(store: Store, opened: LogPosition) -> None:
    """It lies between two entries or after the last one."""
    (version,) = await register(store, "a")

    assert not (await store.change_log.read_since(opened.version - 1)).contiguous
    assert not (await store.change_log.read_since(version + 1)).contiguous


async def test_an_empty_server_has_version_0_and_no_timeline(
    store: Store, opened: LogPosition, redis_client: redis.Redis
) -> None:
    """The reader then detects another timeline, as after FLUSHALL."""
    redis_client.flushall()

    pulled = await store.change_log.read_since(opened.version)

    assert (pulled.version, pulled.timeline, pulled.contiguous) == (0, "", False)


async def test_a_new_connection_is_a_gap(store: Store, opened: LogPosition) -> None:
    """It may lead to a server with other changes under the same numbers; opening the log checks that."""
    assert (await store.change_log.read_since(opened.version)).contiguous
    await store.change_log._pipeline._disconnect()

    assert not (await store.change_log.read_since(opened.version)).contiguous
    assert await store.change_log.open() == opened
    assert (await store.change_log.read_since(opened.version)).contiguous


async def test_a_scan_returns_every_agent_with_its_last_heartbeat(store: Store, opened: LogPosition) -> None:
    """It reads as many slices as necessary."""
    del opened
    names = [f"n{number}" for number in range(1200)]
    for at in range(0, 1200, 200):
        await register(store, *names[at : at + 200])
    heartbeat = await store.agents.heartbeat("n7")

    held = await scanned(store.change_log)

    assert set(held) == set(names)
    assert held["n7"].heartbeat == heartbeat.now
    assert held["n7"].agent.status == "healthy"
    assert held["n8"].heartbeat is None


async def test_a_scan_of_an_empty_store_returns_nothing(store: Store, opened: LogPosition) -> None:
    """It ends at once."""
    del opened

    assert await scanned(store.change_log) == {}


async def test_a_scan_and_the_log_have_the_same_state(store: Store, opened: LogPosition) -> None:
    """The last entry of an agent equals its hash."""
    await register(store, "a", "b", "c")
    await asyncio.gather(*map(store.agents.heartbeat, "ab"))
    await store.agents.unregister("b")

    changes = (await store.change_log.read_since(opened.version)).changes
    logged: dict[str, Change] = {change.agent.id: change for change in changes if change.agent is not None}
    alive = {name: change.agent for name, change in logged.items() if change.kind != "remove"}
    assert alive == {name: one.agent for name, one in (await scanned(store.change_log)).items()}


@pytest.mark.leaves_damaged_data("records are damaged")
async def test_a_damaged_record_does_not_hide_the_others(
    store: Store, opened: LogPosition, redis_client: redis.Redis
) -> None:
    """The records have another type, a missing field, a spec that is not JSON, or a deadline without an agent."""
    del opened
    await register(store, *"abcd")
    redis_client.set("{mesh}:agent:a", "not a hash")
    redis_client.hdel("{mesh}:agent:b", "status")
    redis_client.hset("{mesh}:agent:c", "spec", "{not json")
    redis_client.zadd("{mesh}:deadlines", {"orphan": 1})

    assert set(await scanned(store.change_log)) == {"d"}


@pytest.mark.leaves_damaged_data("an id is no text")
async def test_an_id_that_is_not_text_does_not_hide_the_others(
    store: Store, opened: LogPosition, redis_client: redis.Redis
) -> None:
    """Only another Redis client can write it; the cache could then never be filled again."""
    del opened
    await register(store, "a")
    redis_client.zadd("{mesh}:deadlines", {b"\xff\xfe": 1})

    assert set(await scanned(store.change_log)) == {"a"}


@pytest.mark.leaves_damaged_data("a log entry is damaged")
async def test_entries_after_a_damaged_one_are_not_returned(
    store: Store, opened: LogPosition, redis_client: redis.Redis
) -> None:
    """The gap makes the reader scan the hashes."""
    (first,) = await register(store, "a")
    redis_client.xadd(LOG, {"kind": "surprise", "prev": str(first)}, id=f"{first + 1}-0")
    redis_client.set("{mesh}:version", str(first + 1))
    await register(store, "b")

    pulled = await store.change_log.read_since(opened.version)

    assert [change.version for change in pulled.changes] == [first]
    assert pulled.version > first + 1


@pytest.fixture
async def through(redis_url: str) -> AsyncIterator[tuple[FaultyTcpProxy, ChangeLog]]:
    """Provide a log that is read through a proxy."""
    async with FaultyTcpProxy(redis_url) as proxy:
        pipeline = Pipeline(endpoint_from_url(proxy.url).connect, timeout=0.2)
        yield proxy, ChangeLog(Keys("mesh"), 1000, SeenVersion(), pipeline)
        await pipeline.close()


async def test_a_scan_that_loses_its_connection_fails(store: Store, through: tuple[FaultyTcpProxy, ChangeLog]) -> None:
    """It does not return a part of the mesh."""
    proxy, changes = through
    await changes.open()
    await register(store, "a")
    proxy.cut_replies = 1

    with pytest.raises(StoreUnavailable):
        await scanned(changes)


async def test_a_read_does_not_get_the_reply_of_an_earlier_one(
    store: Store, through: tuple[FaultyTcpProxy, ChangeLog]
) -> None:
    """The reply to a cancelled read is dropped."""
    proxy, changes = through
    position = await changes.open()
    proxy.swallow_replies = True
    with pytest.raises(StoreUnavailable):
        await changes.read_since(position.version)
    proxy.swallow_replies = False
    (version,) = await register(store, "a")

    assert (await changes.read_since(position.version)).version == version
