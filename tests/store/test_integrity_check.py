"""The integrity check: it reports all inconsistent keys of a mesh, and the repair fixes them."""

import pytest
import redis

from registry.store.agents import RegistrationWrite
from registry.store.integrity_check import IntegrityReport, RepairResult
from registry.store.store import Store
from tests.support.builders import a_spec

AGENT = "{mesh}:agent:"


async def a_mesh(store: Store) -> None:
    """Register a few agents; two of them send a heartbeat."""
    await store.change_log.open()
    for agent_id in ("a", "b", "c", "*[x]?"):
        await store.agents.register(RegistrationWrite(agent_id, a_spec(agent_id), 60_000, 120_000))
    await store.agents.heartbeat("a")
    await store.agents.heartbeat("b")


async def test_a_consistent_mesh_has_no_problems(store: Store) -> None:
    """Unusual ids do not matter."""
    await a_mesh(store)

    found = await store.integrity.find_problems()

    assert found == IntegrityReport(agents=4)
    assert found.is_consistent


async def test_other_meshes_are_ignored(store: Store, redis_client: redis.Redis) -> None:
    """Other keys in the same Redis are ignored too."""
    await a_mesh(store)
    redis_client.set("{mesh}elsewhere:agent:z", "x")
    redis_client.hset("{other}:agent:a", "spec", "x")

    assert (await store.integrity.find_problems()).is_consistent
    redis_client.delete("{mesh}elsewhere:agent:z", "{other}:agent:a")


async def test_damaged_records_are_reported_and_repaired(store: Store, redis_client: redis.Redis) -> None:
    """Orphans and unreadable records are deleted, an agent without a deadline gets one, others stay."""
    await a_mesh(store)
    redis_client.zadd("{mesh}:deadlines", {"orphan": 1})
    redis_client.zadd("{mesh}:heartbeats", {"other orphan": 1})
    redis_client.zrem("{mesh}:deadlines", "a")
    redis_client.hset(f"{AGENT}b", "spec", "no JSON")
    redis_client.hdel(f"{AGENT}c", "version")
    redis_client.set(f"{AGENT}text", "no hash")
    version = redis_client.hget(f"{AGENT}b", "version")

    found = await store.integrity.find_problems()

    assert set(found.orphaned) == {"orphan", "other orphan"}
    assert found.without_deadline == ("a",)
    assert found.unreadable == {"b": version, "c": "", "text": ""}
    assert found.problems == ()
    assert await store.integrity.repair(found) == RepairResult(orphaned=2, deleted=3, rescheduled=1)
    assert await store.integrity.find_problems() == IntegrityReport(agents=2)


async def test_an_orphaned_edge_is_deleted(store: Store, redis_client: redis.Redis) -> None:
    """The key of its agent was overwritten, so its edges were never uncounted, and cycle checks were skipped."""
    await a_mesh(store)
    for agent_id, needed in (("d", "lost"), ("e", "kept"), ("f", "both")):
        edges, revision = frozenset({("c", needed), ("c", "both")}), await store.agents.edges_revision()
        await store.agents.register(
            RegistrationWrite(
                agent_id, a_spec(agent_id), 60_000, 120_000, required_edges=edges, edges_revision=revision
            )
        )
    redis_client.set(f"{AGENT}d", "no hash")

    found = await store.integrity.find_problems()

    assert (found.unreadable, found.orphaned_edges) == ({"d": ""}, ("c lost",))
    assert await store.integrity.repair(found) == RepairResult(orphaned=1, deleted=1, rescheduled=0)
    assert (await store.integrity.find_problems()).is_consistent
    for agent_id in ("e", "f"):
        await store.agents.unregister(agent_id)
    found = await store.integrity.find_problems()
    assert found.orphaned_edges == ("c both",), "it had been counted once too often, undetected while an agent had it"
    await store.integrity.repair(found)


async def test_a_wrong_number_of_healthy_agents_is_corrected(store: Store, redis_client: redis.Redis) -> None:
    """The key of its agent was overwritten, so it stayed counted; another count was lost."""
    await a_mesh(store)
    await store.agents.register(RegistrationWrite("d", a_spec("d"), 60_000, 120_000, namespace="n"))
    await store.agents.heartbeat("d")
    redis_client.set(f"{AGENT}a", "no hash")
    redis_client.zrem("{mesh}:healthy_by_namespace", "n")
    redis_client.zincrby("{mesh}:healthy_by_namespace", 1, "gone")
    redis_client.zadd("{mesh}:missing", {f"suspended n {1:015} gone": 0})

    found = await store.integrity.find_problems()

    assert found.miscounted == {"default": -1, "n": 1, "gone": -1}
    assert found.orphaned_missing == (f"suspended n {1:015} gone",)
    await store.integrity.repair(found)
    assert (await store.integrity.find_problems()).is_consistent
    assert redis_client.zrange("{mesh}:healthy_by_namespace", 0, -1, withscores=True) == [("default", 1), ("n", 1)]


@pytest.mark.parametrize("missing", ["version", "timeline", "log"])
@pytest.mark.leaves_damaged_data("a key of the mesh is deleted")
async def test_a_mesh_that_lost_a_part_of_its_log_is_reported(
    store: Store, redis_client: redis.Redis, missing: str
) -> None:
    """The problem names the remaining keys."""
    await a_mesh(store)
    redis_client.delete(f"{{mesh}}:{missing}")

    (problem,) = (await store.integrity.find_problems()).problems

    assert "are inconsistent" in problem


async def test_an_empty_server_has_no_mesh(store: Store) -> None:
    """The check does not create one."""
    (problem,) = (await store.integrity.find_problems()).problems

    assert "REGISTRY_MESH" in problem
