"""Days on which the store freezes, dies, forgets, or is tampered with: never a lie, and back at once."""

import asyncio
import time
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

# What a client may wait for an answer while the store is away, in seconds.
PATIENCE = 3.0


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """Provide a server of the test's own, which keeps what it acknowledged."""
    with RedisServer("--appendonly", "yes", "--appendfsync", "always") as running:
        yield running


def a_registration(agent_id: str, **fields: Any) -> dict[str, Any]:
    """Return the body of a registration."""
    return {"id": agent_id, "endpoint": "http://a:1", "capabilities": ["x"]} | fields


async def register(client: httpx2.AsyncClient, agent_id: str, **fields: Any) -> int:
    """Register an agent; return its version."""
    answer = await client.post("/agents", json=a_registration(agent_id, **fields))
    assert answer.status_code == 200, answer.text
    return int(answer.json()["resource_version"])


async def listed(client: httpx2.AsyncClient, query: str = "") -> list[str]:
    """Return the ids of a list."""
    answer = await client.get(f"/agents{query}")
    assert answer.status_code == 200, answer.text
    return [agent["id"] for agent in answer.json()["agents"]]


async def refusals(client: httpx2.AsyncClient) -> None:
    """Assert that every call that needs the store says 503, what to do, and says it in time."""
    began = time.monotonic()
    answers = await asyncio.gather(
        client.post("/heartbeat", json={"agent_id": "a"}),
        client.post("/agents", json=a_registration("b")),
        client.post("/agents", json=a_registration("a", resource_version="1")),
        client.delete("/agents/a"),
        client.get("/agents"),
        client.get("/agents/a"),
        client.get("/agents/nobody"),
        client.get("/capabilities"),
        client.get("/health/a"),
    )
    assert time.monotonic() - began < PATIENCE
    for answer in answers:
        assert answer.status_code == 503, answer.text
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["error"] == "store_unavailable"
        assert answer.json()["outcome"] in ("not_sent", "unknown")


async def test_a_frozen_store_is_503_and_memory_still_answers(server: RedisServer) -> None:
    """Writes and fresh reads say 503 in time, old reads go on, liveness stays up; all is well soon after it thaws."""
    async with in_process_registry(server.url) as client:
        await register(client, "a")
        await client.post("/heartbeat", json={"agent_id": "a"})
        await listed(client)

        server.pause()
        try:
            await refusals(client)
            old = await client.get("/agents?resource_version=0")
            health, ready = await client.get("/health"), await client.get("/ready")
        finally:
            server.resume()
        thawed = time.monotonic()
        await async_wait_until(lambda: _is_ready(client), description="the replica is ready again", timeout=PATIENCE)

        assert time.monotonic() - thawed < 2
        assert [agent["id"] for agent in old.json()["agents"]] == ["a"]
        assert float(old.headers["x-registry-stale"]) > 0
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        assert ready.status_code == 503
        assert (await client.post("/heartbeat", json={"agent_id": "a"})).status_code == 200
        assert "a" in await listed(client)


async def _is_ready(client: httpx2.AsyncClient) -> bool:
    return (await client.get("/ready")).status_code == 200


async def test_a_store_that_dies_and_returns_has_lost_nothing(server: RedisServer) -> None:
    """With AOF every acknowledged registration is there again, and the versions go on from where they were."""
    async with in_process_registry(server.url) as client:
        last = max([await register(client, f"a{number}") for number in range(20)])

        server.kill()
        await refusals(client)
        server.restart()
        back = time.monotonic()
        await async_wait_until(lambda: _is_ready(client), description="the replica is ready again", timeout=PATIENCE)

        assert time.monotonic() - back < 2
        assert len(await listed(client)) == 20
        assert await register(client, "late") > last


async def test_a_flushed_store_is_another_history(server: RedisServer) -> None:
    """FLUSHALL: the agents are unknown, not stale; versions rise above all there were; the history has another id."""
    async with in_process_registry(server.url) as client:
        before = await register(client, "a")
        history = (await client.get("/health")).json()["timeline"]
        with redis.Redis.from_url(server.url) as raw:
            raw.flushall()

        assert await listed(client) == []
        assert (await client.post("/heartbeat", json={"agent_id": "a"})).status_code == 404
        assert await register(client, "a") > before
        assert (await client.get("/health")).json()["timeline"] != history


async def test_forgotten_scripts_go_unnoticed_under_load(server: RedisServer) -> None:
    """SCRIPT FLUSH again and again while agents register and beat: not one call fails."""
    async with in_process_registry(server.url) as client:
        await register(client, "a")
        with redis.Redis.from_url(server.url) as raw:
            for at in range(20):
                raw.script_flush()
                answers = await asyncio.gather(
                    *(client.post("/heartbeat", json={"agent_id": "a"}) for _ in range(10)),
                    *(client.post("/agents", json=a_registration(f"a{at}-{n}")) for n in range(10)),
                )
                assert {answer.status_code for answer in answers} == {200}

        assert len(await listed(client)) == 201


