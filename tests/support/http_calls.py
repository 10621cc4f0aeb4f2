"""HTTP calls of the tests and checks of their responses."""

from typing import Any

import httpx2

from tests.support.machine_speed import scaled

# Seconds; a replica that takes longer does not respond at all.
REQUEST_TIMEOUT_S = scaled(30)
_MAX_GET_ATTEMPTS = 4
JSON_HEADERS = {"content-type": "application/json"}


def a_registration(agent_id: str = "a", **fields: Any) -> dict[str, Any]:
    """Return the body of a small valid registration with these fields set."""
    return {"id": agent_id, "endpoint": "http://a:1"} | fields


async def register(client: httpx2.AsyncClient, agent_id: str = "a", **fields: Any) -> str:
    """Register an agent; return its resource version."""
    response = await client.post("/agents", json=a_registration(agent_id, **fields))
    return str(expect_success(response)["resource_version"])


async def send_heartbeat(client: httpx2.AsyncClient, agent_id: str = "a") -> str:
    """Send a heartbeat; return its timestamp."""
    return str(expect_success(await client.post("/heartbeat", json={"agent_id": agent_id}))["timestamp"])


async def get_agent(client: httpx2.AsyncClient, agent_id: str = "a") -> dict[str, Any]:
    """Return one agent."""
    response = await client.get(f"/agents/{agent_id}")
    assert response.status_code == 200, response.text
    agent: dict[str, Any] = response.json()
    return agent


async def list_agent_ids(client: httpx2.AsyncClient, **query: str | list[str]) -> list[str]:
    """Return the ids of the agents that match a query, in the order of the registry."""
    response = await client.get("/agents", params=query)
    assert response.status_code == 200, response.text
    assert response.json()["count"] == len(response.json()["agents"])
    return [agent["id"] for agent in response.json()["agents"]]


async def get_retried(client: httpx2.AsyncClient, url: httpx2.URL | str) -> httpx2.Response:
    """Send a GET, again while Redis responds too late, as `Retry-After` advises; return the first other response.

    Each attempt has waited for Redis. A 503 for any other reason is returned.
    """
    for _ in range(_MAX_GET_ATTEMPTS - 1):
        response = await client.get(url)
        if response.status_code != 503 or response.json().get("reason") != "timeout":
            return response
        assert response.headers["retry-after"] == "1"
    return await client.get(url)


def expect_success(response: httpx2.Response) -> dict[str, Any]:
    """Return the body of a response that must be a success."""
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    assert body["status"] == "success"
    return body


def expect_error(response: httpx2.Response, status: int, error: str) -> dict[str, Any]:
    """Return the body of a response that must be this error, in the format of all errors."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body: dict[str, Any] = response.json()
    assert (body["status"], body["error"]) == ("error", error)
    assert body["message"]
    assert body["request_id"] == response.headers["x-request-id"]
    for detail in body["details"]:
        assert set(detail) == {"field", "problem"}
        assert detail["field"]
        assert detail["problem"]
    return body


def error_fields(body: dict[str, Any]) -> list[str]:
    """Return the fields that an error names, in its order."""
    return [detail["field"] for detail in body["details"]]
