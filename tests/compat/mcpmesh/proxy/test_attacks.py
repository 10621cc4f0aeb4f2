"""T9: an agent registers an address of its choice, so that the registry sends requests there."""

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import httpx2
import pytest

from registry.compat.mcpmesh.proxy.name_lookup import NameLookup
from tests.support.certificates import CertificateAuthority
from tests.support.fake_agent import OK_RESPONSE, ReceivedRequest, fake_agent
from tests.support.http_calls import a_registration
from tests.support.in_process_registry import in_process_registry
from tests.support.polling import async_wait_until
from tests.support.ports import free_port
from tests.support.raw_http import open_raw_connection
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica
from tests.support.served_registry import served_registry

CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
UNREACHABLE = "Failed to reach target agent"
ALL_ADDRESSES = "0.0.0.0"  # noqa: S104 - no socket listens there in these tests
SPELLINGS = ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "017700000001", "127.1", "[::ffff:127.0.0.1]"]


@pytest.fixture
async def exposed(redis_url: str) -> AsyncIterator[httpx2.AsyncClient]:
    """Provide a registry with the settings of one that listens on all addresses, and forwards calls."""
    async with in_process_registry(redis_url, host=ALL_ADDRESSES, proxy=True) as client:
        yield client


async def call_agent(client: httpx2.AsyncClient, endpoint: str, agent_id: str = "a-1") -> httpx2.Response:
    """Register an agent with an endpoint, and call it through the proxy."""
    registration = a_registration(agent_id, endpoint=endpoint)
    (await client.post("/agents", json=registration)).raise_for_status()
    return await client.post(f"/proxy/{agent_id}:{httpx2.URL(endpoint).port}/mcp/anything", json=CALL)


async def assert_refused(client: httpx2.AsyncClient, endpoint: str) -> None:
    """Assert that the proxy does not reach an endpoint."""
    response = await call_agent(client, endpoint)
    assert response.status_code == 502, response.text
    assert response.json()["message"].startswith(UNREACHABLE)


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_services_on_loopback_are_not_called(exposed: httpx2.AsyncClient, spelling: str) -> None:
    """No service behind any spelling of loopback receives a request."""
    async with fake_agent() as service:
        await assert_refused(exposed, f"http://{spelling}:{service.port}")

    assert service.requests == []


async def test_loopback_is_allowed_again_by_a_network(redis_url: str) -> None:
    """REGISTRY_PROXY_NETWORKS also limits the others."""
    networks = ("127.0.0.0/8",)
    async with (
        fake_agent() as agent,
        in_process_registry(redis_url, host=ALL_ADDRESSES, proxy=True, proxy_networks=networks) as client,
    ):
        assert (await call_agent(client, f"http://2130706433:{agent.port}")).json() == {"ok": True}
        await assert_refused(client, f"http://[::1]:{agent.port}")

    assert agent.requests[0].headers["host"] == f"2130706433:{agent.port}"


