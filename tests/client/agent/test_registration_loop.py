"""The lifecycle of an agent: one registration, a heartbeat per interval, and recovery from failures of the registry."""

import asyncio
import json
import logging
from types import FunctionType
from typing import Any

import httpx2
import pytest
from mcp_mesh_client import InvalidData, mesh_agent
from mcp_mesh_client.agent import registration_loop
from mcp_mesh_client.agent.agent_process import AgentProcess

from tests.support.canned_server import CannedServer, http_response, json_response
from tests.support.http_calls import REQUEST_TIMEOUT_S
from tests.support.in_process_agent import in_process_agent
from tests.support.polling import async_wait_until, wait_until
from tests.support.ports import free_port
from tests.support.replica import Replica

ENDPOINT = "http://127.0.0.1:9"
PROVIDER = {"agent_id": "date-1", "endpoint": "http://date:1", "tool_name": "get_date"}
RESOLVED = {"dependencies_resolved": {"greet": {"date_service": PROVIDER}}, "dependencies_version": "v1"}
REGISTERED = json_response(status="success", agent_id="a", resource_version="1", message="", **RESOLVED)
RECORDED = json_response(status="success", timestamp="2026-11-27T00:00:00.000Z")
UNKNOWN = http_response(404, {"status": "error", "error": "unknown_agent", "message": "who?", "details": []})


def greet(date_service: Any = None) -> Any:
    """Return the provider of the dependency."""
    return date_service and date_service.provider


def calls(server: CannedServer) -> list[str]:
    """Return the method and path of each request."""
    return [" ".join(head.split()[:2]) for head in server.requests]


async def deregister(local_process: AgentProcess) -> None:
    """Deregister the agent, while this event loop serves the registry."""
    await asyncio.to_thread(local_process.deregister)


def stored_agent(replica: Replica, local_process: AgentProcess) -> Any:
    """Return this agent as a replica returns it, or None."""
    response = httpx2.get(f"{replica.url}/agents/{local_process.agent.id}", timeout=REQUEST_TIMEOUT_S)
    return response.json() if response.status_code == 200 else None


