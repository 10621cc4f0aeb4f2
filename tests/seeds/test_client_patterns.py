"""The guide's code for agents runs with nothing but its imports changed, as the README's table says."""

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
    """Run one block of the guide with these names known; return what it defines."""
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
        await stop(agent)


async def test_the_agent_of_the_guide_goes_on_without_a_registry(capsys: pytest.CaptureFixture[str]) -> None:
    """And says so."""
    url = f"http://127.0.0.1:{free_port()}"
    agent = run("class MyAgent:", url)["MyAgent"](url)

    await agent.start()

    assert f"Registry communication failed: {url}" in capsys.readouterr().out
    await stop(agent)


async def stop(agent: Any) -> None:
    """End what the guide's agent leaves running for ever."""
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        if "_heartbeat_loop" in repr(task.get_coro()):
            task.cancel()
            await asyncio.wait({task})
    await agent.registry_client.close()


async def test_the_discovery_of_the_guide_finds_agents_both_ways(
    redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its client, and by HTTP."""
    import aiohttp  # noqa: PLC0415 - the guide's own, for its second way

    with Replica(redis_url) as replica:
        async with RegistryClient(replica.url) as client:
            capability = {"name": "read_file", "version": "1.0.0", "category": "file_operations"}
            agent = {"id": "f", "name": "Files", "endpoint": "http://f:1", "labels": {"env": "production"}}
            await client.register_agent(agent | {"capabilities": [capability]})
            await client.heartbeat("f")
            assert agent_ids(await client.discover_services()) == ["f"]
            # Its client is closed by nobody, so this test does.
            made: list[RegistryClient] = []

            def make(url: str) -> RegistryClient:
                made.append(RegistryClient(url))
                return made[-1]

            await run("def discover_file_agents", replica.url, RegistryClient=make, aiohttp=aiohttp)[
                "discover_file_agents"
            ]()
            await made[0].close()

    assert "Found agent: Files at http://f:1" in capsys.readouterr().out


async def test_the_fallback_of_the_guide_says_that_it_is_offline(redis_url: str) -> None:
    """The seed's `except` meets what the client raises; its answer is the client's own."""
    data = {"id": "a", "endpoint": "http://a:1"}
    async with RegistryClient(f"http://127.0.0.1:{free_port()}") as client:
        names = {"registry_client": client, "registration_data": data}
        offline = await run("async def register_with_fallback", "", **names)["register_with_fallback"]()
        assert offline == {"status": "offline", "message": "Registry unavailable"}
        assert await client.register_with_fallback(data) == offline
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        names = {"registry_client": client, "registration_data": data}
        answer = await run("async def register_with_fallback", "", **names)["register_with_fallback"]()
        assert answer["status"] == "success"


async def test_the_check_of_the_guide_and_the_clients_say_the_same() -> None:
    """Of what both require; the registry has defaults for the rest."""
    async with RegistryClient("http://127.0.0.1:9") as client:
        for data in ({"name": "n", "namespace": "n", "agent_type": "t", "endpoint": "http://a:1"}, {"id": "a"}):
            checked = {"name": "n", "namespace": "n", "agent_type": "t"} | data
            check = run("async def validate_registration", "", registration_data=checked)["validate_registration"]
            with pytest.raises(ValueError, match=r"^Missing required field: ") as theirs:
                await check()
            with pytest.raises(ValueError, match=r"^Missing required field: ") as ours:
                await client.register_agent(data)
            assert str(ours.value) == str(theirs.value)


async def test_the_robust_loop_of_the_guide_survives_a_registry_that_comes_late(redis_url: str) -> None:
    """It counts exceptions and refusals alike, and beats once both are over."""
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
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
        quick = type("quick", (), {"sleep": staticmethod(pause)})
        names = {"registry_client": client, "agent_id": "a", "heartbeat_interval": 30.0, "asyncio": quick}
        loop = run("async def robust_heartbeat_loop", "", **names)["robust_heartbeat_loop"]
        task = asyncio.create_task(loop())
        await async_wait_until(lambda: 30.0 in pauses, description="a heartbeat was taken")
        task.cancel()
        await asyncio.wait({task})

    assert pauses == [2, 4, 30.0]
