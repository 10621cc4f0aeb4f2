"""Both wheels in new environments, each alone: the server, which contains the client, and the client.

The code of the guides runs with the wheel of the client against that of the server. This takes minutes, so only
`make wheel-test` runs it.
"""

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from mcp_mesh_client import SyncRegistryClient

from tests.client.client_setup import agent_ids
from tests.seeds.code_blocks import find_code_block
from tests.support.child_process import ChildProcess
from tests.support.polling import wait_until
from tests.support.ports import free_port
from tests.support.source_code import ROOT
from tests.test_readme import table

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

_NO_INDEX = re.compile(r"No matching distribution|Could not find a version|Failed to establish a new connection")

NAMES = {
    guide_name.strip("`"): our_name.strip("`") for guide_name, our_name in table("Names in the guides", "in the guides")
}

# The agent of a guide, as a program that runs until SIGTERM.
AGENT_OF_SEED_000 = """
import asyncio, os
{block}
async def main():
    agent = MyAgent(os.environ["MCP_MESH_REGISTRY_URL"])
    await agent.start()
    await asyncio.Event().wait()

asyncio.run(main())
"""
AGENT_OF_SEED_003 = """
from mcp.server import MCPServer
from mcp_mesh_client import mesh_agent, serve

server = MCPServer("greeting")
{block}
serve(server)
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Provide both wheels, built from this checkout, by the names of their distributions."""
    folder = tmp_path_factory.mktemp("wheels")
    pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", folder, ROOT / "client", ROOT)
    return {path.name.split("-")[0]: path for path in folder.glob("*.whl")}


