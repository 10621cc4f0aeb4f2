"""What a server is given by the agent, and who serves where nobody else does."""

import asyncio
from typing import Any

import httpx2
import pytest
from mcp.server import MCPServer
from mcp_mesh_client import DecoratorOrderError, InvalidData, announce, mesh_agent
from mcp_mesh_client.agent.process import AgentProcess

from tests.support.canned_server import CannedServer, json_response
from tests.support.in_process_agent import in_process_agent
from tests.support.polling import async_wait_until, wait_until


@pytest.mark.usefixtures("here")
def test_a_tool_that_gets_no_dependencies_is_found_before_it_is_served() -> None:
    """A server may be given the bare function later, too."""
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


@pytest.mark.usefixtures("here")
def test_an_announcement_says_where() -> None:
    """Or the environment does."""
    with pytest.raises(InvalidData, match=r"^endpoint: expected the URL of this process"):
        announce()
    with pytest.raises(InvalidData, match=r"^endpoint: expected http"):
        announce(endpoint="me:1")


async def test_a_server_is_given_what_it_lacks_once(here: AgentProcess) -> None:
    """However often it is announced; what is a tool of it already is left alone."""
    server = MCPServer("s")

    @server.tool(name="hello")
    @mesh_agent(capability="greeting", dependencies=["it"])
    def greet(it: Any = None) -> str:
        return str(it)

    assert greet() == "None"

    @mesh_agent(capabilities=["a", "b"])
    def shown() -> None:
        """Do nothing."""

    shown()
    for _ in range(2):
        announce(server, "http://me:1")

    assert [tool.name for tool in await server.list_tools()] == ["hello", "shown", "b"]
    assert [route.path for route in server._custom_starlette_routes] == ["/health"]
    assert {
        tool["function_name"]: "input_schema" in tool
        for tool in here.agent.registration_document()["metadata"]["tools"]
    } == {
        "hello": True,
        "shown": True,
        "b": True,
    }


def test_what_served_by_itself_gives_way_to_who_serves() -> None:
    """It ends, and the agent answers elsewhere."""
    with in_process_agent(MCP_MESH_AUTO_RUN="true") as here:

        @mesh_agent()
        def shown() -> None:
            """Do nothing."""

        shown()
        own = wait_until(lambda: here.agent.endpoint or "", description="it serves by itself", timeout=10)
        wait_until(lambda: health(own).get("agent_id") == here.agent.id, description="it answers")
        announce(endpoint="http://me:1")
        assert here.agent.endpoint == "http://me:1"
        assert health(own) == {}


def health(endpoint: str) -> dict[str, Any]:
    """Return what an agent says of itself, nothing if it does not answer."""
    try:
        found: dict[str, Any] = httpx2.get(f"{endpoint}/health", timeout=5).json()
    except httpx2.TransportError:
        return {}
    return found


async def test_an_error_nobody_thought_of_does_not_end_a_life(caplog: pytest.LogCaptureFixture) -> None:
    """It is told, and the agent tries again."""
    async with CannedServer(json_response(status="success", dependencies_resolved=[1])) as server:
        with in_process_agent(server.url, MCP_MESH_ENDPOINT="http://me:1") as here:
            here.lifecycle._backoff._bound = 0.01

            @mesh_agent(dependencies=["it"])
            def needy(it: Any = None) -> Any:
                return it

            assert needy() is None
            await async_wait_until(lambda: len(server.requests) >= 2, description="it tries again", timeout=10)
            await asyncio.to_thread(here.deregister)

    assert "agent_lifecycle_failed" in caplog.text