async def test_a_name_that_resolves_to_loopback_is_not_called(
    exposed: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name decides nothing, its address does."""

    async def look_up(_self: NameLookup, _host: str, _port: int) -> list[str]:
        return ["127.0.0.1"]

    monkeypatch.setattr(NameLookup, "addresses", look_up)
    async with fake_agent() as service:
        await assert_refused(exposed, f"http://agent.example:{service.port}")

    assert service.requests == []


async def test_a_name_that_changes_between_two_lookups_is_not_called_at_its_second_address(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call looks the name up once, and connects to the address that was checked, over no older connection."""
    answers = [["127.0.0.1"], ["169.254.169.254"], ["127.0.0.1"]]

    async def look_up(_self: NameLookup, _host: str, _port: int) -> list[str]:
        return answers.pop(0)

    monkeypatch.setattr(NameLookup, "addresses", look_up)
    async with fake_agent() as agent, in_process_registry(redis_url) as client:
        endpoint = f"http://agent.example:{agent.port}"
        statuses = [(await call_agent(client, endpoint)).status_code for _ in range(3)]

    assert (statuses, answers) == ([200, 502, 200], [])
    assert [request.headers["host"] for request in agent.requests] == [f"agent.example:{agent.port}"] * 2


async def test_the_first_allowed_address_that_accepts_a_connection_is_called(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second address of the name has a server; its body arrives whole."""

    async def look_up(_self: NameLookup, _host: str, _port: int) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    monkeypatch.setattr(NameLookup, "addresses", look_up)
    async with fake_agent() as agent, in_process_registry(redis_url) as client:
        response = await call_agent(client, f"http://agent.example:{agent.port}")

    assert response.json() == {"ok": True}
    assert agent.requests[0].body == response.request.content


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
async def test_the_certificate_of_an_agent_must_match_its_name(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy connects to an address, but the certificate is for 127.0.0.1 and localhost, not for the other name.

    A connection that was opened for one name is not used for another name with the same address.
    """
    authority = CertificateAuthority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.sign("agent"))
    trusted = ssl.create_default_context(cafile=authority.certificate)
    requested_names = []
    context.sni_callback = lambda _socket, name, _context: requested_names.append(name)

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK_RESPONSE)

    async def look_up(_self: NameLookup, _host: str, _port: int) -> list[str]:
        return ["127.0.0.1"]

    monkeypatch.setattr(NameLookup, "addresses", look_up)
    monkeypatch.setattr(httpx2, "AsyncHTTPTransport", partial(httpx2.AsyncHTTPTransport, verify=trusted))
    server = await asyncio.start_server(reply, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    async with server, in_process_registry(redis_url) as client:
        matching = await call_agent(client, f"https://localhost:{port}", "a-1")
        other = await call_agent(client, f"https://agent.example:{port}", "a-2")

    assert (matching.status_code, other.status_code) == (200, 502)
    assert requested_names == ["localhost", "agent.example"]


async def test_a_redirect_to_a_forbidden_address_is_not_followed(client: httpx2.AsyncClient) -> None:
    """Its target is not returned either."""

    async def redirect(_request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n")

    async with fake_agent(redirect) as agent:
        response = await call_agent(client, f"http://127.0.0.1:{agent.port}")

    assert (response.status_code, "location" in response.headers) == (302, False)


@pytest.fixture
def tcp_redis() -> Iterator[RedisServer]:
    """Provide a Redis server on a TCP port."""
    with RedisServer(tcp=True) as server:
        yield server


async def test_redis_is_not_called(tcp_redis: RedisServer) -> None:
    """A registry on loopback calls agents on loopback, but not its own Redis there."""
    async with fake_agent() as agent, in_process_registry(tcp_redis.url) as client:
        for spelling in SPELLINGS:
            await assert_refused(client, f"http://{spelling}:{tcp_redis.port}")

        assert (await call_agent(client, f"http://127.0.0.1:{agent.port}")).json() == {"ok": True}


async def test_the_ports_of_the_registry_are_not_called(redis_url: str) -> None:
    """A call to them would come from the registry itself, past rules for other machines; port 0 is any free port."""
    others = free_port(), free_port()
    env = {"REGISTRY_PORT": "0", "METRICS_PORT": str(others[0]), "REGISTRY_ADMIN_PORT": str(others[1])}
    with Replica(redis_url, **env) as replica:
        async with httpx2.AsyncClient(base_url=replica.url) as client:
            for port in (httpx2.URL(replica.url).port, *others):
                await assert_refused(client, f"http://127.0.0.1:{port}")


async def send_nothing(_request: ReceivedRequest, _writer: asyncio.StreamWriter) -> None:
    """Accept a request, and never respond."""


async def test_a_scan_of_ports_fails(client: httpx2.AsyncClient) -> None:
    """A refused address, a closed port and a port without an answer look alike; the eleventh call is rejected."""
    async with fake_agent(send_nothing) as silent:
        endpoints = [
            f"http://169.254.169.254:{silent.port}",
            f"http://127.0.0.1:{free_port()}",
            f"http://127.0.0.1:{silent.port}",
        ]
        for number, endpoint in enumerate(endpoints):
            await client.post("/agents", json=a_registration(f"a-{number}", endpoint=endpoint))
        paths = [f"/proxy/a-{number}:{httpx2.URL(each).port}/mcp" for number, each in enumerate(endpoints)]
        answers = set()
        for path in [*paths, *paths[:2] * 3, paths[0]]:
            response = await client.post(path, json=CALL, headers={"x-mesh-timeout": "1"})
            answers.add((response.status_code, response.json()["error"], response.json()["message"]))
        limited = await client.post(paths[0], json=CALL)

    assert [status for status, *_ in answers] == [502]
    assert (limited.status_code, limited.json()["error"]) == (429, "too_many_requests")
    assert 0 < int(limited.headers["retry-after"]) <= 60


async def test_a_caller_that_disconnects_before_the_response_is_limited(redis_url: str) -> None:
    """Otherwise a scan could wait a second for each port, and never fail."""
    async with fake_agent(send_nothing) as agent, served_registry(redis_url) as served:
        path = f"/proxy/a-1:{agent.port}/mcp"
        await served.client.post("/agents", json=a_registration("a-1", endpoint=f"http://127.0.0.1:{agent.port}"))
        for number in range(1, 11):
            async with open_raw_connection(served.url) as connection:
                connection.send("POST", path, CALL)
                await async_wait_until(lambda: len(agent.requests) == number, description="the agent is called")  # noqa: B023
            await async_wait_until(lambda: served.registry.proxy.active_calls == 0, description="the call is over")

        assert (await served.client.post(path, json=CALL)).status_code == 429


@pytest.mark.parametrize(
    ("host", "proxy", "status"),
    [("127.0.0.1", None, 400), (ALL_ADDRESSES, None, 403), ("10.0.0.1", None, 403), (ALL_ADDRESSES, True, 400)],
)
async def test_the_proxy_is_on_by_default_only_on_loopback(
    redis_url: str, *, host: str, proxy: bool | None, status: int
) -> None:
    """400 rejects the target, which a disabled proxy does not read."""
    async with in_process_registry(redis_url, host=host, proxy=proxy) as client:
        assert (await client.post("/proxy/x", json=CALL)).status_code == status
