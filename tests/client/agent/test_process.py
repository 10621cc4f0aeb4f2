"""The agent of a process, to its end: signals, exits, forks, and whoever serves."""

import asyncio
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.support.agent_process import AgentProcess, call_tool, wait_until_registered
from tests.support.polling import wait_until
from tests.support.ports import free_port
from tests.support.replica import Replica

DECLARED = """
import os, signal, sys, threading, time
from mcp_mesh_client import agent_id, announce, mesh_agent, serve
# As at a terminal; who is started in the background by a shell is deaf to it.
signal.signal(signal.SIGINT, signal.default_int_handler)
{before}
@mesh_agent(capability="double")
def double(number: int) -> int:
    return 2 * number
{after}
"""
ELSEWHERE = 'announce(endpoint="http://127.0.0.1:9")\n'


def program(after: str, before: str = "") -> str:
    """Return a program that declares a function, and does this before and after."""
    return DECLARED.replace("{before}", before).replace("{after}", after)


@pytest.fixture
def replica(redis_url: str) -> Iterator[Replica]:
    """Provide a replica of its own process, for these tests block."""
    with Replica(redis_url) as found:
        yield found


def agents(replica: Replica) -> list[str]:
    """Return the ids of all agents."""
    return [agent["id"] for agent in httpx2.get(f"{replica.url}/agents", timeout=5).json()["agents"]]


@pytest.mark.parametrize(
    ("after", "number", "status"),
    [
        ("serve()", signal.SIGTERM, -signal.SIGTERM),
        ("serve()", signal.SIGINT, 0),
        (ELSEWHERE + "threading.Event().wait()", signal.SIGTERM, -signal.SIGTERM),
        ("threading.Event().wait()", signal.SIGTERM, -signal.SIGTERM),
        (ELSEWHERE + "import asyncio\nasyncio.run(asyncio.sleep(60))", signal.SIGTERM, -signal.SIGTERM),
        (ELSEWHERE + "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    sys.exit(3)", signal.SIGINT, 3),
    ],
)
def test_a_process_that_is_told_to_end_takes_its_leave(replica: Replica, after: str, number: int, status: int) -> None:
    """And ends as it would without being an agent."""
    with AgentProcess(program(after), replica.url) as process:
        wait_until_registered(replica.url, "agent")

        assert process.wait_for_exit(signal.Signals(number)) == status, process.output

        assert agents(replica) == []


def test_a_process_that_ends_by_itself_takes_its_leave(replica: Replica, tmp_path: Path) -> None:
    """With its own status."""
    wait = "while not os.path.exists(os.environ['GO']):\n    time.sleep(0.05)\nsys.exit(5)"
    with AgentProcess(program(ELSEWHERE + wait), replica.url, GO=str(tmp_path / "go")) as process:
        wait_until_registered(replica.url, "agent")
        (tmp_path / "go").touch()

        assert process.wait_for_exit() == 5, process.output
        assert agents(replica) == []


OWN = """
def own(number, frame):
    print("own handler", flush=True)
    sys.exit(7)
signal.signal(signal.SIGTERM, own)
"""


@pytest.mark.parametrize(("before", "after"), [(OWN, ""), ("", OWN)])
def test_an_own_handler_of_the_process_is_left_alone(replica: Replica, before: str, after: str) -> None:
    """Whether it was there before the agent or came after it; leave is taken when the process exits."""
    with AgentProcess(program(ELSEWHERE + after + "time.sleep(60)", before), replica.url) as process:
        wait_until_registered(replica.url, "agent")

        assert process.wait_for_exit(signal.SIGTERM) == 7, process.output

        assert "own handler" in process.output
        assert agents(replica) == []


def test_a_frozen_registry_does_not_hold_an_end_up(replica: Replica) -> None:
    """Some seconds are given to it."""
    with AgentProcess(program("serve()"), replica.url) as process:
        wait_until_registered(replica.url, "agent")
        replica.pause()
        assert process.wait_for_exit(signal.SIGTERM, timeout=6) == -signal.SIGTERM
        replica.resume()
        assert "agent_deregistration_failed" in process.output


