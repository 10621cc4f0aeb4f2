"""How an agent lives: one registration, one heartbeat an interval, and through whatever befalls the registry."""

import asyncio
import json
import logging
from types import FunctionType
from typing import Any

import httpx2
import pytest
from mcp_mesh_client import InvalidData, mesh_agent
from mcp_mesh_client.agent import lifecycle
from mcp_mesh_client.agent.process import AgentProcess

from tests.support.canned_server import CannedServer, http_response, json_response
from tests.support.in_process_agent import in_process_agent
from tests.support.polling import async_wait_until, wait_until
from tests.support.ports import free_port
from tests.support.replica import Replica

ME = "http://127.0.0.1:9"
PROVIDER = {"agent_id": "date-1", "endpoint": "http://date:1", "tool_name": "get_date"}
RESOLVED = {"dependencies_resolved": {"greet": {"date_service": PROVIDER}}, "dependencies_version": "v1"}
REGISTERED = json_response(status="success", agent_id="a", resource_version="1", message="", **RESOLVED)
BEAT = json_response(status="success", timestamp="2026-11-27T00:00:00.000Z")
UNKNOWN = http_response(404, {"status": "error", "error": "unknown_agent", "message": "who?", "details": []})


def greet(date_service: Any = None) -> Any:
    """Tell who would be asked."""
    return date_service and date_service.provider


def calls(server: CannedServer) -> list[str]:
    """Return the method and path of each request."""
    return [" ".join(head.split()[:2]) for head in server.requests]


async def left(here: AgentProcess) -> None:
    """Let the agent take its leave, from a server on this loop."""
    await asyncio.to_thread(here.deregister)


def shown(replica: Replica, here: AgentProcess) -> Any:
    """Return this agent as a replica has it, None where it has not."""
    answer = httpx2.get(f"{replica.url}/agents/{here.agent.id}", timeout=5)
    return answer.json() if answer.status_code == 200 else None


