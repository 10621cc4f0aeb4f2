"""Programs in other languages, and clients: the defences against browsers do not affect them.

Each makes the same calls as the others: with and without a body, on a registry with and one without a token.
"""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_mesh_client import RegistryClient

from tests.support.http_calls import REQUEST_TIMEOUT_S, a_registration
from tests.support.load_balancers import HAPROXY_PATH, haproxy
from tests.support.raw_http import open_raw_connection
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica

HERE = Path(__file__).parent
TOKEN = "s3cret"  # noqa: S105 - it opens nothing but these tests
PROGRAMS = {
    "curl": ("bash", "calls.sh"),
    "go": ("go", "run", "calls.go"),
    "java": ("java", "-XX:TieredStopAtLevel=1", "Calls.java"),
    "node": ("node", "calls.mjs"),
    "python": (sys.executable, "calls.py"),
}
RESPONSES = [
    "POST /agents 200",
    "POST /heartbeat 200",
    "GET /agents?status=healthy 200",
    "HEAD /heartbeat/p 200",
    "POST /admin/drain 200",
    "DELETE /admin/drain 200",
    "DELETE /agents/p 200",
]


@pytest.fixture(scope="module")
def registries() -> Iterator[dict[str, str]]:
    """Start a registry without a token and one with it; return their URLs by the token."""
    with (
        RedisServer() as server,
        Replica(server.url, REGISTRY_MESH="open") as open_replica,
        Replica(server.url, REGISTRY_MESH="closed", AUTH_TOKEN=TOKEN) as replica,
    ):
        yield {"": open_replica.url, TOKEN: replica.url}


def authorization(token: str) -> dict[str, str]:
    """Return the headers of a client with this token, none without one."""
    return {"authorization": f"Bearer {token}"} if token else {}


@pytest.mark.parametrize("command", PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_is_served(registries: dict[str, str], command: Sequence[str], tmp_path: Path) -> None:
    """It sends what its HTTP library adds to a request: Node's `fetch` adds Sec-Fetch-Mode, Java's an upgrade offer."""
    if shutil.which(command[0]) is None or (command[0] == "bash" and shutil.which("curl") is None):
        pytest.skip(f"{command[0]} is not installed")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    for token, url in registries.items():
        done = subprocess.run(
            [*command[:-1], str(HERE / command[-1]), url, token],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert done.stdout.splitlines() == RESPONSES, done.stderr


@pytest.mark.parametrize("token", ["", TOKEN], ids=["open", "token"])
async def test_our_client_is_served(registries: dict[str, str], token: str) -> None:
    """Reads, writes and a watch."""
    async with RegistryClient(registries[token], token=token or None, raise_on_error=True) as client:
        await client.register_agent(a_registration("ours"))
        await client.heartbeat("ours")
        assert (await client.agents(status="healthy"))["count"] == 1  # type: ignore[typeddict-item]
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            async for event in client.watch(send_initial=True):
                assert event["object"]["id"] == "ours"
                break
        await client.unregister_agent("ours")


@pytest.mark.parametrize("mode", ["legacy", "auto", "2026-07-28"])
@pytest.mark.parametrize("token", ["", TOKEN], ids=["open", "token"])
async def test_the_official_mcp_client_is_served(registries: dict[str, str], token: str, mode: str) -> None:
    """In each version of the protocol."""
    async with (
        httpx2.AsyncClient(headers=authorization(token), timeout=REQUEST_TIMEOUT_S) as http_client,
        Client(streamable_http_client(f"{registries[token]}/mcp", http_client=http_client), mode=mode) as client,
    ):
        assert len((await client.list_tools()).tools) == 6
        result = await client.call_tool("discover_services", {"query": {}})

    assert not result.is_error


@pytest.mark.parametrize("token", ["", TOKEN], ids=["open", "token"])
async def test_the_health_check_of_a_balancer_is_served(registries: dict[str, str], token: str, tmp_path: Path) -> None:
    """Under a name of its own, under an address, and without a name in HTTP/1.0; an haproxy finds the replica ready."""
    for version, host in (("1.1", "host: replicas.internal\r\n"), ("1.1", "host: 10.0.0.7:8080\r\n"), ("1.0", "")):
        for path in ("/health", "/ready"):
            async with open_raw_connection(registries[token]) as connection:
                head = f"GET {path} HTTP/{version}\r\n{host}user-agent: kube-probe/1.32\r\nconnection: close\r\n\r\n"
                connection.send_bytes(head.encode())
                assert (await connection.read_to_end()).startswith(b"HTTP/1.1 200 "), (version, host, path)
    if HAPROXY_PATH is None:
        pytest.skip("haproxy is not installed; apt-get install haproxy")
    async with haproxy([registries[token]], tmp_path) as url, httpx2.AsyncClient() as client:
        response = await client.get(f"{url}/agents", headers=authorization(token))

    assert response.status_code == 200
