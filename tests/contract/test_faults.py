"""Redis freezes, dies, loses data, or is changed by hand: no response is wrong, and the registry recovers at once."""

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import redis

from registry.config.settings import Settings
from registry.errors import StartupError
from registry.main import open_registry
from tests.support.in_process_registry import in_process_registry
from tests.support.polling import async_wait_until
from tests.support.redis_server import RedisServer

# Maximum seconds that a client waits for a response while Redis is unavailable.


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """Provide a Redis server of this test that persists every acknowledged write."""
    with RedisServer("--appendonly", "yes", "--appendfsync", "always") as running:
        yield running


def a_registration(agent_id: str, **fields: Any) -> dict[str, Any]:
    """Return the body of a registration."""
    return {"id": agent_id, "endpoint": "http://a:1", "capabilities": ["x"]} | fields


async def register(client: httpx2.AsyncClient, agent_id: str, **fields: Any) -> int:
    """Register an agent; return its version."""
    response = await client.post("/agents", json=a_registration(agent_id, **fields))
    assert response.status_code == 200, response.text
    return int(response.json()["resource_version"])


async def listed_ids(client: httpx2.AsyncClient, query: str = "") -> list[str]:
    """Return the ids of the listed agents."""
    response = await client.get(f"/agents{query}")
    assert response.status_code == 200, response.text
    return [agent["id"] for agent in response.json()["agents"]]


async def assert_unavailable(client: httpx2.AsyncClient) -> None:
    """Assert that every call that needs the store returns 503 with the next step."""
    responses = await asyncio.gather(
        client.post("/heartbeat", json={"agent_id": "a"}),
        client.post("/agents", json=a_registration("b")),
        client.post("/agents", json=a_registration("a", resource_version="1")),
        # Redis may execute it after the fault.
        client.delete("/agents/unknown"),
        client.get("/agents"),
        client.get("/agents/a"),
        client.get("/agents/unknown"),
        client.get("/capabilities"),
        client.get("/health/a"),
    )
    for response in responses:
        assert response.status_code == 503, response.text
        assert response.headers["retry-after"] == "1"
        assert response.json()["error"] == "store_unavailable"
        assert response.json()["outcome"] in ("not_sent", "unknown")


async def test_a_frozen_store_is_503_and_cached_reads_work(server: RedisServer) -> None:
    """Writes and fresh reads fail, cached reads and liveness work, and all calls recover after it."""
    async with in_process_registry(server.url) as client:
        await register(client, "a")
        await client.post("/heartbeat", json={"agent_id": "a"})
        await listed_ids(client)

        server.pause()
        try:
            await assert_unavailable(client)
            old = await client.get("/agents?resource_version=0")
            health, ready = await client.get("/health"), await client.get("/ready")
        finally:
            server.resume()
        await async_wait_until(lambda: _is_ready(client), description="the replica is ready again")

        assert [agent["id"] for agent in old.json()["agents"]] == ["a"]
        assert float(old.headers["x-registry-stale"]) > 0
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        assert ready.status_code == 503
        assert (await client.post("/heartbeat", json={"agent_id": "a"})).status_code == 200
        assert "a" in await listed_ids(client)


async def _is_ready(client: httpx2.AsyncClient) -> bool:
    return (await client.get("/ready")).status_code == 200


async def test_a_restarted_store_has_lost_nothing(server: RedisServer) -> None:
    """With AOF every acknowledged registration is stored, and the versions continue."""
    async with in_process_registry(server.url) as client:
        last = max([await register(client, f"a{number}") for number in range(20)])

        server.kill()
        await assert_unavailable(client)
        server.restart()
        await async_wait_until(lambda: _is_ready(client), description="the replica is ready again")

        assert len(await listed_ids(client)) == 20
        assert await register(client, "late") > last


async def test_a_flushed_store_is_another_timeline(server: RedisServer) -> None:
    """After FLUSHALL the agents are unknown, versions rise above all earlier ones, and the timeline has another id."""
    async with in_process_registry(server.url) as client:
        before = await register(client, "a")
        timeline = (await client.get("/health")).json()["timeline"]
        with redis.Redis.from_url(server.url) as redis_client:
            redis_client.flushall()

        assert await listed_ids(client) == []
        assert (await client.post("/heartbeat", json={"agent_id": "a"})).status_code == 404
        assert await register(client, "a") > before
        assert (await client.get("/health")).json()["timeline"] != timeline


async def test_flushed_scripts_cause_no_errors_under_load(server: RedisServer) -> None:
    """SCRIPT FLUSH runs repeatedly during registrations and heartbeats; no call fails."""
    async with in_process_registry(server.url) as client:
        await register(client, "a")
        with redis.Redis.from_url(server.url) as redis_client:
            for round_number in range(20):
                redis_client.script_flush()
                responses = await asyncio.gather(
                    *(client.post("/heartbeat", json={"agent_id": "a"}) for _ in range(10)),
                    *(client.post("/agents", json=a_registration(f"a{round_number}-{n}")) for n in range(10)),
                )
                assert {response.status_code for response in responses} == {200}

        assert len(await listed_ids(client)) == 201


