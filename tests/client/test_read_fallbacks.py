"""Reads fall back step by step, report the age of their data, and recover without help."""

from typing import Any

import pytest
from mcp_mesh_client import RegistryClient

from tests.client.client_setup import REGISTRATION, agent_ids, client_state, expect_success, http_url
from tests.support.canned_server import CannedServer, http_response
from tests.support.faulty_tcp_proxy import FaultyTcpProxy
from tests.support.polling import async_wait_until
from tests.support.ports import free_port
from tests.support.redis_server import RedisServer
from tests.support.served_registry import served_registry


async def test_during_an_outage_of_redis_reads_come_from_the_cache_of_a_replica(dedicated_redis: RedisServer) -> None:
    """Reads report their age, writes fail, and both work again after the outage."""
    async with served_registry(dedicated_redis.url) as served, RegistryClient(served.url, cache_size=0) as client:
        expect_success(await client.register_agent(REGISTRATION))
        expect_success(await client.heartbeat("a"))
        assert "stale_seconds" not in await client.agents()

        dedicated_redis.pause()
        try:
            agents: Any = await client.agents(capability="greeting")
            discovered: Any = await client.discover_services({"capabilities": ["greeting"]})
            capabilities: Any = await client.capabilities(name="greeting")
            agent: Any = await client.agent("a")
            state = client_state(client)
            async with RegistryClient(served.url, max_rounds=1) as writer:
                with pytest.raises(ConnectionError, match="503"):
                    await writer.register_agent(REGISTRATION)
        finally:
            dedicated_redis.resume()

        assert agent_ids(agents) == agent_ids(discovered) == ["a"]
        assert capabilities["capabilities"][0]["agent_id"] == "a"
        assert agent["id"] == "a"
        for response in (agents, discovered, capabilities, agent):
            assert response["stale_seconds"] > 0
        assert state == "degraded"

        async def is_fresh() -> bool:
            return "stale_seconds" not in await client.agents()

        await async_wait_until(is_fresh, description="reads are fresh again")
        assert client_state(client) == "online"


async def test_without_a_replica_reads_come_from_the_cache_of_the_client(redis_url: str) -> None:
    """The response has its age; an uncached read raises ConnectionError; reads are fresh again after the outage."""
    async with (
        served_registry(redis_url) as served,
        FaultyTcpProxy(served.url) as proxy,
        RegistryClient(http_url(proxy), max_rounds=1) as client,
    ):
        expect_success(await client.register_agent(REGISTRATION))
        before: Any = await client.agents(capability="greeting")
        proxy.refuse()

        after: Any = await client.agents(capability="greeting")
        with pytest.raises(ConnectionError):
            await client.agents(capability="other")

        assert after.pop("stale_seconds") >= 0
        assert after == before
        assert client_state(client) == "offline"
        await proxy.accept()
        assert "stale_seconds" not in await client.agents(capability="greeting")
        assert client_state(client) == "online"


async def test_a_response_older_than_offline_ttl_is_not_returned(redis_url: str) -> None:
    """`offline_ttl` limits the age of the response; 0 disables the fallback."""
    async with (
        served_registry(redis_url) as served,
        FaultyTcpProxy(served.url) as proxy,
        RegistryClient(http_url(proxy), max_rounds=1, offline_ttl=0) as client,
    ):
        await client.agents()
        proxy.refuse()

        with pytest.raises(ConnectionError):
            await client.agents()


async def test_a_read_with_a_resource_version_returns_nothing_older(dedicated_redis: RedisServer) -> None:
    """Neither the cache of a replica nor the cache of the client is used."""
    # A replica of the test process waits longer for Redis than a client waits for a replica.
    options: Any = {"max_rounds": 1, "attempt_timeout": 30, "timeout": 60}
    async with served_registry(dedicated_redis.url) as served, RegistryClient(served.url, **options) as client:
        expect_success(await client.register_agent(REGISTRATION))
        version: Any = (await client.agents())["resource_version"]

        dedicated_redis.pause()
        try:
            with pytest.raises(ConnectionError, match="503"):
                await client.agents(resource_version=int(version) + 1)
            cached = await client.agents(resource_version=0)
        finally:
            dedicated_redis.resume()

        assert agent_ids(cached) == ["a"]


