"""The store as a whole: its parts share only the mesh, and closing loses no accepted call."""

import asyncio
import dataclasses
from collections import Counter

import pytest
import redis

from registry.config.settings import Settings
from registry.errors import StoreUnavailable
from registry.store.agents import RegistrationWrite
from registry.store.keys import Keys
from registry.store.redis.connection import RedisEndpoint, endpoint_from_url, in_memory_endpoint
from registry.store.store import Store
from tests.support.redis_server import RedisServer


def registration(agent_id: str) -> RegistrationWrite:
    """Return a minimal registration."""
    return RegistrationWrite(agent_id, b"{}", 60_000, 120_000)


async def test_it_opens_no_connection_by_itself(settings: Settings) -> None:
    """A server that is not running yet does not prevent the startup."""

    def connect() -> None:
        raise AssertionError

    store = Store(RedisEndpoint(connect), settings, lambda _script, _seconds: None)  # type: ignore[arg-type]
    await store.close()


async def test_closing_finishes_accepted_calls(settings: Settings, redis_url: str, redis_client: redis.Redis) -> None:
    """An accepted write is executed and gets its result."""
    store = Store(endpoint_from_url(redis_url), settings, lambda _script, _seconds: None)
    await store.change_log.open()
    writes = [asyncio.create_task(store.agents.register(registration(f"n{number}"))) for number in range(300)]
    await asyncio.sleep(0)

    await store.close()

    assert [(await write).outcome for write in writes] == ["created"] * 300
    assert redis_client.zcard("{mesh}:deadlines") == 300


async def test_an_interrupted_close_leaves_no_connection(settings: Settings, dedicated_redis: RedisServer) -> None:
    """The server hangs; an open socket would be a warning, and warnings are errors."""
    store = Store(endpoint_from_url(dedicated_redis.url), settings, lambda _script, _seconds: None)
    await store.change_log.open()
    await store.agents.register(registration("a"))
    dedicated_redis.pause()
    write = asyncio.ensure_future(store.agents.register(registration("b")))
    heartbeat = store.agents.heartbeat("a")
    await asyncio.sleep(0)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await store.close()
    dedicated_redis.resume()

    for accepted in (write, heartbeat):
        with pytest.raises(StoreUnavailable):
            await accepted
    assert {pipeline._connection for pipeline in store._pipelines} == {None}
    with pytest.raises(StoreUnavailable):
        await store.agents.edges_revision()


async def test_script_calls_are_observed(settings: Settings, redis_url: str) -> None:
    """Every part observes them with the name of the script."""
    seen: Counter[str] = Counter()
    store = Store(endpoint_from_url(redis_url), settings, lambda script, _seconds: seen.update([script]))

    await store.change_log.open()
    await store.agents.register(registration("a"))
    await store.agents.heartbeat("a")
    _, lock = await store.leadership.acquire("")
    await store.leadership.renew(lock)
    await store.sweeps.sweep(["a"], lock.epoch)
    await store.server_health.probe()
    await store.agents.unregister("a")
    await store.close()

    assert set(seen) == {
        "init_log",
        "register",
        "heartbeat",
        "leader_acquire",
        "leader_renew",
        "sweep",
        "probe",
        "unregister",
    }


async def test_the_lock_names_this_replica(settings: Settings, store: Store) -> None:
    """The name is the one in its settings."""
    _, lock = await store.leadership.acquire("")

    assert lock.instance == settings.instance_id


async def test_two_meshes_on_one_server_are_separate(
    settings: Settings, redis_url: str, redis_client: redis.Redis
) -> None:
    """Each has its own versions, agents and log."""
    server = endpoint_from_url(redis_url)
    one, other = (
        Store(server, dataclasses.replace(settings, mesh=name), lambda _script, _seconds: None)
        for name in ("mesh", "other")
    )
    for store in (one, other):
        await store.change_log.open()
    await one.agents.register(registration("a"))

    assert [held async for some in other.change_log.scan() for held in some] == []
    assert {str(key) for key in redis_client.scan_iter("{other}:*")} == {
        "{other}:version",
        "{other}:timeline",
        "{other}:log",
    }
    for store in (one, other):
        await store.close()
    redis_client.delete(*redis_client.scan_iter("{other}:*"))


def test_all_keys_are_in_one_slot() -> None:
    """They share one hash tag, for any agent id."""
    keys = Keys("prod")

    everything = [*keys.shared.values(), keys.agent("a"), keys.agent("a{b}c"), keys.agent("x:y")]
    assert all(key.startswith(b"{prod}:") for key in everything)
    assert len(set(everything)) == len(everything)


async def test_a_store_in_memory_supports_all_operations(settings: Settings) -> None:
    """It does not persist them; it is the last resort if no server runs."""
    store = Store(in_memory_endpoint(), settings, lambda _script, _seconds: None)
    position = await store.change_log.open()
    await store.agents.register(registration("a"))
    await store.agents.heartbeat("a")
    _, lock = await store.leadership.acquire("")
    await store.server_health.probe()

    last_heartbeats = await store.agents.last_heartbeats(["a"])
    assert last_heartbeats.times[0] is not None
    assert (await store.sweeps.find_work()).ids == []
    swept = await store.sweeps.sweep(["a"], lock.epoch)
    assert swept is not None
    assert swept.not_due == 1
    assert [one.agent.id async for some in store.change_log.scan() for one in some] == ["a"]
    assert len((await store.change_log.read_since(position.version)).changes) == 2
    assert await store.server_health.totals() == {"registrations": 1, "heartbeats": 1}
    assert await store.agents.unregister("a")
    assert await store.leadership.resign(lock)
    await store.close()


@pytest.mark.parametrize("observed", ["heartbeat", "register"])
async def test_writes_of_one_kind_do_not_wait_for_the_other(observed: str, settings: Settings, redis_url: str) -> None:
    """Each kind has its own pipeline."""
    store = Store(endpoint_from_url(redis_url), settings, lambda _script, _seconds: None)
    pipeline = store.agents._write_pipeline if observed == "heartbeat" else store.agents._heartbeat_pipeline
    await store.change_log.open()

    async with pipeline._lock:
        if observed == "heartbeat":
            assert (await store.agents.heartbeat("a")).outcome == "unknown_agent"
        else:
            assert (await store.agents.register(registration("a"))).outcome == "created"
    await store.close()
