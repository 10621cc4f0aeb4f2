"""Waiting until somebody can do what is needed."""

import asyncio
import time
from typing import Any

import pytest
from mcp_mesh_client import CapabilityTimeout, RegistryClient, RequestRejected

from tests.client.client_setup import REGISTRATION, expect_success, http_url
from tests.support.faulty_tcp_proxy import FaultyTcpProxy
from tests.support.polling import async_wait_until
from tests.support.ports import free_port
from tests.support.served_registry import served_registry


async def test_who_lives_already_is_returned_at_once(redis_url: str) -> None:
    """Healthy or degraded; who never sent a heartbeat is not chosen."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        await client.register_many([REGISTRATION | {"id": name} for name in ("alive", "pending")])
        expect_success(await client.heartbeat("alive"))

        assert [agent["id"] for agent in await client.wait_for("greeting", timeout=5)] == ["alive"]


async def test_who_comes_to_life_ends_the_wait(redis_url: str) -> None:
    """Registering is not enough; the first heartbeat is."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        waiting = asyncio.create_task(client.wait_for("greeting", timeout=10, label_selector="env=prod"))
        await async_wait_until(lambda: served.registry.watch_service.watchers, description="the registry waits, too")
        expect_success(await client.register_agent(REGISTRATION | {"id": "other"}))
        expect_success(await client.heartbeat("other"))
        expect_success(await client.register_agent(REGISTRATION | {"labels": {"env": "prod"}}))
        assert not waiting.done()
        expect_success(await client.heartbeat("a"))

        assert [agent["id"] for agent in await waiting] == ["a"]


async def test_the_registry_may_come_later(redis_url: str) -> None:
    """It is looked for again and again."""
    async with (
        served_registry(redis_url) as served,
        FaultyTcpProxy(served.url) as proxy,
        RegistryClient(http_url(proxy)) as client,
    ):
        proxy.refuse()
        waiting = asyncio.create_task(client.wait_for("greeting", timeout=20))
        await async_wait_until(lambda: client.state == "offline", description="it was looked for")
        async with RegistryClient(served.url) as other:
            expect_success(await other.register_agent(REGISTRATION))
            expect_success(await other.heartbeat("a"))
        await proxy.accept()

        assert [agent["id"] for agent in await waiting] == ["a"]


async def test_the_wait_has_an_end(redis_url: str) -> None:
    """A TimeoutError that says what was waited for, and what was wrong if anything was."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        began = time.monotonic()
        with pytest.raises(TimeoutError, match=r"^No live agent provides 'greeting' after 0.3 s$") as late:
            await client.wait_for("greeting", timeout=0.3)
        assert time.monotonic() - began < 5
        assert isinstance(late.value, CapabilityTimeout)
    async with RegistryClient(f"http://127.0.0.1:{free_port()}") as client:
        with pytest.raises(CapabilityTimeout, match=r"after 0\.3 s; last registry error: http://127"):
            await client.wait_for("greeting", timeout=0.3)


async def test_what_the_registry_does_not_understand_ends_the_wait(redis_url: str) -> None:
    """Waiting longer would not help."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        with pytest.raises(RequestRejected, match="label_selector") as refused:
            await client.wait_for("greeting", timeout=5, label_selector="==")
        wrong: Any = {"capabilty": "x"}
        with pytest.raises(RequestRejected, match="did you mean"):
            await client.wait_for("greeting", timeout=5, **wrong)

        assert refused.value.response["error"] == "malformed_request"