async def test_an_unchanged_response_is_not_sent_again(redis_url: str) -> None:
    """The client sends the ETag, receives 304, and returns the cached response with the confirmed version."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        expect_success(await client.register_agent(REGISTRATION))
        first: Any = await client.agents(capability="greeting")
        sizes = spy_on(client)

        expect_success(await client.register_agent(REGISTRATION | {"id": "other", "capabilities": []}))
        again: Any = await client.agents(capability="greeting")
        expect_success(await client.register_agent(REGISTRATION | {"id": "b"}))
        changed = await client.agents(capability="greeting")

    assert again["agents"] == first["agents"]
    assert int(again["resource_version"]) > int(first["resource_version"])
    assert agent_ids(changed) == ["a", "b"]
    assert sizes[1] == (304, 0)
    assert sizes[3][0] == 200


async def test_a_fresh_response_is_returned_from_the_cache_until_this_client_writes(redis_url: str) -> None:
    """`cache_ttl` saves requests at the cost of freshness, but a client always reads its own writes."""
    async with served_registry(redis_url) as served, RegistryClient(served.url, cache_ttl=60) as client:
        expect_success(await client.register_agent(REGISTRATION))
        await client.agents()
        await client.discover_services({"status": "any"})
        sizes = spy_on(client)

        assert agent_ids(await client.agents()) == ["a"]
        assert agent_ids(await client.discover_services({"status": "any"})) == ["a"]
        assert sizes == []
        expect_success(await client.unregister_agent("a"))
        assert agent_ids(await client.agents()) == agent_ids(await client.discover_services({"status": "any"})) == []


async def test_a_404_removes_the_agent_from_the_cache(redis_url: str) -> None:
    """The agent does not exist, so a later failure must not return the cached one."""
    async with (
        served_registry(redis_url) as served,
        FaultyTcpProxy(served.url) as proxy,
        RegistryClient(http_url(proxy), max_rounds=1) as client,
    ):
        expect_success(await client.register_agent(REGISTRATION))
        await client.agent("a")
        expect_success(await client.unregister_agent("a"))
        assert (await client.agent("a"))["status"] == "error"
        proxy.refuse()

        with pytest.raises(ConnectionError):
            await client.agent("a")


async def test_a_replica_without_a_filled_cache_leaves_the_cache_of_the_client() -> None:
    """The only remaining replica is new and still fills its cache."""
    not_ready = http_response(503, {"status": "error", "error": "not_ready", "message": "-", "details": []})
    agents = http_response(200, {"agents": [], "count": 0, "resource_version": "7", "timestamp": "then"})
    async with CannedServer(agents, not_ready) as server, RegistryClient(server.url) as client:
        await client.agents()
        response: Any = await client.agents()

    assert response["resource_version"] == "7"
    assert "stale_seconds" in response
    assert ["resource_version=0" in request.splitlines()[0] for request in server.requests] == [False, False, True]


async def test_a_read_waits_for_a_replica_that_fills_its_cache() -> None:
    """The client has no cached response, so it retries until the replica is ready."""
    not_ready = http_response(503, {"status": "error", "error": "not_ready", "message": "-", "details": []})
    agents = http_response(200, {"agents": [], "count": 0, "resource_version": "7", "timestamp": "then"})
    async with CannedServer(not_ready, not_ready, not_ready, agents) as server, RegistryClient(server.url) as client:
        response = await client.agents()

    assert agent_ids(response) == []
    assert "stale_seconds" not in response
    assert len(server.requests) == 4


async def test_registering_without_a_registry_returns_the_offline_response() -> None:
    """`register_with_fallback` returns the response of the guides and raises no exception."""
    async with RegistryClient(f"http://127.0.0.1:{free_port()}") as client:
        response = await client.register_with_fallback(REGISTRATION)

        assert response == {"status": "offline", "message": "Registry unavailable"}
        with pytest.raises(ValueError, match="Missing required field: endpoint"):
            await client.register_with_fallback({"id": "a"})


def spy_on(client: RegistryClient) -> list[tuple[int, int]]:
    """Return a list that receives the status and the body size of each response from now on."""
    recorded_responses: list[tuple[int, int]] = []
    transport = client._session._transport
    send = transport.send

    async def recorded(*arguments: Any) -> Any:
        response = await send(*arguments)
        recorded_responses.append((response.status, len(response.body)))
        return response

    transport.send = recorded  # type: ignore[method-assign,assignment]
    return recorded_responses
