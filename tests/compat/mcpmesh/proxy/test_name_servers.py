"""T9: the name server of an agent's endpoint is hostile. A real replica asks a real name server."""

from pathlib import Path

import httpx2

from tests.compat.mcpmesh.proxy.test_attacks import call_agent
from tests.support.dns_server import DnsServer, needs_own_name_server
from tests.support.fake_agent import fake_agent
from tests.support.http_calls import REQUEST_TIMEOUT_S
from tests.support.replica import Replica

pytestmark = needs_own_name_server
# Agents are on one loopback address, and the services to protect on another.
AGENT, SERVICE = "127.0.0.2", "127.0.0.1"


def replica(redis_url: str, dns: DnsServer, directory: Path) -> Replica:
    """Return a replica that uses the name server, and may call only the address of the agent."""
    return Replica(redis_url, command_prefix=dns.command_prefix(directory), REGISTRY_PROXY_NETWORKS=f"{AGENT}/32")


async def test_names_that_resolve_to_forbidden_addresses_are_not_called(redis_url: str, tmp_path: Path) -> None:
    """Alone; beside an allowed address, only that one is called."""
    forbidden = ["127.0.0.1", "169.254.169.254", "100.100.100.200", "0.0.0.0", "224.0.0.1"]  # noqa: S104
    answers = {f"agent-{number}.example": [address] for number, address in enumerate(forbidden)}
    answers["mixed.example"] = [*forbidden, AGENT]
    with DnsServer(answers.__getitem__) as dns, replica(redis_url, dns, tmp_path) as registry:
        async with (
            fake_agent(host=SERVICE) as service,
            fake_agent(host=AGENT, port=service.port) as agent,
            httpx2.AsyncClient(base_url=registry.url, timeout=REQUEST_TIMEOUT_S) as client,
        ):
            called = {
                name: (await call_agent(client, f"http://{name}:{service.port}", f"a-{number}")).status_code
                for number, name in enumerate(answers)
            }

    assert called == dict.fromkeys(answers, 502) | {"mixed.example": 200}
    assert service.requests == []
    assert [request.headers["host"] for request in agent.requests] == [f"mixed.example:{service.port}"]


async def test_a_name_that_changes_between_two_lookups_reaches_no_service(redis_url: str, tmp_path: Path) -> None:
    """Every second answer is the address of the service. Each call looks the name up once and uses that answer."""
    calls = 8
    with (
        DnsServer(lambda _name: [AGENT if len(dns.queries) % 2 else SERVICE]) as dns,
        replica(redis_url, dns, tmp_path) as registry,
    ):
        async with (
            fake_agent(host=SERVICE) as service,
            fake_agent(host=AGENT, port=service.port) as agent,
            httpx2.AsyncClient(base_url=registry.url, timeout=REQUEST_TIMEOUT_S) as client,
        ):
            url = f"http://rebinding.example:{service.port}"
            statuses = [(await call_agent(client, url)).status_code for _ in range(calls)]

    assert statuses == [200, 502] * (calls // 2)
    assert dns.queries == ["rebinding.example"] * calls
    assert (len(agent.requests), service.requests) == (calls // 2, [])
