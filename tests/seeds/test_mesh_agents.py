"""The other uses of `@mesh_agent` in the guides run with only their imports changed."""

import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from mcp_mesh_client import mesh_agent, tool
from mcp_mesh_client.agent.agent_process import AgentProcess

from tests.seeds.code_blocks import find_code_block
from tests.seeds.test_client_patterns import NAMES
from tests.support.agent_process import call_tool, wait_until_registered
from tests.support.http_calls import REQUEST_TIMEOUT_S
from tests.support.in_process_agent import in_process_agent
from tests.support.polling import wait_until
from tests.support.replica import Replica

GUIDE, PAGE = "pull_based_registry.md", "registry_service.md"


@pytest.fixture
def replica(redis_url: str) -> Iterator[Replica]:
    """Provide a replica in its own process, since these tests block."""
    with Replica(redis_url) as found:
        yield found


@pytest.fixture
def local_process(replica: Replica) -> Iterator[AgentProcess]:
    """Provide the agent of this process, which serves the declared functions itself."""
    with in_process_agent(replica.url, MCP_MESH_AUTO_RUN="true", MCP_MESH_OVERRIDE="true") as found:
        yield found


def run(document: str, containing: str) -> dict[str, Any]:
    """Run one block with its imports changed; return the names it defines."""
    code = find_code_block(document, containing)
    for theirs, ours in NAMES.items():
        code = code.replace(theirs, ours)
    assert not re.search(r"^\s*(?:from|import) mcp_(?!mesh_client\b)", code, re.MULTILINE)
    names: dict[str, Any] = {"mesh_agent": mesh_agent, "tool": tool, "__name__": __name__}
    exec(compile(code, document, "exec"), names)  # noqa: S102 - that is the test
    return names


async def test_a_function_with_lists_of_capabilities_is_registered_and_served(
    local_process: AgentProcess, replica: Replica
) -> None:
    """It is registered with the address at which it is served, and a call by either name arrives."""
    my_tool = run(PAGE, "capabilities=[")["my_tool"]

    agent = wait_until_registered(replica.url, local_process.agent.id.rpartition("-")[0])
    assert agent["id"] == local_process.agent.id
    assert {each["name"]: each["function_name"] for each in agent["capabilities"]} == {
        "file_read": "my_tool",
        "file_write": "file_write",
    }
    assert agent["health_interval"] == 0.1
    for each in agent["capabilities"]:
        assert each["dependencies"] == [{"capability": "auth_service"}]
    assert await my_tool("p") is None
    assert (
        httpx2.get(agent["endpoint"].replace("/mcp", "/health"), timeout=REQUEST_TIMEOUT_S).json()["agent_id"]
        == (agent["id"])
    )
    unresolved = httpx2.get(f"{replica.url}/agents/{agent['id']}/dependencies", timeout=REQUEST_TIMEOUT_S).json()[
        "dependencies_resolved"
    ]
    assert unresolved == {"my_tool": {"auth_service": None}, "file_write": {"auth_service": None}}


async def test_the_file_agent_of_the_guide_is_registered(local_process: AgentProcess, replica: Replica) -> None:
    """An instance of the class registers an agent with its name, namespace, capability and tool."""
    run(GUIDE, "class FileAgent:")["FileAgent"]()

    agent = wait_until_registered(replica.url, local_process.agent.id.rpartition("-")[0])
    assert (agent["id"], agent["name"], agent["namespace"]) == (local_process.agent.id, "Enhanced File Agent", "system")
    (capability,) = agent["capabilities"]
    assert capability["input_schema"]["required"] == ["file_path"]
    assert {name: capability[name] for name in ("name", "function_name", "version", "category", "tags")} == {
        "name": "read_file",
        "function_name": "read_file",
        "version": "1.2.0",
        "category": "file_operations",
        "tags": ["io", "filesystem", "security"],
    }


def test_the_command_agent_of_the_guide_has_the_capabilities_its_context_requires(
    local_process: AgentProcess, replica: Replica
) -> None:
    """It has its four capabilities, but no tool."""
    run(GUIDE, "class CommandAgent:")["CommandAgent"]()

    agent = wait_until_registered(replica.url, local_process.agent.id.rpartition("-")[0])
    assert (agent["security_context"], agent["id"]) == ("high_security", local_process.agent.id)
    assert {each["name"] for each in agent["capabilities"]} == {
        "execute_command",
        "authentication",
        "authorization",
        "audit",
    }


async def test_an_agent_that_serves_itself_can_be_called(local_process: AgentProcess, replica: Replica) -> None:
    """By any MCP client; it deregisters when the process ends."""

    @mesh_agent(capability="double")
    def double(number: int) -> int:
        return 2 * number

    assert double(1) == 2
    agent = wait_until_registered(replica.url, local_process.agent.id.rpartition("-")[0])
    assert await call_tool(agent["endpoint"], "double", number=21) == 42
    local_process.deregister()
    wait_until(
        lambda: httpx2.get(f"{replica.url}/agents/{agent['id']}", timeout=REQUEST_TIMEOUT_S).status_code == 404,
        description="the agent is deregistered",
    )
