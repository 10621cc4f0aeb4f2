"""The agents of the guide run with only their imports changed, as in the table of the README."""

import asyncio
import re
from typing import Any

import pytest
from mcp_mesh_client import RegistryClient

from tests.client.client_setup import agent_ids
from tests.seeds.code_blocks import find_code_block
from tests.support.polling import async_wait_until
from tests.support.ports import free_port
from tests.support.replica import Replica
from tests.support.served_registry import served_registry
from tests.test_readme import table

GUIDE = "pull_based_registry.md"
NAMES = {theirs.strip("`"): ours.strip("`") for theirs, ours in table("Names in the guides", "in the guides")}


def run(containing: str, url: str, **names: Any) -> dict[str, Any]:
    """Run one block of the guide with the given names defined; return the names it defines."""
    code = find_code_block(GUIDE, containing)
    for theirs, ours in NAMES.items():
        code = code.replace(theirs, ours)
    assert not re.search(r"^\s*(?:from|import) mcp_(?!mesh_client\b)", code, re.MULTILINE)
    known: dict[str, Any] = {"asyncio": asyncio, "RegistryClient": RegistryClient} | names
    exec(compile(code.replace("http://localhost:8000", url), GUIDE, "exec"), known)  # noqa: S102 - that is the test
    return known


async def test_the_agent_of_the_guide_registers_and_stays_alive(
    redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its loop sends the first heartbeat at once."""
    async with served_registry(redis_url) as served:
        agent = run("class MyAgent:", served.url)["MyAgent"](served.url)
        await agent.start()

        async with RegistryClient(served.url) as client:
            (found,) = await client.wait_for("custom_operation", timeout=5)
            assert found["id"] == "my-agent-001"
        assert "Registered with registry: my-agent-001" in capsys.readouterr().out
        await stop_agent(agent)


async def test_the_agent_of_the_guide_starts_without_a_registry(capsys: pytest.CaptureFixture[str]) -> None:
    """It prints the failure."""
    url = f"http://127.0.0.1:{free_port()}"
    agent = run("class MyAgent:", url)["MyAgent"](url)

    await agent.start()

    assert f"Registry communication failed: {url}" in capsys.readouterr().out
    await stop_agent(agent)


async def stop_agent(agent: Any) -> None:
    """Stop the endless tasks of the agent, and close its client."""
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        if "_heartbeat_loop" in repr(task.get_coro()):
            task.cancel()
            await asyncio.wait({task})
    await agent.registry_client.close()


async def test_the_discovery_of_the_guide_finds_agents_both_ways(
    redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its client, and over HTTP."""
    import aiohttp  # noqa: PLC0415 - the guide's own, for its second way

    with Replica(redis_url) as replica:
        async with RegistryClient(replica.url) as client:
            capability = {"name": "read_file", "version": "1.0.0", "category": "file_operations"}
            agent = {"id": "f", "name": "Files", "endpoint": "http://f:1", "labels": {"env": "production"}}
            await client.register_agent(agent | {"capabilities": [capability]})
            await client.heartbeat("f")
            assert agent_ids(await client.discover_services()) == ["f"]
            # The code of the guide does not close its client, so this test does.
            clients: list[RegistryClient] = []

            def create_client(url: str) -> RegistryClient:
                clients.append(RegistryClient(url))
                return clients[-1]

            await run("def discover_file_agents", replica.url, RegistryClient=create_client, aiohttp=aiohttp)[
                "discover_file_agents"
            ]()
            await clients[0].close()

    assert "Found agent: Files at http://f:1" in capsys.readouterr().out


async def test_the_fallback_of_the_guide_returns_that_it_is_offline(redis_url: str) -> None:
    """The `except` of the guide catches the error of the client; its result equals the fallback of the client."""
    data = {"id": "a", "endpoint": "http://a:1"}
    async with RegistryClient(f"http://127.0.0.1:{free_port()}") as client:
        names = {"registry_client": client, "registration_data": data}
        offline = await run("async def register_with_fallback", "", **names)["register_with_fallback"]()
        assert offline == {"status": "offline", "message": "Registry unavailable"}
        assert await client.register_with_fallback(data) == offline
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        names = {"registry_client": client, "registration_data": data}
        result = await run("async def register_with_fallback", "", **names)["register_with_fallback"]()
        assert result["status"] == "success"


async def test_the_validation_of_the_guide_and_of_the_client_raise_the_same_errors() -> None:
    """For the fields that both require; the registry has defaults for the others."""
    async with RegistryClient("http://127.0.0.1:9") as client:
        for data in ({"name": "n", "namespace": "n", "agent_type": "t", "endpoint": "http://a:1"}, {"id": "a"}):
            checked = {"name": "n", "namespace": "n", "agent_type": "t"} | data
            check = run("async def validate_registration", "", registration_data=checked)["validate_registration"]
            with pytest.raises(ValueError, match=r"^Missing required field: ") as theirs:
                await check()
            with pytest.raises(ValueError, match=r"^Missing required field: ") as ours:
                await client.register_agent(data)
            assert str(ours.value) == str(theirs.value)


async def test_the_robust_loop_of_the_guide_survives_a_registry_that_starts_late(redis_url: str) -> None:
    """It counts exceptions and error responses alike, and sends a heartbeat once both are over."""
    pauses: list[float] = []

    async def record_pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            async with RegistryClient(served.url) as other:
                await other.register_agent({"id": "a", "endpoint": "http://a:1"})
        if seconds == 30.0:
            await asyncio.Event().wait()

    async with (
        served_registry(redis_url) as served,
        RegistryClient(f"http://127.0.0.1:{free_port()},{served.url}") as client,
    ):
        quick = type("quick", (), {"sleep": staticmethod(record_pause)})
        names = {"registry_client": client, "agent_id": "a", "heartbeat_interval": 30.0, "asyncio": quick}
        loop = run("async def robust_heartbeat_loop", "", **names)["robust_heartbeat_loop"]
        task = asyncio.create_task(loop())
        await async_wait_until(lambda: 30.0 in pauses, description="a heartbeat was accepted")
        task.cancel()
        await asyncio.wait({task})

    assert pauses == [2, 4, 30.0]
