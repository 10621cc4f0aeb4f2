"""What several tests of the client need: a registration, and a client that asks a certain replica first."""

from typing import Any

from mcp_mesh_client import ErrorResponse, RegistryClient
from mcp_mesh_client.endpoints import Endpoint

from tests.support.faulty_tcp_proxy import FaultyTcpProxy

REGISTRATION: dict[str, Any] = {"id": "a", "endpoint": "http://a:1", "capabilities": ["greeting"]}


async def prefer_replica(client: RegistryClient, url: str) -> None:
    """Let a client begin with this one of its replicas."""
    endpoints = client._session._endpoints
    await endpoints.order()
    endpoints.prefer(Endpoint(url))


def http_url(proxy: FaultyTcpProxy) -> str:
    """Return where a proxy listens, as HTTP has it."""
    return f"http://127.0.0.1:{proxy.port}"


def agent_ids(answer: Any) -> list[str]:
    """Return the ids of a list that must not be a refusal."""
    assert "error" not in answer, answer
    return [agent["id"] for agent in answer["agents"]]


def expect_success(response: Any) -> dict[str, Any]:
    """Return an answer that must be a success."""
    assert response["status"] == "success", response
    found: dict[str, Any] = response
    return found


def expect_refusal(response: Any) -> ErrorResponse:
    """Return an answer that must be a refusal."""
    assert response["status"] == "error", response
    found: ErrorResponse = response
    return found


def client_state(client: RegistryClient) -> str:
    """Return how a client found the registry, as a word that may be another one a line later."""
    return client.state
