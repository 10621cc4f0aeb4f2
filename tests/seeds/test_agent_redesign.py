"""The ten tests that `agent_redesign.md` plans, by their names, run on the code of that page."""

import ast
import inspect
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from mcp.server import MCPServer
from mcp_mesh_client import mesh_agent
from mcp_mesh_client.agent.agent_process import AgentProcess
from mcp_mesh_client.agent.local_agent import LocalAgent

from tests.seeds.code_blocks import find_code_block
from tests.support.http_calls import REQUEST_TIMEOUT_S
from tests.support.in_process_agent import in_process_agent
from tests.support.polling import wait_until
from tests.support.replica import Replica

PAGE = "agent_redesign.md"
ME = "http://localhost:8889"
DATE = {"function_name": "get_current_date", "capability": "date_service", "version": "1.2.0"}
TAGS = ["production", "US_EAST"]


@pytest.fixture
def replica(redis_url: str) -> Iterator[Replica]:
    """Provide a replica in its own process, since these tests block."""
    with Replica(redis_url) as found:
        yield found


def run_page_code(server: MCPServer[Any]) -> dict[str, Any]:
    """Run the code of the page; return the names it defines."""
    names: dict[str, Any] = {"server": server, "mesh_agent": mesh_agent}
    exec(compile(find_code_block(PAGE, "@server.tool()"), PAGE, "exec"), names)  # noqa: S102 - that is the test
    return names


