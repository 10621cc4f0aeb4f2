"""What wiring needs of the store: loads as they were told, and traces that end."""

import redis

from registry.store.agents import RegistrationWrite
from registry.store.store import Store


def registration(agent_id: str) -> RegistrationWrite:
    """A minute until degraded, two until expired."""
    return RegistrationWrite(agent_id, b'{"endpoint":"http://a:1"}', timeout=60_000, eviction=120_000)


async def test_a_load_is_what_was_told_last(store: Store, raw: redis.Redis) -> None:
    """In the order asked, None for who told none, and for what is no number or no hash."""
    await store.change_log.open()
    for agent_id in ("a", "b", "c"):
        await store.agents.register(registration(agent_id))
    await store.agents.heartbeat("a", load="0.5")
    await store.agents.heartbeat("a", "record", load="0.25")
    raw.hset("{mesh}:agent:c", "load", "high")

    assert await store.resolution_store.loads(["b", "a", "nobody", "c", "a"]) == [None, 0.25, None, None, 0.25]


async def test_a_trace_holds_the_last_resolutions(store: Store) -> None:
    """Newest first, each digest once in a row, ten at most."""
    for digest in ("d1", "d1", "d2", "d1", "d3", "d4", "d5", "d6", "d7", "d8", "d9", "d0"):
        await store.resolution_store.save_resolution("a", digest, b'"%s"' % digest.encode())

    assert await store.resolution_store.recent_resolutions("a", 3) == [b'"d0"', b'"d9"', b'"d8"']
    assert len(await store.resolution_store.recent_resolutions("a", 100)) == 10
    assert await store.resolution_store.recent_resolutions("nobody", 3) == []
