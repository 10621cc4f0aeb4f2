"""Rows of agent lists for mcp-mesh agents: the words that meshctl and meshui expect."""

import httpx2
import pytest
import redis

from tests.support.http_calls import get_agent, register


@pytest.fixture
async def expired(client: httpx2.AsyncClient, redis_client: redis.Redis) -> httpx2.AsyncClient:
    """Provide a registry with two expired agents: `mesh` in the mcp-mesh format, and `native`."""
    body = {"agent_id": "mesh", "http_host": "h", "http_port": 1, "tools": [{"function_name": "f", "capability": "c"}]}
    assert (await client.post("/heartbeat", json=body)).json()["status"] == "success"
    await register(client, "native")
    for agent_id in ("mesh", "native"):
        redis_client.hset(f"{{mesh}}:agent:{agent_id}", "status", "expired")
    # A new timeline makes the cache read all agents again.
    redis_client.delete("{mesh}:timeline")
    return client


@pytest.mark.leaves_damaged_data("the status is set by hand")
async def test_an_expired_mcpmesh_agent_is_unhealthy_in_lists(expired: httpx2.AsyncClient) -> None:
    """Meshui shows a green dot for a status that it does not know; other answers have the registry's own status."""
    rows = {row["id"]: row for row in (await expired.get("/agents")).json()["agents"]}

    assert {agent_id: row["status"] for agent_id, row in rows.items()} == {"mesh": "unhealthy", "native": "expired"}
    assert rows["mesh"]["capabilities"][0]["unavailable_reason"] == "agent unhealthy"
    assert (await get_agent(expired, "mesh"))["status"] == "expired"
    assert [row["id"] for row in (await expired.get("/agents?status=expired")).json()["agents"]] == ["mesh", "native"]
