"""A read on any replica returns every write that was acknowledged before it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx2
import pytest

from tests.support.http_calls import expect_error, expect_success, get_agent, list_agent_ids, register, send_heartbeat
from tests.support.in_process_registry import in_process_registry

ROUNDS = 200


async def test_the_next_read_on_another_replica_returns_a_write(client: httpx2.AsyncClient, redis_url: str) -> None:
    """200 rounds of register, update, heartbeat and unregister through A, each read through B at once."""
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


async def test_concurrent_readers_never_receive_outdated_data(client: httpx2.AsyncClient, redis_url: str) -> None:
    """Each of twenty concurrent writers reads its own write through the other replica."""
    async with in_process_registry(redis_url) as other:

        async def write_and_read(agent_id: str) -> None:
            for n in range(10):
                version = await register(client, agent_id, step=str(n))
                assert (await get_agent(other, agent_id))["resource_version"] == version
                assert agent_id in await list_agent_ids(other)

        await asyncio.gather(*(write_and_read(f"a{n}") for n in range(20)))


async def test_a_returned_version_can_be_requested(client: httpx2.AsyncClient, redis_url: str) -> None:
    """`resource_version=N` returns version N or a later one, on any replica, for every read."""
    async with in_process_registry(redis_url) as other:
        for n in range(20):
            version = await register(client, "a", step=str(n))
            for path in ("/agents", "/agents/a", "/agents/a/status", "/capabilities"):
                response = await other.get(path, params={"resource_version": version})
                assert int(response.headers["x-resource-version"]) >= int(version), path


async def test_version_zero_returns_the_cached_state(client: httpx2.AsyncClient) -> None:
    """The replica returns its cached state, without a call to the store."""
    await register(client)
    held = (await client.get("/agents")).headers["x-resource-version"]

    for path in ("/agents", "/agents/a", "/agents/a/status", "/capabilities"):
        response = await client.get(path, params={"resource_version": "0"})
        assert response.status_code == 200
        assert response.headers["x-resource-version"] == held
        assert "x-registry-stale" not in response.headers


@pytest.mark.parametrize("path", ["/agents", "/agents/a", "/agents/a/status", "/capabilities"])
async def test_a_version_the_store_has_not_reached_is_503(client: httpx2.AsyncClient, path: str) -> None:
    """After a check of the store: the call can be repeated; it is not 404 and not an older state."""
    version = await register(client)

    response = await client.get(path, params={"resource_version": str(int(version) + 1000)})

    body = expect_error(response, 503, "store_unavailable")
    assert body["reason"] == "version_ahead"
    assert response.headers["retry-after"] == "1"
    assert version in body["message"]


async def test_the_tool_accepts_a_version(client: httpx2.AsyncClient) -> None:
    """As in the query string: 0, a known version, a future one."""
    version = await register(client)
    url = "/mcp/tools/discover_services"

    for version_or_zero in ("0", version):
        expect_success(await client.post(url, json={"query": {"resource_version": version_or_zero}}))
    ahead = await client.post(url, json={"query": {"resource_version": str(int(version) + 1000)}})

    expect_error(ahead, 503, "store_unavailable")


async def test_a_list_has_the_state_of_one_version(client: httpx2.AsyncClient, redis_url: str) -> None:
    """Two agents change alternately: no list has a change of the second without that of the first."""
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


@contextlib.asynccontextmanager
async def two_more_replicas(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[httpx2.AsyncClient, httpx2.AsyncClient]]:
    """Provide clients of two replicas that wait as long as a busy machine may need for their cache."""
    monkeypatch.setattr("registry.cache.reflector._READ_TIMEOUT_S", 30.0)
    monkeypatch.setattr("registry.service.liveness.heartbeat_service._REFRESH_TIMEOUT_S", 30.0)
    monkeypatch.setattr("registry.compat.mcpmesh.fast_heartbeat._REDIS_TIMEOUT_S", 30.0)
    async with in_process_registry(redis_url) as second, in_process_registry(redis_url) as third:
        yield second, third


async def test_a_heartbeat_on_another_replica_is_answered_with_every_write(
    client: httpx2.AsyncClient, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After DELETE of a provider through A, a heartbeat of its consumer through B was still answered with it."""
    tool = {"function_name": "f", "capability": "consumer", "dependencies": ["date"]}
    await register(client, "me", endpoint=None, metadata={"endpoint": "http://me:1", "tools": [tool]})
    async with two_more_replicas(redis_url, monkeypatch) as (second, third):
        for n in range(ROUNDS):
            await register(client, f"date-{n}", capabilities=["date"])
            await send_heartbeat(client, f"date-{n}")
            added, removed = (second, third) if n % 2 else (third, second)
            assert await _date_provider(added) == f"date-{n}"
            expect_success(await client.delete(f"/agents/date-{n}"))
            assert await _date_provider(removed) is None


async def _date_provider(client: httpx2.AsyncClient) -> str | None:
    body = expect_success(await client.post("/heartbeat", json={"agent_id": "me"}))
    provider: dict[str, str] | None = body["dependencies_resolved"]["f"]["date"]
    return None if provider is None else provider["agent_id"]


async def test_a_head_heartbeat_on_another_replica_reports_every_write(
    client: httpx2.AsyncClient, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After DELETE of a provider through A, a HEAD heartbeat of its consumer through B was still answered 200."""
    tool = {"function_name": "f", "capability": "consumer", "dependencies": [{"capability": "date"}]}
    consumer = {"agent_id": "me", "http_host": "me", "http_port": 1, "tools": [tool]}
    async with two_more_replicas(redis_url, monkeypatch) as (second, third):
        for n in range(ROUNDS // 2):
            await register(client, f"date-{n}", capabilities=["date"])
            await send_heartbeat(client, f"date-{n}")
            resolved = expect_success(await second.post("/heartbeat", json=consumer))["dependencies_resolved"]
            assert resolved["f"][0]["agent_id"] == f"date-{n}"
            assert (await third.head("/heartbeat/me")).status_code == 200
            expect_success(await client.delete(f"/agents/date-{n}"))
            assert (await second.head("/heartbeat/me")).status_code == 202
            assert (await third.head("/heartbeat/me")).status_code == 202
