"""The check after every test finds what it is there to find."""

from collections.abc import Callable, Iterator

import pytest
import redis

from registry.store.agents import RegistrationWrite
from registry.store.store import Store
from tests.support.consistency import find_inconsistencies

Damage = Callable[[redis.Redis], object]


@pytest.fixture
def bytes_client(redis_url: str) -> Iterator[redis.Redis]:
    """A client that does not decode."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


async def fill(store: Store) -> None:
    """A mesh of two agents, one of which sends heartbeats."""
    await store.change_log.open()
    await store.agents.register(RegistrationWrite("a", b"{}", 60_000, 120_000))
    await store.agents.register(
        RegistrationWrite(
            "b", b"{}", 60_000, 120_000, required_edges=frozenset({("c d", "e"), ("c d", "f")}), edges_revision="0"
        )
    )
    await store.agents.heartbeat("a")
    _, lock = await store.leadership.acquire("")
    await store.leadership.renew(lock)
    await store.server_health.probe()


async def test_a_mesh_that_was_written_by_scripts_is_consistent(store: Store, bytes_client: redis.Redis) -> None:
    """Whatever they did; and so is an empty server."""
    assert find_inconsistencies(bytes_client) == []
    await fill(store)
    assert find_inconsistencies(bytes_client) == []
    await store.agents.unregister("a")
    assert find_inconsistencies(bytes_client) == []
    await store.agents.unregister("b")
    assert find_inconsistencies(bytes_client) == []


@pytest.mark.poisoned("damaged, to be found")
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda client: client.set("{mesh}:leftover", "x"), "keys that no code should write"),
        (lambda client: client.set("elsewhere", "x"), "keys that no code should write"),
        (lambda client: client.zrem("{mesh}:deadlines", "a"), "agents without a deadline"),
        (lambda client: client.delete("{mesh}:agent:a", "{mesh}:heartbeats"), "deadlines without an agent"),
        (lambda client: client.zadd("{mesh}:heartbeats", {"c": 1}), "heartbeats without an agent"),
        (lambda client: client.zadd("{mesh}:unhealthy_since", {"c": 1}), "silent agents that were never heard"),
        (lambda client: client.zadd("{mesh}:unhealthy_since", {"a": 1}), "silent agents that are not"),
        (lambda client: client.hincrby("{mesh}:required_edges", "c%20d e", 1), "required dependencies are counted"),
        (lambda client: client.hdel("{mesh}:required_edges", "c%20d e"), "required dependencies are counted"),
        (lambda client: client.hset("{mesh}:required_edges", "x y", "1"), "required dependencies are counted"),
        (lambda client: client.hdel("{mesh}:agent:b", "required_edges"), "required dependencies are counted"),
        (lambda client: client.incr("{mesh}:version"), "the log ends at"),
        (lambda client: client.xdel("{mesh}:log", client.xrange("{mesh}:log")[1][0]), "but before it stands"),
    ],
)
async def test_each_damage_is_told(damage: Damage, told: str, store: Store, bytes_client: redis.Redis) -> None:
    """In a sentence of its own, and nothing else with it."""
    await fill(store)

    damage(bytes_client)

    (sentence,) = find_inconsistencies(bytes_client)
    assert told in sentence
