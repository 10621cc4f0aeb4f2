"""GET /events: life-cycle events from the change log, together with the audit events of one agent."""

from typing import Any

import httpx2
import pytest
import redis

from tests.support.http_calls import register
from tests.support.in_process_registry import in_process_registry
from tests.support.polling import async_wait_until
from tests.support.server_time import make_overdue


async def register_mesh_agent(client: httpx2.AsyncClient, agent_id: str = "me", **fields: Any) -> None:
    """Register an agent in the mcp-mesh format."""
    body = {"agent_id": agent_id, "name": agent_id, "http_host": "h", "http_port": 1, "version": "2.0.0"} | fields
    assert (await client.post("/heartbeat", json=body)).json()["status"] == "success"


async def events(client: httpx2.AsyncClient, **query: str) -> list[dict[str, Any]]:
    """Return the events that a query finds."""
    response = await client.get("/events", params=query)
    found = response.json()
    assert found["count"] == len(found["events"]), response.text
    return list(found["events"])


async def types_of(client: httpx2.AsyncClient, **query: str) -> list[tuple[str, str]]:
    """Return the agent and the type of each event that a query finds."""
    return [(event["agent_id"], event["event_type"]) for event in await events(client, **query)]


async def test_each_change_of_an_agent_is_an_event(client: httpx2.AsyncClient) -> None:
    """The newest comes first; agents of both formats have events."""
    await register_mesh_agent(client)
    await register(client, "native")
    await register_mesh_agent(client, version="2.1.0")
    await client.delete("/agents/native")

    assert await types_of(client) == [
        ("native", "unregister"),
        ("me", "update"),
        ("native", "register"),
        ("me", "register"),
    ]


async def test_an_event_has_the_fields_of_upstream(client: httpx2.AsyncClient) -> None:
    """Its data has the reason and what the agent is."""
    await register_mesh_agent(client)

    (event,) = await events(client, agent_id="me")

    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event_type": "register",
        "agent_id": "me",
        "agent_name": "me",
        "data": {"reason": "registered", "name": "me", "agent_type": "mcp_agent", "version": "2.0.0"},
    }


async def test_a_lost_agent_becomes_unhealthy_and_its_return_is_a_registration(
    redis_url: str, redis_client: redis.Redis
) -> None:
    """`expire` follows if it stays away."""
    async with in_process_registry(redis_url) as client:
        await register_mesh_agent(client)
        for status, event_type in (("degraded", "unhealthy"), ("expired", "expire")):
            make_overdue(redis_client, "me")

            async def is_reported(event_type: str = event_type) -> bool:
                return ("me", event_type) in await types_of(client)

            await async_wait_until(is_reported, description=f"the agent is {status}")
        await register_mesh_agent(client)

        found = await events(client, type="register,unhealthy,expire")

    assert [event["event_type"] for event in found] == ["register", "expire", "unhealthy", "register"]
    assert (found[0]["data"]["old_status"], found[0]["data"]["new_status"]) == ("unhealthy", "healthy")
    assert (found[1]["data"]["old_status"], found[1]["data"]["new_status"]) == ("degraded", "unhealthy")


async def test_events_are_selected_by_type_and_agent(client: httpx2.AsyncClient) -> None:
    """Types are comma-separated; a function has no life-cycle events."""
    await register_mesh_agent(client, "one")
    await register_mesh_agent(client, "two")
    await client.delete("/agents/one")

    assert await types_of(client, type="unregister,update") == [("one", "unregister")]
    assert await types_of(client, agent_id="one") == [("one", "unregister"), ("one", "register")]
    assert await types_of(client, agent_id="two", type="unregister") == []
    assert await types_of(client, type="heartbeat") == []
    assert await types_of(client, agent_id="one", function_name="f") == []


async def test_a_limit_is_clamped(client: httpx2.AsyncClient) -> None:
    """More than one read of the log is needed for the last one."""
    await register_mesh_agent(client, "first")
    for number in range(250):
        await register_mesh_agent(client, f"a-{number}")

    assert len(await events(client, limit="-3")) == 1
    assert len(await events(client, limit="100000")) == 251
    assert len(await events(client)) == 50
    assert await types_of(client, agent_id="first") == [("first", "register")]


async def test_the_events_of_an_agent_include_its_resolutions(client: httpx2.AsyncClient) -> None:
    """All are sorted by time."""
    for agent_id in ("date-1", "date-2"):
        await register_mesh_agent(client, agent_id, tools=[{"function_name": "f", "capability": "date"}])
    await register_mesh_agent(client, tools=[{"function_name": "g", "dependencies": [{"capability": "date"}]}])

    found = await events(client, agent_id="me")

    assert {event["event_type"] for event in found} == {"register", "dependency_resolved"}
    assert [event["timestamp"] for event in found] == sorted((event["timestamp"] for event in found), reverse=True)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"type": "dependency_resolved"}, "agent_id"),
        ({"type": "nonsense"}, "type"),
        ({"limit": "many"}, "limit"),
        ({"color": "red"}, "color"),
    ],
)
async def test_an_invalid_query_is_a_400_in_the_form_of_upstream(
    query: dict[str, str], field: str, client: httpx2.AsyncClient
) -> None:
    """Meshctl reads the message from `error`."""
    response = await client.get("/events", params=query)

    assert response.status_code == 400
    assert response.json().keys() == {"error", "timestamp"}
    assert field in response.json()["error"]
