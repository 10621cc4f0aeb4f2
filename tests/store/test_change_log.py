"""The change log: where it stands, what came since, and the whole state it leads to."""

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
from registry.store.store import Store
from tests.support.faulty_tcp_proxy import FaultyTcpProxy

LOG = "{mesh}:log"


async def register(store: Store, *names: str) -> list[int]:
    """Register these agents and return their versions."""
    registered = (store.agents.register(RegistrationWrite(name, b"{}", 60_000, 120_000)) for name in names)
    return [one.version for one in await asyncio.gather(*registered)]


async def scanned(changes: ChangeLog) -> dict[str, StoredAgent]:
    """Return every agent a scan gives, by id."""
    return {one.agent.id: one async for some in changes.scan() for one in some}


@pytest.fixture
async def opened(store: Store) -> LogPosition:
    """Where the mesh stands after its history was opened."""
    return await store.change_log.open()


async def test_opening_an_empty_store_begins_a_history(store: Store, raw: redis.Redis) -> None:
    """Its log has one entry, `begin`, which a watch can start from."""
    position = await store.change_log.open()

    pulled = await store.change_log.read_since(position.version)
    assert position == LogPosition(int(raw.get("{mesh}:version") or 0), str(raw.get("{mesh}:timeline")))
    assert len(position.timeline) == 16
    assert LogPosition(pulled.version, pulled.timeline) == position
    assert (pulled.contiguous, pulled.changes) == (True, ())


async def test_opening_a_store_again_finds_the_same_history(store: Store, opened: LogPosition) -> None:
    """At the version it has reached."""
    (version,) = await register(store, "a")

    assert await store.change_log.open() == LogPosition(version, opened.timeline)


@pytest.mark.poisoned("what remains of the log leads nowhere")
@pytest.mark.parametrize("lost", ["version", "timeline", "log"])
async def test_a_history_of_which_something_is_lost_is_another_one(
    lost: str, store: Store, opened: LogPosition, raw: redis.Redis
) -> None:
    """And its version is higher than any before."""
    (version,) = await register(store, "a")
    raw.delete(f"{{mesh}}:{lost}")

    position = await store.change_log.open()

    assert position.timeline != opened.timeline
    assert position.version > version


async def test_a_pull_gives_what_came_after_an_entry(store: Store, opened: LogPosition) -> None:
    """In order, each following the one before it."""
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


async def test_a_long_log_comes_in_parts(store: Store, opened: LogPosition) -> None:
    """A pull that is not whole says so by its version."""
    for at in range(0, 1000, 100):
        await register(store, *(f"n{number}" for number in range(at, at + 100)))
    (last,) = await register(store, "last")

    pulled = await store.change_log.read_since(opened.version)
    rest = await store.change_log.read_since(pulled.changes[-1].version)

    assert pulled.version == last > pulled.changes[-1].version
    assert [change.version for change in pulled.changes + rest.changes][-1] == last
    assert rest.version == last


@pytest.mark.poisoned("the log is trimmed by hand")
async def test_an_entry_that_was_trimmed_is_not_held(store: Store, opened: LogPosition, raw: redis.Redis) -> None:
    """What came after it may be incomplete, so nothing of it is given."""
    (version,) = await register(store, "a")
    raw.xtrim(LOG, maxlen=1, approximate=False)

    trimmed = await store.change_log.read_since(opened.version)

    assert (trimmed.contiguous, trimmed.changes, trimmed.version) == (False, (), version)
    assert (await store.change_log.read_since(version)).contiguous


async def test_an_entry_that_never_was_is_not_held(store: Store, opened: LogPosition) -> None:
    """Neither between two entries nor beyond the last."""
    (version,) = await register(store, "a")

    assert not (await store.change_log.read_since(opened.version - 1)).contiguous
    assert not (await store.change_log.read_since(version + 1)).contiguous


async def test_an_empty_server_has_version_0_and_no_history(
    store: Store, opened: LogPosition, raw: redis.Redis
) -> None:
    """As after FLUSHALL: the reader sees another history."""
    raw.flushall()

    pulled = await store.change_log.read_since(opened.version)

    assert (pulled.version, pulled.timeline, pulled.contiguous) == (0, "", False)


async def test_a_new_connection_holds_nothing(store: Store, opened: LogPosition) -> None:
    """Behind it may stand a server with another past under the same numbers; opening makes sure."""
    assert (await store.change_log.read_since(opened.version)).contiguous
    await store.change_log._pipeline._disconnect()

    assert not (await store.change_log.read_since(opened.version)).contiguous
    assert await store.change_log.open() == opened
    assert (await store.change_log.read_since(opened.version)).contiguous


