"""Reads degrade step by step, tell so, and heal by themselves."""

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


async def test_a_frozen_store_is_answered_from_a_replicas_memory(own_server: RedisServer) -> None:
    """Reads go on, and tell how old they may be; writes say that they cannot; all is well after it thaws."""
    async with served_registry(own_server.url) as served, RegistryClient(served.url, cache_size=0) as client:
        expect_success(await client.register_agent(REGISTRATION))
        expect_success(await client.heartbeat("a"))
        assert "stale_seconds" not in await client.agents()

        own_server.pause()
        try:
            listed: Any = await client.agents(capability="greeting")
            found: Any = await client.discover_services({"capabilities": ["greeting"]})
            capable: Any = await client.capabilities(name="greeting")
            shown: Any = await client.agent("a")
            state = client_state(client)
            async with RegistryClient(served.url, max_rounds=1) as writer:
                with pytest.raises(ConnectionError, match="503"):
                    await writer.register_agent(REGISTRATION)
        finally:
            own_server.resume()

        assert agent_ids(listed) == agent_ids(found) == ["a"]
        assert capable["capabilities"][0]["agent_id"] == "a"
        assert shown["id"] == "a"
        for answer in (listed, found, capable, shown):
            assert answer["stale_seconds"] > 0
        assert state == "degraded"

        async def healed() -> bool:
            return "stale_seconds" not in await client.agents()

        await async_wait_until(healed, description="reads are fresh again")
        assert client_state(client) == "online"


async def test_without_any_replica_what_was_answered_before_is_answered_again(redis_url: str) -> None:
    """With its age; what was never asked is a ConnectionError; all is well when the registry is back."""
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


async def test_what_was_answered_long_ago_is_not_answered_again(redis_url: str) -> None:
    """`offline_ttl` is its bound; 0 is none of it."""
    async with (
        served_registry(redis_url) as served,
        FaultyTcpProxy(served.url) as proxy,
        RegistryClient(http_url(proxy), max_rounds=1, offline_ttl=0) as client,
    ):
        await client.agents()
        proxy.refuse()

        with pytest.raises(ConnectionError):
            await client.agents()


async def test_who_says_how_fresh_it_must_be_gets_nothing_older(own_server: RedisServer) -> None:
    """Neither from a replica's memory nor from what was answered before."""
    async with served_registry(own_server.url) as served, RegistryClient(served.url, max_rounds=1) as client:
        expect_success(await client.register_agent(REGISTRATION))
        version: Any = (await client.agents())["resource_version"]

        own_server.pause()
        try:
            with pytest.raises(ConnectionError, match="503"):
                await client.agents(resource_version=int(version) + 1)
            old = await client.agents(resource_version=0)
        finally:
            own_server.resume()

        assert agent_ids(old) == ["a"]


async def test_an_answer_that_is_unchanged_is_not_sent_again(redis_url: str) -> None:
    """By its ETag; it is told at the version at which it was confirmed."""
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


async def test_a_young_answer_is_given_again_without_asking_until_this_client_writes(redis_url: str) -> None:
    """`cache_ttl` trades freshness for silence, but a client sees its own writes."""
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


async def test_an_agent_that_is_gone_is_forgotten(redis_url: str) -> None:
    """A 404 is the truth about the mesh, so that no later failure brings the agent back."""
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


async def test_a_replica_that_cannot_answer_from_memory_either_leaves_what_was_answered_before() -> None:
    """A new replica that is still filling, the only one that is left."""
    not_ready = http_response(503, {"status": "error", "error": "not_ready", "message": "-", "details": []})
    listed = http_response(200, {"agents": [], "count": 0, "resource_version": "7", "timestamp": "then"})
    async with CannedServer(listed, not_ready) as server, RegistryClient(server.url) as client:
        await client.agents()
        answer: Any = await client.agents()

    assert answer["resource_version"] == "7"
    assert "stale_seconds" in answer
    assert ["resource_version=0" in request.splitlines()[0] for request in server.requests] == [False, False, True]


async def test_a_replica_that_is_still_filling_is_waited_for() -> None:
    """There is nothing to answer from yet, but soon there will be."""
    not_ready = http_response(503, {"status": "error", "error": "not_ready", "message": "-", "details": []})
    listed = http_response(200, {"agents": [], "count": 0, "resource_version": "7", "timestamp": "then"})
    async with CannedServer(not_ready, not_ready, not_ready, listed) as server, RegistryClient(server.url) as client:
        answer = await client.agents()

    assert agent_ids(answer) == []
    assert "stale_seconds" not in answer
    assert len(server.requests) == 4


async def test_registering_without_a_registry_is_told_in_the_guides_words() -> None:
    """And is no exception."""
    async with RegistryClient(f"http://127.0.0.1:{free_port()}") as client:
        answer = await client.register_with_fallback(REGISTRATION)

        assert answer == {"status": "offline", "message": "Registry unavailable"}
        with pytest.raises(ValueError, match="Missing required field: endpoint"):
            await client.register_with_fallback({"id": "a"})


def spy_on(client: RegistryClient) -> list[tuple[int, int]]:
    """Return a list that will hold the status and size of each answer from now on."""
    seen: list[tuple[int, int]] = []
    wire = client._session._transport
    exchange = wire.send

    async def watched(*arguments: Any) -> Any:
        reply = await exchange(*arguments)
        seen.append((reply.status, len(reply.body)))
        return reply

    wire.send = watched  # type: ignore[method-assign,assignment]
    return seen
