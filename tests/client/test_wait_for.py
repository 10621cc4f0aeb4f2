"""`wait_for` returns when a live agent provides the capability."""

import asyncio
from typing import Any

import pytest
from mcp_mesh_client import CapabilityTimeout, RegistryClient, RequestRejected

from tests.client.client_setup import REGISTRATION, expect_success, http_url
from tests.support.faulty_tcp_proxy import FaultyTcpProxy
from tests.support.polling import async_wait_until
from tests.support.ports import free_port
from tests.support.served_registry import served_registry


async def test_a_live_agent_is_returned_at_once(redis_url: str) -> None:
    """Live means healthy or degraded; an agent without a heartbeat is not returned."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        await client.register_many([REGISTRATION | {"id": name} for name in ("alive", "pending")])
        expect_success(await client.heartbeat("alive"))

        assert [agent["id"] for agent in await client.wait_for("greeting", timeout=5)] == ["alive"]


async def test_the_first_heartbeat_of_an_agent_ends_the_wait(redis_url: str) -> None:
    """Its registration alone does not end the wait."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        waiting = asyncio.create_task(client.wait_for("greeting", timeout=10, label_selector="env=prod"))
        await async_wait_until(lambda: served.registry.watch_service.watchers, description="the long poll is open")
        expect_success(await client.register_agent(REGISTRATION | {"id": "other"}))
        expect_success(await client.heartbeat("other"))
        expect_success(await client.register_agent(REGISTRATION | {"labels": {"env": "prod"}}))
        assert not waiting.done()
        expect_success(await client.heartbeat("a"))

        assert [agent["id"] for agent in await waiting] == ["a"]


async def test_the_registry_may_start_later(redis_url: str) -> None:
    """The client retries until the registry responds."""
    async with (
        served_registry(redis_url) as served,
        FaultyTcpProxy(served.url) as proxy,
        RegistryClient(http_url(proxy)) as client,
    ):
        proxy.refuse()
        waiting = asyncio.create_task(client.wait_for("greeting", timeout=20))
        await async_wait_until(lambda: client.state == "offline", description="the client is offline")
        async with RegistryClient(served.url) as other:
            expect_success(await other.register_agent(REGISTRATION))
            expect_success(await other.heartbeat("a"))
        await proxy.accept()

        assert [agent["id"] for agent in await waiting] == ["a"]


async def test_the_wait_ends_at_its_timeout(redis_url: str) -> None:
    """The TimeoutError names the capability and the last error of the registry, if any."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        with pytest.raises(TimeoutError, match=r"^No live agent provides 'greeting' after 0.3 s$") as error:
            await client.wait_for("greeting", timeout=0.3)
        assert isinstance(error.value, CapabilityTimeout)
    async with RegistryClient(f"http://127.0.0.1:{free_port()}") as client:
        with pytest.raises(CapabilityTimeout, match=r"after 0\.3 s; last registry error: http://127"):
            await client.wait_for("greeting", timeout=0.3)


async def test_a_rejected_request_ends_the_wait(redis_url: str) -> None:
    """A retry would be rejected, too."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        with pytest.raises(RequestRejected, match="label_selector") as rejected:
            await client.wait_for("greeting", timeout=5, label_selector="==")
        wrong: Any = {"capabilty": "x"}
        with pytest.raises(RequestRejected, match="did you mean"):
            await client.wait_for("greeting", timeout=5, **wrong)

        assert rejected.value.response["error"] == "malformed_request"
