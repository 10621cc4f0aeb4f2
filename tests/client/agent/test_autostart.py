"""The MCP server of an agent: announced by the application or, if it has none, started automatically."""

import asyncio
from typing import Any

import httpx2
import pytest
from mcp.server import MCPServer
from mcp_mesh_client import DecoratorOrderError, InvalidData, announce, mesh_agent
from mcp_mesh_client.agent.agent_process import AgentProcess

from tests.support.canned_server import CannedServer, json_response
from tests.support.http_calls import REQUEST_TIMEOUT_S
from tests.support.in_process_agent import in_process_agent
from tests.support.polling import async_wait_until, wait_until


@pytest.mark.usefixtures("local_process")
def test_a_tool_without_dependency_injection_is_rejected_by_announce() -> None:
    """The bare function may also be added to the server after its declaration."""
    server = MCPServer("s")

    def greet(it: Any = None) -> str:
        return str(it)

    mesh_agent(dependencies=["it"])(greet)
    server.add_tool(greet)

    with pytest.raises(
        DecoratorOrderError,
        match=r"greet is registered as a tool without dependency injection: put @server\.tool",
    ):
        announce(server, "http://me:1")


@pytest.mark.usefixtures("local_process")
def test_announce_requires_an_endpoint() -> None:
    """It comes from the argument or from the environment."""
    with pytest.raises(InvalidData, match=r"^endpoint: expected the URL for MCP calls"):
        announce()
    with pytest.raises(InvalidData, match=r"^endpoint: expected http"):
        announce(endpoint="me:1")


async def test_announce_adds_the_missing_tools_once(local_process: AgentProcess) -> None:
    """Repeated calls change nothing; a function that is a tool already stays as it is."""
    server = MCPServer("s")

    @server.tool(name="hello")
    @mesh_agent(capability="greeting", dependencies=["it"])
    def greet(it: Any = None) -> str:
        return str(it)

    assert greet() == "None"

    @mesh_agent(capabilities=["a", "b"])
    def unserved() -> None:
        """Do nothing."""

    unserved()
    for _ in range(2):
        announce(server, "http://me:1")

    assert [tool.name for tool in await server.list_tools()] == ["hello", "unserved", "b"]
    assert [route.path for route in server._custom_starlette_routes] == ["/health"]
    assert {
        tool["function_name"]: "input_schema" in tool
        for tool in local_process.agent.registration_document()["metadata"]["tools"]
    } == {
        "hello": True,
        "unserved": True,
        "b": True,
    }


def test_an_automatic_server_stops_when_the_application_announces_its_own() -> None:
    """The agent then has the announced endpoint."""
    with in_process_agent(MCP_MESH_AUTO_RUN="true") as local_process:

        @mesh_agent()
        def unserved() -> None:
            """Do nothing."""

        unserved()
        automatic = wait_until(lambda: local_process.agent.endpoint or "", description="the automatic server started")
        wait_until(lambda: health(automatic).get("agent_id") == local_process.agent.id, description="it responds")
        announce(endpoint="http://me:1")
        assert local_process.agent.endpoint == "http://me:1/mcp"
        assert health(automatic) == {}


def health(endpoint: str) -> dict[str, Any]:
    """Return the health response of an agent, empty if it does not respond."""
    try:
        response: dict[str, Any] = httpx2.get(
            f"{endpoint.removesuffix('/mcp')}/health", timeout=REQUEST_TIMEOUT_S
        ).json()
    except httpx2.TransportError:
        return {}
    return response


async def test_an_unexpected_error_does_not_stop_the_agent(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the agent tries again."""
    async with CannedServer(json_response(status="success", dependencies_resolved=[1])) as server:
        with in_process_agent(server.url, MCP_MESH_ENDPOINT="http://me:1") as local_process:
            local_process.lifecycle._backoff._bound = 0.01

            @mesh_agent(dependencies=["it"])
            def needy(it: Any = None) -> Any:
                return it

            assert needy() is None
            await async_wait_until(lambda: len(server.requests) >= 2, description="the agent tries again")
            await asyncio.to_thread(local_process.deregister)

    assert "agent_lifecycle_failed" in caplog.text
