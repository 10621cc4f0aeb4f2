"""What several tests of the client need: a registration, and a client that asks a certain replica first."""

from typing import Any

from mcp_mesh_client import Refusal, RegistryClient
from mcp_mesh_client.endpoints import Endpoint

from tests.support.faulty_tcp_proxy import Proxy

REGISTRATION: dict[str, Any] = {"id": "a", "endpoint": "http://a:1", "capabilities": ["greeting"]}


async def asking_first(client: RegistryClient, url: str) -> None:
    """Let a client begin with this one of its replicas."""
    endpoints = client._calls._endpoints
    await endpoints.order()
    endpoints.answered(Endpoint(url))


def http(proxy: Proxy) -> str:
    """Return where a proxy listens, as HTTP has it."""
    return f"http://127.0.0.1:{proxy.port}"


def ids(answer: Any) -> list[str]:
    """Return the ids of a list that must not be a refusal."""
    assert "error" not in answer, answer
    return [agent["id"] for agent in answer["agents"]]


def done(answer: Any) -> dict[str, Any]:
    """Return an answer that must be a success."""
    assert answer["status"] == "success", answer
    found: dict[str, Any] = answer
    return found


def refused(answer: Any) -> Refusal:
    """Return an answer that must be a refusal."""
    assert answer["status"] == "error", answer
    found: Refusal = answer
    return found


def state_of(client: RegistryClient) -> str:
    """Return how a client found the registry, as a word that may be another one a line later."""
    return client.state