async def test_a_trimmed_log_is_detected(server: RedisServer) -> None:
    """If the log is trimmed by hand, reads use a new fill and not a cache that missed changes."""
    async with in_process_registry(server.url) as client:
        await register(client, "a")
        with redis.Redis.from_url(server.url) as redis_client:
            await register(client, "b")
            redis_client.xtrim("{mesh}:log", maxlen=0)

        assert await listed_ids(client) == ["a", "b"]
        await register(client, "c")
        assert await listed_ids(client) == ["a", "b", "c"]


async def test_a_version_counter_raised_by_hand_does_not_block_reads(server: RedisServer) -> None:
    """A version without a log entry is a gap; opening the log again closes it."""
    async with in_process_registry(server.url) as client:
        await register(client, "a")
        with redis.Redis.from_url(server.url) as redis_client:
            redis_client.incrby("{mesh}:version", 5)

        assert await listed_ids(client) == ["a"]
        await register(client, "b")
        assert await listed_ids(client) == ["a", "b"]


async def test_a_lost_version_counter_is_raised_above_the_log(server: RedisServer) -> None:
    """Without the counter the log would reject lower ids; the next versions are above all earlier ones."""
    async with in_process_registry(server.url) as client:
        before = await register(client, "a")
        with redis.Redis.from_url(server.url) as redis_client:
            redis_client.delete("{mesh}:version")

        assert await listed_ids(client) == ["a"]
        assert await register(client, "b") > before
        assert await listed_ids(client) == ["a", "b"]


@pytest.mark.fault(25, "A record is damaged")
@pytest.mark.parametrize(
    "damage",
    [
        {"spec": "{"},
        {"status": "sleepy"},
        {"version": "many"},
        {"timeout": ""},
    ],
    ids=["spec", "status", "version", "timeout"],
)
async def test_one_damaged_record_does_not_hide_the_others(server: RedisServer, damage: dict[str, str]) -> None:
    """A replica that fills its cache leaves a damaged record out and returns the others."""
    async with in_process_registry(server.url) as client:
        await register(client, "bad")
        await register(client, "good")
    with redis.Redis.from_url(server.url) as redis_client:
        redis_client.hset("{mesh}:agent:bad", mapping=damage)

    async with in_process_registry(server.url) as client:
        assert await listed_ids(client) == ["good"]
        assert (await client.post("/heartbeat", json={"agent_id": "good"})).status_code == 200


@pytest.mark.fault(23, "Redis is configured to evict keys")
async def test_health_warns_of_a_wrong_store_configuration() -> None:
    """`/health` warns of an eviction policy and of missing persistence, with the setting to use."""
    with RedisServer("--maxmemory-policy", "allkeys-lru", "--maxmemory", "99mb", "--appendonly", "no") as server:
        async with in_process_registry(server.url) as client:

            async def warnings_of_health() -> list[str]:
                return list((await client.get("/health")).json()["warnings"])

            await async_wait_until(warnings_of_health, description="the store was checked")
            warnings = " ".join(await warnings_of_health())

    assert "set maxmemory-policy noeviction" in warnings
    assert "set appendonly yes" in warnings


async def test_another_server_behind_the_address_is_checked_at_once(server: RedisServer) -> None:
    """After a failover its configuration is checked within moments, not at the next check a minute later."""
    async with in_process_registry(server.url) as client:
        assert (await client.get("/health")).json()["warnings"] == []
        server.arguments = ("--appendonly", "no")
        server.restart()

        async def has_warning() -> bool:
            return "set appendonly yes" in " ".join((await client.get("/health")).json()["warnings"])

        await async_wait_until(has_warning, description="the new server was checked")


async def test_a_store_that_is_too_old_stops_the_startup() -> None:
    """The error names its version and the required one."""
    info = b"# Server\r\nredis_version:6.2.14\r\n"
    replies = {b"ROLE": b"*1\r\n$6\r\nmaster\r\n", b"INFO": b"$%d\r\n%s\r\n" % (len(info), info)}
    closed = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65_536):
            for command in re.findall(rb"\*\d+\r\n\$\d+\r\n(\w+)", chunk):
                writer.write(replies.get(command, b"-ERR unknown command\r\n"))
        writer.close()
        closed.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(StartupError, match=r"Redis 6\.2\.14 is too old .* 7\.0 or later"):
            async with open_registry(Settings(redis_url=url)):
                pass
        await closed.wait()


async def test_a_full_store_rejects_new_agents_and_serves_existing_ones() -> None:
    """With no memory left registering is 503; heartbeats and unregistering work."""
    with RedisServer("--maxmemory-policy", "noeviction") as server:
        async with in_process_registry(server.url) as client:
            await register(client, "a")
            await register(client, "b")
            with redis.Redis.from_url(server.url) as redis_client:
                redis_client.config_set("maxmemory", "1mb")

                full = await client.post("/agents", json=a_registration("c"))
                heartbeat = await client.post("/heartbeat", json={"agent_id": "a"})
                gone = await client.delete("/agents/b")

                assert (full.status_code, full.json()["reason"], full.json()["outcome"]) == (
                    503,
                    "out_of_memory",
                    "not_sent",
                )
                assert heartbeat.status_code == 200
                assert gone.status_code == 200
                assert await listed_ids(client) == ["a"]