async def test_all_functions_are_one_registration_and_one_heartbeat(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are declared in a row; each heartbeat carries what the last answer was."""
    monkeypatch.setattr(lifecycle, "DEBOUNCE_S", 2.0)
    async with CannedServer(REGISTERED, BEAT) as server:
        with in_process_agent(server.url, MCP_MESH_ENDPOINT=ME) as here:
            given = mesh_agent(dependencies=["date_service"])(greet)
            for number in range(20):
                function = FunctionType(greet.__code__, {}, f"greet_{number}")
                mesh_agent(capability="greeting")(function)
            await async_wait_until(lambda: len(server.requests) >= 3, description="it beats", timeout=15)
            assert given() == PROVIDER
            await left(here)

    assert calls(server)[:3] == ["POST /agents", "POST /heartbeat", "POST /heartbeat"]
    assert calls(server)[-1] == f"DELETE /agents/{here.agent.id}"
    assert len(json.loads(server.bodies[0])["metadata"]["tools"]) == 21
    assert json.loads(server.bodies[1]) == {"agent_id": here.agent.id, "dependencies_version": "v1"}
    assert [record.message for record in caplog.records if record.levelno > logging.INFO] == []


async def test_who_is_not_known_any_more_registers_again_at_once() -> None:
    """With the next heartbeats as before."""
    async with CannedServer(REGISTERED, UNKNOWN, REGISTERED, BEAT) as server:
        with in_process_agent(server.url, MCP_MESH_ENDPOINT=ME) as here:
            mesh_agent(dependencies=["date_service"])(greet)
            await async_wait_until(lambda: len(server.requests) >= 4, description="it beats again")
            await left(here)

    assert calls(server)[:4] == ["POST /agents", "POST /heartbeat", "POST /agents", "POST /heartbeat"]


async def test_what_is_declared_later_is_registered_then() -> None:
    """All of it, again in one call."""
    async with CannedServer(REGISTERED, BEAT, REGISTERED, BEAT) as server:
        with in_process_agent(server.url, MCP_MESH_ENDPOINT=ME, MCP_MESH_HEALTH_INTERVAL="60") as here:
            mesh_agent(dependencies=["date_service"])(greet)
            await async_wait_until(lambda: len(server.requests) == 1, description="it registers")
            mesh_agent(capability="later")(calls)
            await async_wait_until(lambda: len(server.requests) == 2, description="it registers anew")
            await left(here)

    assert [tool["function_name"] for tool in json.loads(server.bodies[1])["metadata"]["tools"]] == ["greet", "calls"]


async def test_a_refusal_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """With what the registry says; the agent works on, and asks again."""
    refusal = http_response(
        422, {"status": "error", "error": "validation_failed", "message": "name: too long", "details": []}
    )
    async with CannedServer(refusal, refusal, REGISTERED, BEAT) as server:
        with in_process_agent(server.url, MCP_MESH_ENDPOINT=ME) as here:
            here.lifecycle._backoff._bound = 0.01
            given = mesh_agent(dependencies=["date_service"])(greet)
            assert given() is None
            await async_wait_until(lambda: given() == PROVIDER, description="it is taken in the end", timeout=10)
            await left(here)

    assert [record.message for record in caplog.records if "agent_rejected" in record.message] == [
        f"agent_rejected id={here.agent.id} reason=name: too long"
    ]


async def test_what_answers_there_is_no_registry(caplog: pytest.LogCaptureFixture) -> None:
    """An agent whose URL led to another server asked it again and again, and said nothing to anybody."""
    async with CannedServer(http_response(404, {"detail": "Not Found"})) as server:
        with in_process_agent(server.url, MCP_MESH_ENDPOINT=ME) as here:
            mesh_agent(capability="greeting")(greet)
            await async_wait_until(lambda: "agent_rejected" in caplog.text, description="it says so", timeout=10)
            await left(here)

    said = [record.message for record in caplog.records if "agent_rejected" in record.message]
    assert len(said) == 1
    assert "Not a registry response: status 404" in said[0]
    assert said[0].endswith("check the URL")
    assert {*calls(server)} == {"POST /agents"}


async def test_who_was_never_taken_takes_no_leave(caplog: pytest.LogCaptureFixture) -> None:
    """With a wrong token an agent was told at its end that it "will be found silent", though nobody knew of it."""
    refusal = http_response(
        401, {"status": "error", "error": "unauthorized", "message": "a token, please", "details": []}
    )
    async with CannedServer(refusal) as server:
        with in_process_agent(server.url, MCP_MESH_ENDPOINT=ME) as here:
            mesh_agent(capability="greeting")(greet)
            await async_wait_until(lambda: "agent_rejected" in caplog.text, description="it is refused", timeout=10)
            await left(here)

    assert calls(server) == ["POST /agents"]
    assert "agent_deregistration_failed" not in caplog.text


async def test_who_never_reached_a_registry_takes_no_leave(caplog: pytest.LogCaptureFixture) -> None:
    """Nor does it wait for one that is not there, to tell it so."""
    with in_process_agent(MCP_MESH_ENDPOINT=ME) as here:
        mesh_agent(capability="greeting")(greet)
        await async_wait_until(lambda: here.agent.registry_state == "offline", description="there is none", timeout=20)
        await left(here)

    assert "agent_deregistration_failed" not in caplog.text


async def test_it_says_that_it_is_registered_and_where_it_answers(caplog: pytest.LogCaptureFixture) -> None:
    """Once, and again when it had to register anew: nothing else tells a person the id and the port that it got."""
    caplog.set_level(logging.INFO, "mcp_mesh_client")
    async with CannedServer(REGISTERED, BEAT, UNKNOWN, REGISTERED, BEAT) as server:
        with in_process_agent(server.url, MCP_MESH_ENDPOINT=ME) as here:
            mesh_agent(capability="greeting")(greet)
            await async_wait_until(lambda: len(server.requests) >= 5, description="it beats again", timeout=10)
            await left(here)

    said = f"agent_registered id={here.agent.id} endpoint={ME}"
    assert [record.message for record in caplog.records if "agent_registered" in record.message] == [said, said]


def test_an_agent_that_is_there_before_its_registry(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """It works without, says so once, and heals by itself."""
    port = free_port()
    caplog.set_level(logging.INFO, "mcp_mesh_client")
    with in_process_agent(f"http://127.0.0.1:{port}", MCP_MESH_ENDPOINT=ME) as here:
        given = mesh_agent(dependencies=["date_service"])(greet)
        assert given() is None
        wait_until(lambda: here.agent.registry_state == "offline", description="there is none")
        with Replica(redis_url, REGISTRY_PORT=str(port)) as replica:
            wait_until(lambda: shown(replica, here), description="it is registered", timeout=30)
            here.deregister()

    assert [record.message.partition(" ")[0] for record in caplog.records if "registry_" in record.message] == [
        "registry_unavailable",
        "registry_reachable",
    ]


def test_a_frozen_registry_takes_nothing_away(redis_url: str) -> None:
    """What was resolved stays so, and is called; only a registry that says otherwise ends it."""
    with Replica(redis_url) as replica, in_process_agent(replica.url, MCP_MESH_ENDPOINT=ME) as here:
        tools = [{"function_name": "get_date", "capability": "date_service"}]
        date = {"agent_id": "date-1", "metadata": {"endpoint": "http://date:1", "tools": tools}}
        httpx2.post(f"{replica.url}/agents", json=date).raise_for_status()
        given = mesh_agent(dependencies=["date_service"])(greet)
        wait_until(lambda: given() == PROVIDER, description="it is resolved")
        replica.pause()
        wait_until(lambda: here.agent.registry_state == "offline", description="it is found frozen", timeout=20)
        assert given() == PROVIDER
        replica.resume()
        wait_until(lambda: here.agent.registry_state == "online", description="it thaws", timeout=20)
        httpx2.delete(f"{replica.url}/agents/date-1").raise_for_status()
        wait_until(lambda: given() is None, description="it is said to be gone", timeout=20)


def test_when_its_replica_is_killed_it_beats_through_another(redis_url: str) -> None:
    """Without a change of its own, and nothing is lost."""
    with (
        Replica(redis_url) as one,
        Replica(redis_url) as other,
        in_process_agent(f"{one.url},{other.url}", MCP_MESH_ENDPOINT=ME) as here,
    ):
        mesh_agent(dependencies=["date_service"])(greet)
        first = wait_until(lambda: shown(other, here), description="it is registered")
        one.kill()
        wait_until(
            lambda: shown(other, here)["last_heartbeat"] > first["last_heartbeat"],
            description="it beats",
            timeout=15,
        )
        wait_until(lambda: shown(other, here)["resource_version"] == first["resource_version"], description="unchanged")
        here.deregister()
        assert shown(other, here) is None


def test_a_registry_that_is_no_url_is_said_where_it_is_declared() -> None:
    """It came as a traceback out of a background thread, again and again, and the agent went on without a registry."""
    with in_process_agent(""), pytest.raises(InvalidData, match=r"^registry_url: expected http or https"):
        mesh_agent(capability="greeting", registry_url="localhost:8000")(greet)


async def test_the_registry_may_be_said_by_any_declaration() -> None:
    """The environment comes first where it says one."""
    async with CannedServer(REGISTERED, BEAT) as server:
        with in_process_agent("", MCP_MESH_ENDPOINT=ME) as here:
            mesh_agent(registry_url=server.url, dependencies=["date_service"])(greet)
            await async_wait_until(lambda: len(server.requests) >= 2, description="it is registered there")
            await left(here)
            assert calls(server)[-1].startswith("DELETE")
