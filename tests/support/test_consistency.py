"""The consistency check detects each kind of damage."""

from collections.abc import Callable, Iterator

import pytest
import redis

from registry.store.agents import RegistrationWrite
from registry.store.store import Store
from tests.support.consistency import find_inconsistencies

Damage = Callable[[redis.Redis], object]


@pytest.fixture
def bytes_client(redis_url: str) -> Iterator[redis.Redis]:
    """A client that does not decode replies."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


async def fill(store: Store) -> None:
    """Create a mesh of two agents, one of which sends heartbeats."""
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


async def test_a_mesh_written_by_scripts_is_consistent(store: Store, bytes_client: redis.Redis) -> None:
    """An empty server is consistent, too."""
    assert find_inconsistencies(bytes_client) == []
    await fill(store)
    assert find_inconsistencies(bytes_client) == []
    await store.agents.unregister("a")
    assert find_inconsistencies(bytes_client) == []
    await store.agents.unregister("b")
    assert find_inconsistencies(bytes_client) == []


@pytest.mark.leaves_damaged_data("the damage is the input of the test")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda client: client.set("{mesh}:leftover", "x"), "unknown keys"),
        (lambda client: client.set("elsewhere", "x"), "unknown keys"),
        (lambda client: client.zrem("{mesh}:deadlines", "a"), "agents without a deadline"),
        (lambda client: client.delete("{mesh}:agent:a", "{mesh}:heartbeats"), "deadlines without an agent"),
        (lambda client: client.zadd("{mesh}:heartbeats", {"c": 1}), "heartbeats without an agent"),
        (lambda client: client.zadd("{mesh}:unhealthy_since", {"c": 1}), "unhealthy agents without a heartbeat"),
        (
            lambda client: client.zadd("{mesh}:unhealthy_since", {"a": 1}),
            "healthy or pending agents in unhealthy_since",
        ),
        (lambda client: client.hincrby("{mesh}:required_edges", "c%20d e", 1), "required edges are counted"),
        (lambda client: client.hdel("{mesh}:required_edges", "c%20d e"), "required edges are counted"),
        (lambda client: client.hset("{mesh}:required_edges", "x y", "1"), "required edges are counted"),
        (lambda client: client.hdel("{mesh}:agent:b", "required_edges"), "required edges are counted"),
        (lambda client: client.zincrby("{mesh}:healthy_by_namespace", 1, "n"), "healthy agents are counted"),
        (lambda client: client.zadd("{mesh}:missing", {"suspended n 1 a": 0}), "agents that miss heartbeats"),
        (lambda client: client.zadd("{mesh}:suspended", {"a": 1}), "suspended agents with a deadline"),
        (lambda client: client.incr("{mesh}:version"), "the log ends at"),
        (lambda client: client.xdel("{mesh}:log", client.xrange("{mesh}:log")[1][0]), "but the entry before it is"),
    ],
)
async def test_each_damage_is_reported(damage: Damage, message: str, store: Store, bytes_client: redis.Redis) -> None:
    """A damage may have several messages."""
    await fill(store)

    damage(bytes_client)

    found = find_inconsistencies(bytes_client)
    assert [each for each in found if message in each], found
