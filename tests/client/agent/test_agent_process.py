"""The agent of a whole process: signals, exits, forks, and servers."""

import asyncio
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.support.agent_process import AgentProcess, call_tool, wait_until_registered
from tests.support.http_calls import REQUEST_TIMEOUT_S
from tests.support.polling import wait_until
from tests.support.ports import free_port
from tests.support.replica import Replica

AGENT_PROGRAM = """
import os, signal, sys, threading, time
from mcp_mesh_client import agent_id, announce, mesh_agent, serve
# The handler of a terminal; a shell starts background processes with SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
{before}
@mesh_agent(capability="double")
def double(number: int) -> int:
    return 2 * number
{after}
"""
ANNOUNCE_ELSEWHERE = 'announce(endpoint="http://127.0.0.1:9")\n'


def program(after: str, before: str = "") -> str:
    """Return a program that declares a function, with code before and after the declaration."""
    return AGENT_PROGRAM.replace("{before}", before).replace("{after}", after)


@pytest.fixture
def replica(redis_url: str) -> Iterator[Replica]:
    """Start a replica as a process, because these tests block."""
    with Replica(redis_url) as replica:
        yield replica


def agents(replica: Replica) -> list[str]:
    """Return the ids of all agents."""
    return [agent["id"] for agent in httpx2.get(f"{replica.url}/agents", timeout=REQUEST_TIMEOUT_S).json()["agents"]]


@pytest.mark.parametrize(
    ("after", "number", "status"),
    [
        ("serve()", signal.SIGTERM, -signal.SIGTERM),
        ("serve()", signal.SIGINT, 0),
        (ANNOUNCE_ELSEWHERE + "threading.Event().wait()", signal.SIGTERM, -signal.SIGTERM),
        ("threading.Event().wait()", signal.SIGTERM, -signal.SIGTERM),
        (ANNOUNCE_ELSEWHERE + "import asyncio\nasyncio.run(asyncio.sleep(60))", signal.SIGTERM, -signal.SIGTERM),
        (ANNOUNCE_ELSEWHERE + "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    sys.exit(3)", signal.SIGINT, 3),
    ],
)
def test_an_agent_deregisters_on_a_signal(replica: Replica, after: str, number: int, status: int) -> None:
    """The process ends with the same status as without an agent."""
    with AgentProcess(program(after), replica.url) as process:
        wait_until_registered(replica.url, "agent")

        assert process.wait_for_exit(signal.Signals(number)) == status, process.output

        assert agents(replica) == []


def test_an_agent_deregisters_at_a_normal_exit(replica: Replica, tmp_path: Path) -> None:
    """The process keeps its exit status."""
    wait = "while not os.path.exists(os.environ['GO']):\n    time.sleep(0.05)\nsys.exit(5)"
    with AgentProcess(program(ANNOUNCE_ELSEWHERE + wait), replica.url, GO=str(tmp_path / "go")) as process:
        wait_until_registered(replica.url, "agent")
        (tmp_path / "go").touch()

        assert process.wait_for_exit() == 5, process.output
        assert agents(replica) == []


OWN_HANDLER = """
def own(number, frame):
    print("own handler", flush=True)
    sys.exit(7)
signal.signal(signal.SIGTERM, own)
"""


@pytest.mark.parametrize(("before", "after"), [(OWN_HANDLER, ""), ("", OWN_HANDLER)])
def test_a_signal_handler_of_the_application_is_not_replaced(replica: Replica, before: str, after: str) -> None:
    """It may be installed before or after the declaration; the agent deregisters at the exit."""
    with AgentProcess(program(ANNOUNCE_ELSEWHERE + after + "time.sleep(60)", before), replica.url) as process:
        wait_until_registered(replica.url, "agent")

        assert process.wait_for_exit(signal.SIGTERM) == 7, process.output

        assert "own handler" in process.output
        assert agents(replica) == []