async def test_a_scan_gives_every_agent_with_its_last_heartbeat(store: Store, opened: LogPosition) -> None:
    """Over as many slices as it takes."""
    del opened
    names = [f"n{number}" for number in range(1200)]
    for at in range(0, 1200, 200):
        await register(store, *names[at : at + 200])
    beat = await store.agents.heartbeat("n7")

    held = await scanned(store.change_log)

    assert set(held) == set(names)
    assert held["n7"].heartbeat == beat.now
    assert held["n7"].agent.status == "healthy"
    assert held["n8"].heartbeat is None


async def test_a_scan_of_nothing_is_empty(store: Store, opened: LogPosition) -> None:
    """And ends."""
    del opened

    assert await scanned(store.change_log) == {}


async def test_a_scan_and_the_log_tell_the_same(store: Store, opened: LogPosition) -> None:
    """What the log says of an agent at last is what its hash says."""
    await register(store, "a", "b", "c")
    await asyncio.gather(*map(store.agents.heartbeat, "ab"))
    await store.agents.unregister("b")

    changes = (await store.change_log.read_since(opened.version)).changes
    told: dict[str, Change] = {change.agent.id: change for change in changes if change.agent is not None}
    alive = {name: change.agent for name, change in told.items() if change.kind != "remove"}
    assert alive == {name: one.agent for name, one in (await scanned(store.change_log)).items()}


@pytest.mark.poisoned("records are damaged")
async def test_a_damaged_record_never_hides_the_others(store: Store, opened: LogPosition, raw: redis.Redis) -> None:
    """Another type, a field missing, a spec that is no JSON, a deadline without an agent."""
    del opened
    await register(store, *"abcd")
    raw.set("{mesh}:agent:a", "not a hash")
    raw.hdel("{mesh}:agent:b", "status")
    raw.hset("{mesh}:agent:c", "spec", "{not json")
    raw.zadd("{mesh}:deadlines", {"nobody": 1})

    assert set(await scanned(store.change_log)) == {"d"}


@pytest.mark.poisoned("an id is no text")
async def test_an_id_that_is_no_text_never_hides_the_others(
    store: Store, opened: LogPosition, raw: redis.Redis
) -> None:
    """No registration makes one, but anybody with a Redis client can; the cache would never fill again."""
    del opened
    await register(store, "a")
    raw.zadd("{mesh}:deadlines", {b"\xff\xfe": 1})

    assert set(await scanned(store.change_log)) == {"a"}


@pytest.mark.poisoned("a log entry is damaged")
async def test_what_follows_a_damaged_entry_is_not_given(store: Store, opened: LogPosition, raw: redis.Redis) -> None:
    """The gap makes the reader start over from the hashes."""
    (first,) = await register(store, "a")
    raw.xadd(LOG, {"kind": "surprise", "prev": str(first)}, id=f"{first + 1}-0")
    raw.set("{mesh}:version", str(first + 1))
    await register(store, "b")

    pulled = await store.change_log.read_since(opened.version)

    assert [change.version for change in pulled.changes] == [first]
    assert pulled.version > first + 1


@pytest.fixture
async def through(redis_url: str) -> AsyncIterator[tuple[FaultyTcpProxy, ChangeLog]]:
    """A log read through a proxy."""
    async with FaultyTcpProxy(redis_url) as proxy:
        link = Pipeline(endpoint_from_url(proxy.url).connect, timeout=0.2)
        yield proxy, ChangeLog(Keys("mesh"), 1000, link)
        await link.close()


async def test_a_scan_that_loses_its_connection_fails(store: Store, through: tuple[FaultyTcpProxy, ChangeLog]) -> None:
    """Half a mesh is no mesh."""
    proxy, changes = through
    await changes.open()
    await register(store, "a")
    proxy.cut_replies = 1

    with pytest.raises(StoreUnavailable):
        await scanned(changes)


async def test_a_pull_is_never_answered_by_the_one_before_it(
    store: Store, through: tuple[FaultyTcpProxy, ChangeLog]
) -> None:
    """One that was given up leaves its reply to nobody."""
    proxy, changes = through
    position = await changes.open()
    proxy.swallow_replies = True
    with pytest.raises(StoreUnavailable):
        await changes.read_since(position.version)
    proxy.swallow_replies = False
    (version,) = await register(store, "a")

    assert (await changes.read_since(position.version)).version == version
