"""Read your writes: whatever was acknowledged through one replica, the next read on any other shows."""

import asyncio

import httpx2
import pytest

from tests.support.http_calls import expect_error, expect_success, get_agent, list_agent_ids, register, send_heartbeat
from tests.support.in_process_registry import in_process_registry

ROUNDS = 200


async def test_a_write_through_one_replica_is_seen_by_the_next_read_on_another(
    client: httpx2.AsyncClient, redis_url: str
) -> None:
    """200 rounds of register, change, beat and unregister through A; each is looked up through B at once."""
    async with in_process_registry(redis_url) as other:
        for n in range(ROUNDS):
            version = await register(client, "a", step=str(n), capabilities=[f"c{n}"])
            assert (await get_agent(other))["resource_version"] == version
            at = await send_heartbeat(client)
            assert await list_agent_ids(other, status="healthy", capability=f"c{n}") == ["a"]
            assert (await get_agent(other))["last_heartbeat"] == at
            found = (await other.get("/capabilities", params={"agent_id": "a"})).json()
            assert [capability["name"] for capability in found["capabilities"]] == [f"c{n}"]
            expect_success(await client.delete("/agents/a"))
            if n % 2:
                assert await list_agent_ids(other) == []
            else:
                expect_error(await other.get("/agents/a"), 404, "unknown_agent")


async def test_readers_under_load_never_see_the_past(client: httpx2.AsyncClient, redis_url: str) -> None:
    """Each of twenty writers reads its own write through the other replica, all at once."""
    async with in_process_registry(redis_url) as other:

        async def write_and_read(agent_id: str) -> None:
            for n in range(10):
                version = await register(client, agent_id, step=str(n))
                assert (await get_agent(other, agent_id))["resource_version"] == version
                assert agent_id in await list_agent_ids(other)

        await asyncio.gather(*(write_and_read(f"a{n}") for n in range(20)))


async def test_a_version_that_was_answered_can_be_asked_for(client: httpx2.AsyncClient, redis_url: str) -> None:
    """`resource_version=N` is answered with N or later, by any replica, on every read."""
    async with in_process_registry(redis_url) as other:
        for n in range(20):
            version = await register(client, "a", step=str(n))
            for path in ("/agents", "/agents/a", "/agents/a/status", "/capabilities"):
                answer = await other.get(path, params={"resource_version": version})
                assert int(answer.headers["x-resource-version"]) >= int(version), path


async def test_zero_is_answered_from_memory(client: httpx2.AsyncClient) -> None:
    """Whatever this replica holds: a version it once had, without a question to the store."""
    await register(client)
    held = (await client.get("/agents")).headers["x-resource-version"]

    for path in ("/agents", "/agents/a", "/agents/a/status", "/capabilities"):
        answer = await client.get(path, params={"resource_version": "0"})
        assert answer.status_code == 200
        assert answer.headers["x-resource-version"] == held
        assert "x-registry-stale" not in answer.headers


@pytest.mark.parametrize("path", ["/agents", "/agents/a", "/agents/a/status", "/capabilities"])
async def test_a_version_the_store_has_not_reached_is_503(client: httpx2.AsyncClient, path: str) -> None:
    """After a look: come again, not 404 and not an older answer."""
    version = await register(client)

    answer = await client.get(path, params={"resource_version": str(int(version) + 1000)})

    body = expect_error(answer, 503, "store_unavailable")
    assert body["reason"] == "version_ahead"
    assert answer.headers["retry-after"] == "1"
    assert version in body["message"]


async def test_the_tool_takes_a_version_too(client: httpx2.AsyncClient) -> None:
    """As in the query string: 0, N, too new, nonsense."""
    version = await register(client)
    url = "/mcp/tools/discover_services"

    for wanted in ("0", version):
        expect_success(await client.post(url, json={"query": {"resource_version": wanted}}))
    ahead = await client.post(url, json={"query": {"resource_version": str(int(version) + 1000)}})

    expect_error(ahead, 503, "store_unavailable")


async def test_a_list_is_of_one_version(client: httpx2.AsyncClient, redis_url: str) -> None:
    """Two agents that always change one after the other: no list shows the second's change without the first's."""
    async with in_process_registry(redis_url) as other:
        for agent_id in "ab":
            await register(client, agent_id, step="0")
        done = asyncio.Event()

        async def write() -> None:
            for n in range(1, 100):
                for agent_id in "ab":
                    await register(client, agent_id, step=str(n))
            done.set()

        async def read() -> int:
            lists = 0
            while not done.is_set():
                body = (await other.get("/agents")).json()
                first, second = (int(agent["step"]) for agent in body["agents"])
                assert first - second in (0, 1)
                newest = max(int(agent["resource_version"]) for agent in body["agents"])
                assert newest == int(body["resource_version"])
                lists += 1
            return lists

        _, lists = await asyncio.gather(write(), read())

    assert lists > 0
