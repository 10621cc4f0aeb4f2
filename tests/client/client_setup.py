"""Helpers of the client tests: a registration, checks of responses, and the choice of the first replica."""

from typing import Any

from mcp_mesh_client import ErrorResponse, RegistryClient
from mcp_mesh_client.replica_endpoints import Endpoint

from tests.support.faulty_tcp_proxy import FaultyTcpProxy

REGISTRATION: dict[str, Any] = {"id": "a", "endpoint": "http://a:1", "capabilities": ["greeting"]}


async def prefer_replica(client: RegistryClient, url: str) -> None:
    """Make the client send its next call to this replica first."""
    endpoints = client._session._endpoints
    await endpoints.order()
    endpoints.prefer(Endpoint(url))


def http_url(proxy: FaultyTcpProxy) -> str:
    """Return the HTTP URL of a proxy."""
    return f"http://127.0.0.1:{proxy.port}"


def agent_ids(response: Any) -> list[str]:
    """Return the ids of the agents in a list; fail if the response is an error."""
    assert "error" not in response, response
    return [agent["id"] for agent in response["agents"]]


def expect_success(response: Any) -> dict[str, Any]:
    """Return the response; fail if it is an error."""
    assert response["status"] == "success", response
    result: dict[str, Any] = response
    return result


def expect_error(response: Any) -> ErrorResponse:
    """Return the response; fail if it is a success."""
    assert response["status"] == "error", response
    result: ErrorResponse = response
    return result


def client_state(client: RegistryClient) -> str:
    """Return the state of a client; a call, so that mypy does not narrow the type of the attribute."""
    return client.state