async def test_a_log_that_was_cut_is_noticed(server: RedisServer) -> None:
    """When somebody trims the log away, reads are answered from a new fill, not from a view that missed something."""
    async with in_process_registry(server.url) as client:
        await register(client, "a")
        with redis.Redis.from_url(server.url) as raw:
            await register(client, "b")
            raw.xtrim("{mesh}:log", maxlen=0)

        assert await listed(client) == ["a", "b"]
        await register(client, "c")
        assert await listed(client) == ["a", "b", "c"]


async def test_a_counter_raised_by_hand_does_not_wedge_reads(server: RedisServer) -> None:
    """A version without a log entry is a gap; opening the log anew closes it."""
    async with in_process_registry(server.url) as client:
        await register(client, "a")
        with redis.Redis.from_url(server.url) as raw:
            raw.incrby("{mesh}:version", 5)

        assert await listed(client) == ["a"]
        await register(client, "b")
        assert await listed(client) == ["a", "b"]


async def test_a_lost_version_counter_is_raised_above_the_log(server: RedisServer) -> None:
    """Without its counter the log would refuse lower ids; the next versions are above all there were."""
    async with in_process_registry(server.url) as client:
        before = await register(client, "a")
        with redis.Redis.from_url(server.url) as raw:
            raw.delete("{mesh}:version")

        assert await listed(client) == ["a"]
        assert await register(client, "b") > before
        assert await listed(client) == ["a", "b"]


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
async def test_one_damaged_record_never_hides_the_others(server: RedisServer, damage: dict[str, str]) -> None:
    """A replica that fills over a damaged record leaves it out and shows the rest."""
    async with in_process_registry(server.url) as client:
        await register(client, "bad")
        await register(client, "good")
    with redis.Redis.from_url(server.url) as raw:
        raw.hset("{mesh}:agent:bad", mapping=damage)

    async with in_process_registry(server.url) as client:
        assert await listed(client) == ["good"]
        assert (await client.post("/heartbeat", json={"agent_id": "good"})).status_code == 200


@pytest.mark.fault(23, "Redis is configured to evict keys")
async def test_what_is_wrong_with_the_store_is_said_with_what_to_do() -> None:
    """A policy that evicts and a store that keeps nothing are warned of in /health."""
    with RedisServer("--maxmemory-policy", "allkeys-lru", "--maxmemory", "99mb", "--appendonly", "no") as server:
        async with in_process_registry(server.url) as client:

            async def warned() -> list[str]:
                return list((await client.get("/health")).json()["warnings"])

            await async_wait_until(warned, description="the store was checked")
            warnings = " ".join(await warned())

    assert "set maxmemory-policy noeviction" in warnings
    assert "set appendonly yes" in warnings


async def test_another_server_behind_the_address_is_looked_at_at_once(server: RedisServer) -> None:
    """As after a failover: what it is set up to keep is said within moments, not at the next look of the minute."""
    async with in_process_registry(server.url) as client:
        assert (await client.get("/health")).json()["warnings"] == []
        server.arguments = ("--appendonly", "no")
        server.restart()

        async def warned() -> bool:
            return "set appendonly yes" in " ".join((await client.get("/health")).json()["warnings"])

        await async_wait_until(warned, description="the new server was checked", timeout=10)


async def test_a_store_that_is_too_old_stops_the_start() -> None:
    """With its version, and the one that is needed."""
    info = b"# Server\r\nredis_version:6.2.14\r\n"
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65_536):
            writer.write(b"*1\r\n$6\r\nmaster\r\n" if b"ROLE" in chunk else b"$%d\r\n%s\r\n" % (len(info), info))
        writer.close()
        over.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(StartupError, match=r"Redis 6\.2\.14 is too old .* 7\.0 or later"):
            async with open_registry(Settings(redis_url=url)):
                pass
        await over.wait()


async def test_a_full_store_stops_newcomers_not_the_living() -> None:
    """With no memory left registering is 503, heartbeats and unregistering go on."""
    with RedisServer("--maxmemory-policy", "noeviction") as server:
        async with in_process_registry(server.url) as client:
            await register(client, "a")
            await register(client, "b")
            with redis.Redis.from_url(server.url) as raw:
                raw.config_set("maxmemory", "1mb")

                full = await client.post("/agents", json=a_registration("c"))
                beat = await client.post("/heartbeat", json={"agent_id": "a"})
                gone = await client.delete("/agents/b")

                assert (full.status_code, full.json()["reason"], full.json()["outcome"]) == (
                    503,
                    "out_of_memory",
                    "not_sent",
                )
                assert beat.status_code == 200
                assert gone.status_code == 200
                assert await listed(client) == ["a"]