def test_a_frozen_registry_does_not_block_the_exit(replica: Replica) -> None:
    """The deregistration has a timeout of a few seconds."""
    with AgentProcess(program("serve()"), replica.url) as process:
        wait_until_registered(replica.url, "agent")
        replica.pause()
        assert process.wait_for_exit(signal.SIGTERM) == -signal.SIGTERM
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
def test_a_forked_process_is_another_agent(replica: Replica, announces: str, tmp_path: Path) -> None:
    """It has its own id, registers when it has an endpoint, and its exit does not deregister the parent."""
    after = ANNOUNCE_ELSEWHERE + FORK.replace("{announces}", announces)
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


async def test_an_announced_server_gets_the_tools_of_the_agent(replica: Replica) -> None:
    """It also gets `/health`; functions that are tools already are registered under their tool names."""
    port = free_port()
    with AgentProcess(program(SERVER.replace("{port}", str(port))), replica.url) as process:
        agent = wait_until_registered(replica.url, "agent")
        names = {each["name"]: each["function_name"] for each in agent["capabilities"]}
        assert names == {"double": "double", "triples": "triple"}
        wait_until(lambda: responds(agent["endpoint"]), description="it responds")
        health = httpx2.get(health_url(agent["endpoint"]), timeout=REQUEST_TIMEOUT_S).json()
        assert (health["status"], health["agent_id"]) == ("healthy", agent["id"])
        assert [await call_tool(agent["endpoint"], tool, number=7) for tool in ("double", "triple")] == [14, 21]
        assert process.wait_for_exit(signal.SIGTERM) == -signal.SIGTERM
        assert agents(replica) == []


def health_url(endpoint: str) -> str:
    """Return the URL of the health of an agent that serves MCP at an endpoint."""
    return f"{endpoint.removesuffix('/mcp')}/health"


def responds(endpoint: str) -> bool:
    """Return whether a server responds there."""
    try:
        return httpx2.get(health_url(endpoint), timeout=REQUEST_TIMEOUT_S).status_code == 200
    except httpx2.TransportError:
        return False


def test_the_automatic_server_waits_for_the_end_of_the_imports(replica: Replica, tmp_path: Path) -> None:
    """Otherwise it would start during the imports, and `serve` would replace it a moment later."""
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(2.5)\n")
    after = "sys.path.insert(0, os.environ['SLOW'])\nimport slow\nserve()"
    with AgentProcess(program(after), replica.url, SLOW=str(tmp_path)):
        agent = wait_until_registered(replica.url, "agent")

        assert agent["updated_at"] == agent["created_at"]
        assert (
            agent["resource_version"]
            == httpx2.get(f"{replica.url}/agents", timeout=REQUEST_TIMEOUT_S).json()["resource_version"]
        )
        assert responds(agent["endpoint"])


WRONG_ORDER = """
from mcp.server import MCPServer
server = MCPServer("wrong")

@mesh_agent(capability="greeting", dependencies=["date_service"])
@server.tool()
def greet(date_service=None) -> str:
    return ""
"""


def test_a_program_with_the_wrong_decorator_order_does_not_start() -> None:
    """The error shows the right order."""
    with AgentProcess(program(WRONG_ORDER), "http://127.0.0.1:9") as process:
        assert process.wait_for_exit() == 1
        assert "DecoratorOrderError: greet is already registered as a tool: put @server.tool() above" in process.output


def test_a_port_in_use_ends_the_program(replica: Replica) -> None:
    """The error names the cause, and the agent is not registered."""
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
async def test_an_agent_listens_on_its_public_host(
    replica: Replica, host: str, after: str, port: dict[str, str]
) -> None:
    """It responds from the moment of its registration.

    The host may be IPv6 or have no port; in each case the agent listens before it registers.
    """
    port = {name: str(free_port()) for name in port}
    with AgentProcess(program(after), replica.url, MCP_MESH_HTTP_HOST=host, **port):
        endpoint = await asyncio.to_thread(lambda: wait_until_registered(replica.url, "agent")["endpoint"])

        assert urlsplit(endpoint).hostname == host
        assert await call_tool(endpoint, "double", number=21) == 42