@pytest.fixture(scope="module")
def client_python(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Provide an environment with the wheel of the client, its extra `agent`, and their dependencies."""
    python = new_environment(sys.executable, tmp_path_factory.mktemp("client"))
    pip(python, "install", f"{wheels['mcp_mesh_client']}[agent]")
    return python


@pytest.fixture(scope="module")
def server_python(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Provide an environment with the wheel of the server and its dependencies."""
    python = new_environment(sys.executable, tmp_path_factory.mktemp("server"))
    pip(python, "install", wheels["mcp_mesh_registry"])
    return python


@pytest.fixture
def url(server_python: Path, redis_url: str) -> Iterator[str]:
    """Provide a replica of the installed server."""
    found = f"http://127.0.0.1:{free_port()}"
    variables = {"REDIS_URL": redis_url, "REGISTRY_PORT": found.rpartition(":")[2]}
    with InstalledProgram(server_python, "-m", "registry", **variables) as process:
        process.wait_until(lambda: found in process.output, description="it listens")
        yield found


class InstalledProgram(ChildProcess):
    """A program of an environment: it imports only packages that are installed there, nothing of the checkout."""

    def __init__(self, python: Path, *arguments: str, **variables: str) -> None:
        super().__init__(python, *arguments, env={"PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"} | variables)


def new_environment(interpreter: str, folder: Path) -> Path:
    """Return the interpreter of a new environment without packages."""
    subprocess.run([interpreter, "-m", "venv", folder], check=True)
    return folder / "bin" / "python"


def find_interpreter(minor: int) -> str:
    """Return the path of Python 3.`minor`; skip the test if it is not installed."""
    path = shutil.which(f"python3.{minor}")
    # A shim of pyenv fails if its version is not enabled.
    if path is None or subprocess.run([path, "--version"], capture_output=True, check=False).returncode:
        pytest.skip(f"Python 3.{minor} is not installed")
    return path


def pip(python: str | Path, command: str, *arguments: str | Path) -> None:
    """Run pip; skip the test if no package index can be reached."""
    done = subprocess.run(
        [python, "-m", "pip", command, "--quiet", "--disable-pip-version-check", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and _NO_INDEX.search(done.stderr):
        pytest.skip(f"no package index: {done.stderr[-500:]}")
    assert done.returncode == 0, done.stderr


def replace_imports(code: str) -> str:
    """Return the code of a guide with the import names of the README."""
    for guide_name, our_name in NAMES.items():
        code = code.replace(guide_name, our_name)
    return code


def test_the_client_is_installed_without_the_server(client_python: Path) -> None:
    """It imports and has a version and the generated client, and there is no `registry`."""
    code = """
from importlib.util import find_spec
import mcp_mesh_client, mcp_mesh_client.version
print(mcp_mesh_client.version.__version__, find_spec("registry"), mcp_mesh_client.SyncRegistryClient.agents)
"""
    with InstalledProgram(client_python, "-c", code) as process:
        assert process.wait_for_exit() == 0, process.output
        assert re.fullmatch(r"\d+\.\d+\.\d+ None <function SyncRegistryClient\.agents at .*>\s*", process.output)


@pytest.mark.parametrize("minor", [11, 12, 13, 14])
def test_the_wheel_of_the_server_alone_is_a_registry(wheels: dict[str, Path], minor: int, tmp_path: Path) -> None:
    """Embedded store, /mcp, /proxy, command line and an agent in Python; no extra and no other distribution of ours."""
    python = new_environment(find_interpreter(minor), tmp_path / "venv")
    pip(python, "install", wheels["mcp_mesh_registry"])
    url = f"http://127.0.0.1:{free_port()}"
    variables = {"REGISTRY_PORT": url.rpartition(":")[2], "REGISTRY_DATA_DIR": str(tmp_path / "data")}
    agent_code = AGENT_OF_SEED_003.format(block=replace_imports(find_code_block("agent_redesign.md", "def greet(")))
    with (
        InstalledProgram(python, "-m", "registry", **variables) as registry,
        InstalledProgram(python, "-c", agent_code, MCP_MESH_REGISTRY_URL=url),
    ):
        registry.wait_until(lambda: f"listens on {url}" in registry.output, description="it listens")
        assert (tmp_path / "data" / "appendonlydir").is_dir()
        listing = [str(python), "-m", "registry", "agents", "--url", url, "--capability", "greeting"]

        def healthy_agents() -> list[str]:
            command = [*listing, "--status", "healthy", "--output", "name"]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

        found = wait_until(healthy_agents, description="the agent is healthy")
        endpoint = httpx2.get(f"{url}/agents/{found[0]}").json()["endpoint"]
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        headers = {"accept": "application/json, text/event-stream"}
        for path, tool in (("/mcp", "register_agent"), (f"/proxy/{urlsplit(endpoint).netloc}/mcp", "greet")):
            response = httpx2.post(f"{url}{path}", json=message, headers=headers)
            assert f'"{tool}"' in response.text


@pytest.mark.parametrize(
    ("document", "containing", "program", "capability"),
    [
        ("pull_based_registry.md", "class MyAgent:", AGENT_OF_SEED_000, "custom_operation"),
        ("agent_redesign.md", "def greet(", AGENT_OF_SEED_003, "greeting"),
    ],
)
def test_the_code_of_a_guide_runs_against_the_installed_server(
    client_python: Path, url: str, document: str, containing: str, program: str, capability: str
) -> None:
    """The agent registers, becomes healthy, and ends on SIGTERM."""
    code = program.format(block=replace_imports(find_code_block(document, containing)))
    variables = {"MCP_MESH_REGISTRY_URL": url}
    with (
        SyncRegistryClient(url) as registry,
        InstalledProgram(client_python, "-c", code, **variables) as process,
    ):
        process.wait_until(
            lambda: agent_ids(registry.agents(capability=capability, status="healthy")),
            description="it is registered and healthy",
        )
        process.send_signal(signal.SIGTERM)
        process.wait_for_exit()
        if program is AGENT_OF_SEED_003:
            wait_until(lambda: not agent_ids(registry.agents(capability=capability)), description="it has left")
