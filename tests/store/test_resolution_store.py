"""The stored data of resolution: loads, and a limited number of recent resolutions."""

import redis

from registry.store.agents import RegistrationWrite
from registry.store.store import Store


def registration(agent_id: str) -> RegistrationWrite:
    """Return a registration with a timeout of one minute and an eviction of two."""
    return RegistrationWrite(agent_id, b'{"endpoint":"http://a:1"}', timeout=60_000, eviction=120_000)


async def test_a_load_is_the_last_one_sent(store: Store, redis_client: redis.Redis) -> None:
    """Loads have the order of the ids; None without a load, for an invalid load and for an unknown agent."""
    await store.change_log.open()
    for agent_id in ("a", "b", "c"):
        await store.agents.register(registration(agent_id))
    await store.agents.heartbeat("a", load="0.5")
    await store.agents.heartbeat("a", "record", load="0.25")
    redis_client.hset("{mesh}:agent:c", "load", "high")

    assert await store.resolution_store.loads(["b", "a", "unknown", "c", "a"]) == [None, 0.25, None, None, 0.25]


async def test_the_last_resolutions_are_stored(store: Store) -> None:
    """The newest comes first, repeated digests are stored once, and ten are stored at most."""
    for digest in ("d1", "d1", "d2", "d1", "d3", "d4", "d5", "d6", "d7", "d8", "d9", "d0"):
        await store.resolution_store.save_resolution("a", digest, b'"%s"' % digest.encode())

    assert await store.resolution_store.recent_resolutions("a", 3) == [b'"d0"', b'"d9"', b'"d8"']
    assert len(await store.resolution_store.recent_resolutions("a", 100)) == 10
    assert await store.resolution_store.recent_resolutions("unknown", 3) == []