async def test_all_functions_share_one_registration_and_one_heartbeat(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Declarations in a row share them; each heartbeat has the `dependencies_version` of the last response."""
    monkeypatch.setattr(registration_loop, "DEBOUNCE_S", 2.0)
    async with CannedServer(REGISTERED, RECORDED) as server:
        with in_process_agent(server.url, MCP_MESH_ENDPOINT=ENDPOINT) as local_process:
            wrapped = mesh_agent(dependencies=["date_service"])(greet)
            for number in range(20):
                function = FunctionType(greet.__code__, {}, f"greet_{number}")
                mesh_agent(capability="greeting")(function)
            await async_wait_until(lambda: len(server.requests) >= 3, description="heartbeats arrive")
            assert wrapped() == PROVIDER
            await deregister(local_process)

    assert calls(server)[:3] == ["POST /agents", "POST /heartbeat", "POST /heartbeat"]
    assert calls(server)[-1] == f"DELETE /agents/{local_process.agent.id}"
    assert len(json.loads(server.bodies[0])["metadata"]["tools"]) == 21
    assert json.loads(server.bodies[1]) == {"agent_id": local_process.agent.id, "dependencies_version": "v1"}
    assert [record.message for record in caplog.records if record.levelno > logging.INFO] == []


async def test_an_unknown_agent_registers_again_at_once() -> None:
    """The heartbeats continue after that."""
    async with CannedServer(REGISTERED, UNKNOWN, REGISTERED, RECORDED) as server:
        with in_process_agent(server.url, MCP_MESH_ENDPOINT=ENDPOINT) as local_process:
            mesh_agent(dependencies=["date_service"])(greet)
            await async_wait_until(lambda: len(server.requests) >= 4, description="heartbeats continue")
            await deregister(local_process)

    assert calls(server)[:4] == ["POST /agents", "POST /heartbeat", "POST /agents", "POST /heartbeat"]


async def test_a_later_declaration_is_registered() -> None:
    """One request registers all functions again."""
    async with CannedServer(REGISTERED, RECORDED, REGISTERED, RECORDED) as server:
        with in_process_agent(server.url, MCP_MESH_ENDPOINT=ENDPOINT, MCP_MESH_HEALTH_INTERVAL="60") as local_process:
            mesh_agent(dependencies=["date_service"])(greet)
            await async_wait_until(lambda: len(server.requests) == 1, description="it registers")
            mesh_agent(capability="later")(calls)
            await async_wait_until(lambda: len(server.requests) == 2, description="it registers again")
            await deregister(local_process)

    assert [tool["function_name"] for tool in json.loads(server.bodies[1])["metadata"]["tools"]] == ["greet", "calls"]


async def test_a_rejected_registration_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The log has the message of the registry; the agent works on and retries."""
    rejection = http_response(
        422, {"status": "error", "error": "validation_failed", "message": "name: too long", "details": []}
    )
    async with CannedServer(rejection, rejection, REGISTERED, RECORDED) as server:
        with in_process_agent(server.url, MCP_MESH_ENDPOINT=ENDPOINT) as local_process:
            local_process.lifecycle._backoff._bound = 0.01
            wrapped = mesh_agent(dependencies=["date_service"])(greet)
            assert wrapped() is None
            await async_wait_until(lambda: wrapped() == PROVIDER, description="it is registered in the end")
            await deregister(local_process)

    assert [record.message for record in caplog.records if "agent_rejected" in record.message] == [
        f"agent_rejected id={local_process.agent.id} reason=name: too long"
    ]


async def test_a_url_of_another_server_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The log names the response and asks to check the URL; the agent retries."""
    async with CannedServer(http_response(404, {"detail": "Not Found"})) as server:
        with in_process_agent(server.url, MCP_MESH_ENDPOINT=ENDPOINT) as local_process:
            mesh_agent(capability="greeting")(greet)
            await async_wait_until(lambda: "agent_rejected" in caplog.text, description="the error is logged")
            await deregister(local_process)

    logged = [record.message for record in caplog.records if "agent_rejected" in record.message]
    assert len(logged) == 1
    assert "Not a registry response: status 404" in logged[0]
    assert logged[0].endswith("check the URL")
    assert {*calls(server)} == {"POST /agents"}


async def test_a_rejected_agent_does_not_deregister(caplog: pytest.LogCaptureFixture) -> None:
    """It was never registered, so it neither sends a request nor logs a failure."""
    rejection = http_response(
        401, {"status": "error", "error": "unauthorized", "message": "a token, please", "details": []}
    )
    async with CannedServer(rejection) as server:
        with in_process_agent(server.url, MCP_MESH_ENDPOINT=ENDPOINT) as local_process:
            mesh_agent(capability="greeting")(greet)
            await async_wait_until(lambda: "agent_rejected" in caplog.text, description="it is rejected")
            await deregister(local_process)

    assert calls(server) == ["POST /agents"]
    assert "agent_deregistration_failed" not in caplog.text


async def test_an_agent_that_never_reached_a_registry_does_not_deregister(caplog: pytest.LogCaptureFixture) -> None:
    """It does not wait for the registry either."""
    with in_process_agent(MCP_MESH_ENDPOINT=ENDPOINT) as local_process:
        mesh_agent(capability="greeting")(greet)
        await async_wait_until(
            lambda: local_process.agent.registry_state == "offline",
            description="the registry is unreachable",
        )
        await deregister(local_process)

    assert "agent_deregistration_failed" not in caplog.text


async def test_a_registration_is_logged_with_id_and_endpoint(caplog: pytest.LogCaptureFixture) -> None:
    """Each registration has one line: only the log shows the generated id and port."""
    caplog.set_level(logging.INFO, "mcp_mesh_client")
    async with CannedServer(REGISTERED, RECORDED, UNKNOWN, REGISTERED, RECORDED) as server:
        with in_process_agent(server.url, MCP_MESH_ENDPOINT=ENDPOINT) as local_process:
            mesh_agent(capability="greeting")(greet)
            await async_wait_until(lambda: len(server.requests) >= 5, description="heartbeats continue")
            await deregister(local_process)

    logged = f"agent_registered id={local_process.agent.id} endpoint={ENDPOINT}/mcp"
    assert [record.message for record in caplog.records if "agent_registered" in record.message] == [logged, logged]


def test_an_agent_starts_before_its_registry(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """It works without one, logs one warning, and registers when the registry responds."""
    port = free_port()
    caplog.set_level(logging.INFO, "mcp_mesh_client")
    with in_process_agent(f"http://127.0.0.1:{port}", MCP_MESH_ENDPOINT=ENDPOINT) as local_process:
        wrapped = mesh_agent(dependencies=["date_service"])(greet)
        assert wrapped() is None
        wait_until(lambda: local_process.agent.registry_state == "offline", description="the registry is unreachable")
        with Replica(redis_url, REGISTRY_PORT=str(port)) as replica:
            wait_until(lambda: stored_agent(replica, local_process), description="it is registered")
            local_process.deregister()

    assert [record.message.partition(" ")[0] for record in caplog.records if "registry_" in record.message] == [
        "registry_unavailable",
        "registry_reachable",
    ]


def test_an_outage_of_the_registry_keeps_the_resolution(redis_url: str) -> None:
    """Resolved dependencies stay callable until the registry responds with another resolution."""
    with Replica(redis_url) as replica, in_process_agent(replica.url, MCP_MESH_ENDPOINT=ENDPOINT) as local_process:
        tools = [{"function_name": "get_date", "capability": "date_service"}]
        date = {"agent_id": "date-1", "metadata": {"endpoint": "http://date:1", "tools": tools}}
        httpx2.post(f"{replica.url}/agents", json=date, timeout=REQUEST_TIMEOUT_S).raise_for_status()
        wrapped = mesh_agent(dependencies=["date_service"])(greet)
        wait_until(lambda: wrapped() == PROVIDER, description="it is resolved")
        replica.pause()
        wait_until(lambda: local_process.agent.registry_state == "offline", description="the timeout is detected")
        assert wrapped() == PROVIDER
        replica.resume()
        wait_until(lambda: local_process.agent.registry_state == "online", description="the registry is reachable")
        httpx2.delete(f"{replica.url}/agents/date-1", timeout=REQUEST_TIMEOUT_S).raise_for_status()
        wait_until(lambda: wrapped() is None, description="the provider is gone")


def test_heartbeats_continue_through_another_replica(redis_url: str) -> None:
    """The agent stays registered without a change after its replica was killed."""
    with (
        Replica(redis_url) as one,
        Replica(redis_url) as other,
        in_process_agent(f"{one.url},{other.url}", MCP_MESH_ENDPOINT=ENDPOINT) as local_process,
    ):
        mesh_agent(dependencies=["date_service"])(greet)
        first = wait_until(lambda: stored_agent(other, local_process), description="it is registered")
        one.kill()
        wait_until(
            lambda: stored_agent(other, local_process)["last_heartbeat"] > first["last_heartbeat"],
            description="heartbeats arrive",
        )
        wait_until(
            lambda: stored_agent(other, local_process)["resource_version"] == first["resource_version"],
            description="unchanged",
        )
        local_process.deregister()
        assert stored_agent(other, local_process) is None


def test_a_wrong_registry_url_is_rejected_by_the_declaration() -> None:
    """Without this check it would fail later, in a background thread."""
    with in_process_agent(""), pytest.raises(InvalidData, match=r"^registry_url: expected http or https"):
        mesh_agent(capability="greeting", registry_url="localhost:8000")(greet)


async def test_any_declaration_may_set_the_registry_url() -> None:
    """The environment takes precedence."""
    async with CannedServer(REGISTERED, RECORDED) as server:
        with in_process_agent("", MCP_MESH_ENDPOINT=ENDPOINT) as local_process:
            mesh_agent(registry_url=server.url, dependencies=["date_service"])(greet)
            await async_wait_until(lambda: len(server.requests) >= 2, description="it is registered there")
            await deregister(local_process)
            assert calls(server)[-1].startswith("DELETE")