def register(replica: Replica, agent_id: str, *tools: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    """Register an agent in the format of the page; return the response."""
    metadata = {"endpoint": f"http://{agent_id}:8080", "tools": list(tools)} | metadata
    response = httpx2.post(
        f"{replica.url}/agents", json={"agent_id": agent_id, "metadata": metadata}, timeout=REQUEST_TIMEOUT_S
    )
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def provider_id(local_process: AgentProcess, function: str, capability: str) -> Any:
    """Return the id of the current provider of a dependency."""
    provider = local_process.agent.functions[function].dependencies[capability].provider
    return provider and provider["agent_id"]


def test_agent_id_generation_with_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    """One id for each process: the name from the environment or of the script, and eight hexadecimal digits."""
    monkeypatch.setattr("sys.argv", ["/opt/agents/weather.py"])
    assert re.fullmatch(r"weather-[0-9a-f]{8}", LocalAgent().id)
    monkeypatch.setenv("MCP_MESH_AGENT_NAME", "myservice")
    first, second = LocalAgent().id, LocalAgent().id
    assert re.fullmatch(r"myservice-[0-9a-f]{8}", first)
    assert first != second


async def test_multiple_tools_single_agent() -> None:
    """Two functions, one of them from the page, are one agent with two tools."""
    with in_process_agent() as local_process:
        server = MCPServer("s")
        run_page_code(server)

        @server.tool()
        @mesh_agent(capability="goodbye")
        def farewell(name: str) -> str:
            return f"Goodbye {name}"

        document = local_process.agent.registration_document(ME)
        assert document["agent_id"] == local_process.agent.id
        assert [tool["function_name"] for tool in document["metadata"]["tools"]] == ["greet", "farewell"]
        assert [tool.name for tool in await server.list_tools()] == ["greet", "farewell"]
        assert farewell("Ada") == "Goodbye Ada"


async def test_decorator_order_preservation() -> None:
    """The server stores the original function; later changes of its dependencies still take effect."""
    with in_process_agent() as local_process:
        server = MCPServer("s")
        greet = run_page_code(server)["greet"]
        assert str(inspect.signature(greet)) == "(name: str) -> str"
        for provider, expected in (
            (None, "Hello Ada"),
            (lambda: "today", "Hello Ada, date is today"),
            (None, "Hello Ada"),
        ):
            dependencies = {} if provider is None else {"date_service": provider}
            assert greet("Ada", **dependencies) == expected
        result: Any = await server.call_tool("greet", {"name": "Ada"})
        assert result.structured_content == {"result": "Hello Ada"}
        with pytest.raises(TypeError, match=r"put @server\.tool\(\) above @mesh_agent"):
            mesh_agent(capability="x")(server.tool()(lambda_tool))
        assert list(local_process.agent.functions) == ["greet"]


def lambda_tool() -> None:
    """Do nothing."""


def test_batch_registration_payload() -> None:
    """One call for all functions, in the format of the page."""
    example = re.sub(r"^ +\.\.\.$", "", find_code_block(PAGE, '"tools": ['), flags=re.MULTILINE)
    shape = ast.literal_eval(example.partition("\n")[2])
    with in_process_agent(MCP_MESH_AGENT_NAME="myservice") as local_process:
        run_page_code(MCPServer("s"))
        document = local_process.agent.registration_document(ME)

    assert document.keys() >= shape.keys()
    assert document["metadata"].keys() == shape["metadata"].keys()
    assert document["metadata"]["tools"][0].keys() == shape["metadata"]["tools"][0].keys()
    assert document["metadata"]["endpoint"] == ME
    assert document["metadata"]["tools"] == [
        {
            "function_name": "greet",
            "capability": "greeting",
            "version": "1.0.0",
            "tags": ["demo", "v1"],
            "dependencies": [{"capability": "date_service", "version": ">=1.0.0", "tags": TAGS}],
        }
    ]


def test_dependency_resolution_per_tool(replica: Replica) -> None:
    """Each function receives its own dependencies; a missing one is None."""
    register(replica, "dateservice-1", DATE | {"tags": TAGS})
    with in_process_agent(replica.url, MCP_MESH_ENDPOINT=ME) as local_process:
        run_page_code(MCPServer("s"))

        @mesh_agent(dependencies=["date_service", "weather"])
        def forecast(date_service: Any = None, weather: Any = None) -> list[bool]:
            return [date_service is not None, weather is not None]

        wait_until(lambda: forecast() == [True, False], description="one dependency is resolved, the other is not")
        assert provider_id(local_process, "greet", "date_service") == "dateservice-1"
        assert local_process.agent.functions["greet"].dependencies.keys() == {"date_service"}


def test_multi_tool_registration_no_collision(replica: Replica) -> None:
    """The same function name on two agents is two functions."""
    tools = [{"function_name": name, "capability": capability} for name, capability in (("greet", "a"), ("bye", "b"))]
    register(replica, "one", *tools)
    register(replica, "two", *tools)

    rows = httpx2.get(f"{replica.url}/capabilities", timeout=REQUEST_TIMEOUT_S).json()["capabilities"]

    assert sorted((row["agent_id"], row["function_name"]) for row in rows) == [
        ("one", "bye"),
        ("one", "greet"),
        ("two", "bye"),
        ("two", "greet"),
    ]


def test_heartbeat_updates_all_tools(replica: Replica) -> None:
    """One heartbeat updates the dependencies of every function; the agent as a whole is healthy."""
    with in_process_agent(replica.url, MCP_MESH_ENDPOINT=ME) as local_process:
        run_page_code(MCPServer("s"))

        @mesh_agent(dependencies=["date_service"])
        def has_date(date_service: Any = None) -> bool:
            return date_service is not None

        def registered_agent() -> Any:
            return httpx2.get(f"{replica.url}/agents/{local_process.agent.id}", timeout=REQUEST_TIMEOUT_S).json()

        def is_registered() -> bool:
            """All functions are registered, and the first heartbeat, which is also a change, was sent."""
            agent = registered_agent()
            return agent.get("status") == "healthy" and "has_date" in json.dumps(agent)

        wait_until(is_registered, description="the agent is registered and healthy")
        registered = registered_agent()
        register(replica, "dateservice-1", DATE | {"tags": TAGS})

        wait_until(has_date, description="the function has its dependency")
        assert provider_id(local_process, "greet", "date_service") == "dateservice-1"
        now = registered_agent()
        assert (now["status"], now["resource_version"]) == ("healthy", registered["resource_version"])


def test_dependency_updates_specific_tools(replica: Replica) -> None:
    """When a provider deregisters, only the functions that used it lose it."""
    register(replica, "dateservice-1", DATE | {"tags": TAGS})
    register(replica, "weather-1", {"function_name": "now", "capability": "weather"})
    with in_process_agent(replica.url, MCP_MESH_ENDPOINT=ME) as local_process:
        run_page_code(MCPServer("s"))

        @mesh_agent(dependencies=["weather"])
        def forecast(weather: Any = None) -> bool:
            return weather is not None

        wait_until(forecast, description="the dependencies are resolved")
        httpx2.delete(f"{replica.url}/agents/dateservice-1", timeout=REQUEST_TIMEOUT_S).raise_for_status()

        wait_until(
            lambda: provider_id(local_process, "greet", "date_service") is None,
            description="the date service is removed",
        )
        assert forecast()


def test_version_constraint_filtering(replica: Replica) -> None:
    """The `>=1.0.0` of the page excludes older providers, and selects the newer one of two."""
    register(replica, "old", DATE | {"tags": TAGS, "version": "0.9.9"})
    with in_process_agent(replica.url, MCP_MESH_ENDPOINT=ME) as local_process:
        run_page_code(MCPServer("s"))
        wait_until(lambda: local_process.agent.registry_state == "online", description="the agent is registered")
        assert provider_id(local_process, "greet", "date_service") is None
        for agent_id, version in (("fits", "1.0.0"), ("fits-better", "1.1.0")):
            register(replica, agent_id, DATE | {"tags": TAGS, "version": version})
            wait_until(lambda: provider_id(local_process, "greet", "date_service") == agent_id, description=agent_id)  # noqa: B023


def test_tag_based_dependency_matching(replica: Replica) -> None:
    """A provider must have all tags of the page."""
    register(replica, "half", DATE | {"tags": TAGS[:1]})
    with in_process_agent(replica.url, MCP_MESH_ENDPOINT=ME) as local_process:
        run_page_code(MCPServer("s"))
        wait_until(lambda: local_process.agent.registry_state == "online", description="the agent is registered")
        assert provider_id(local_process, "greet", "date_service") is None
        register(replica, "whole", DATE | {"tags": [*TAGS, "more"]})

        wait_until(
            lambda: provider_id(local_process, "greet", "date_service") == "whole",
            description="the provider with all tags is resolved",
        )


def test_the_id_line_of_the_page_creates_an_id_in_our_format() -> None:
    """The line is executed unchanged."""
    names: dict[str, Any] = {}
    exec("import os\nfrom uuid import uuid4\n" + find_code_block(PAGE, "_SHARED_AGENT_ID ="), names)  # noqa: S102 - that is the test

    assert re.fullmatch(r"[\w-]+-[0-9a-f]{8}", names["_SHARED_AGENT_ID"])


def test_this_module_has_every_test_of_the_plan() -> None:
    """Under the name that the plan gives it."""
    planned = re.findall(
        r"^def (test_\w+)\(\)$",
        find_code_block(PAGE, "test_agent_id") + find_code_block(PAGE, "no_collision"),
        re.MULTILINE,
    )

    assert len(planned) == 10
    assert [name for name in planned if name not in globals()] == []