FORK = """
while not os.path.exists(os.environ["FORK"]):
    time.sleep(0.05)
child = os.fork()
if not child:
    print("child", agent_id(), flush=True)
    if "{announces}":
        announce(endpoint="http://127.0.0.1:10")
        parent = os.getppid()
        while not os.path.exists(os.environ["GO"]) and os.getppid() == parent:
            time.sleep(0.05)
    sys.exit(0)
os.waitpid(child, 0)
print("child ended", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("announces", ["", "yes"])
def test_a_process_that_is_forked_off_is_another_agent(replica: Replica, announces: str, tmp_path: Path) -> None:
    """It has an id of its own, is there if it says where it answers, and its end is not its parent's."""
    after = ELSEWHERE + FORK.replace("{announces}", announces)
    folder = {"FORK": str(tmp_path / "fork"), "GO": str(tmp_path / "go")}
    with AgentProcess(program(after), replica.url, **folder) as process:
        wait_until_registered(replica.url, "agent")
        (tmp_path / "fork").touch()
        process.wait_for_output("child agent-")
        child = re.findall(r"child (agent-\w+)", process.output)[0]
        if announces:
            wait_until(lambda: child in agents(replica), description="the child is an agent")
            assert len(agents(replica)) == 2
            (tmp_path / "go").touch()
        process.wait_for_output("child ended")
        (parent,) = agents(replica)
        assert parent != child
        assert process.wait_for_exit(signal.SIGTERM) == -signal.SIGTERM
        assert agents(replica) == []


SERVER = """
from mcp.server import MCPServer
server = MCPServer("own", log_level="ERROR")

@server.tool(name="triple")
@mesh_agent(capability="triples")
def times_three(number: int) -> int:
    return 3 * number

announce(server, "http://127.0.0.1:{port}")
server.run("streamable-http", port={port})
"""


async def test_an_own_server_is_announced(replica: Replica) -> None:
    """It answers for its health, has what was no tool of it, and functions go by the names of their tools."""
    port = free_port()
    with AgentProcess(program(SERVER.replace("{port}", str(port))), replica.url) as process:
        agent = wait_until_registered(replica.url, "agent")
        names = {each["name"]: each["function_name"] for each in agent["capabilities"]}
        assert names == {"double": "double", "triples": "triple"}
        wait_until(lambda: answers(agent["endpoint"]), description="it answers", timeout=15)
        health = httpx2.get(f"{agent['endpoint']}/health").json()
        assert (health["status"], health["agent_id"]) == ("healthy", agent["id"])
        assert [await call_tool(agent["endpoint"], tool, number=7) for tool in ("double", "triple")] == [14, 21]
        assert process.wait_for_exit(signal.SIGTERM) == -signal.SIGTERM
        assert agents(replica) == []


def answers(endpoint: str) -> bool:
    """Tell whether somebody answers there."""
    try:
        return httpx2.get(f"{endpoint}/health").status_code == 200
    except httpx2.TransportError:
        return False


def test_a_program_that_still_imports_is_waited_for(replica: Replica, tmp_path: Path) -> None:
    """It is not served by a thread meanwhile, only to be found elsewhere a moment later."""
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(2.5)\n")
    after = "sys.path.insert(0, os.environ['SLOW'])\nimport slow\nserve()"
    with AgentProcess(program(after), replica.url, SLOW=str(tmp_path)):
        agent = wait_until_registered(replica.url, "agent")

        assert agent["updated_at"] == agent["created_at"]
        assert agent["resource_version"] == httpx2.get(f"{replica.url}/agents").json()["resource_version"]
        assert answers(agent["endpoint"])


WRONG = """
from mcp.server import MCPServer
server = MCPServer("wrong")

@mesh_agent(capability="greeting", dependencies=["date_service"])
@server.tool()
def greet(date_service=None) -> str:
    return ""
"""


def test_a_program_with_the_wrong_order_does_not_start() -> None:
    """It says which one is right."""
    with AgentProcess(program(WRONG), "http://127.0.0.1:9") as process:
        assert process.wait_for_exit() == 1
        assert "DecoratorOrderError: greet is already registered as a tool: put @server.tool() above" in process.output


def test_a_port_that_is_taken_is_said(replica: Replica) -> None:
    """And nothing is registered."""
    port = replica.url.rpartition(":")[2]
    with AgentProcess(program("serve()"), replica.url, MCP_MESH_HTTP_PORT=port) as process:
        assert process.wait_for_exit() == 1
        assert "Address already in use" in process.output
        assert agents(replica) == []


@pytest.mark.parametrize(
    ("after", "port"),
    [("serve()", {}), ("serve()", {"MCP_MESH_HTTP_PORT": ""}), ("threading.Event().wait()", {})],
)
@pytest.mark.parametrize("host", ["localhost", "::1", "127.0.0.2"])
async def test_an_agent_answers_at_the_host_it_is_said_to_be_found_by(
    replica: Replica, host: str, after: str, port: dict[str, str]
) -> None:
    """From the moment it is registered.

    It told of `[::1]` and listened on 127.0.0.1; of a host without a port it took no notice; and with both it was
    registered before it listened.
    """
    port = {name: str(free_port()) for name in port}
    with AgentProcess(program(after), replica.url, MCP_MESH_HTTP_HOST=host, **port):
        endpoint = await asyncio.to_thread(lambda: wait_until_registered(replica.url, "agent")["endpoint"])

        assert urlsplit(endpoint).hostname == host
        assert await call_tool(endpoint, "double", number=21) == 42
