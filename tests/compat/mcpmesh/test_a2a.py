"""A2A surfaces of mcp-mesh agents: stored, returned, listed, and retained while a registration omits them."""

from typing import Any

import httpx2
import pytest

from registry.cache.reflector import Reflector
from registry.compat.mcpmesh import heartbeat
from registry.compat.mcpmesh.a2a import with_last_a2a_fields
from tests.support.http_calls import expect_success
from tests.support.in_process_registry import in_process_registry

SURFACES: list[dict[str, Any]] = [
    {"path": "/agents/report", "skill_id": "report", "name": "Report", "tags": ["a"]},
    {"path": "/agents/summary", "skill_id": "summary"},
]
ENTRIES = [{"path": each["path"], "skill_id": each["skill_id"]} for each in SURFACES]


async def post(client: httpx2.AsyncClient, agent_id: str = "a", **fields: Any) -> dict[str, Any]:
    """Register an A2A agent in the mcp-mesh format; return the response."""
    body = {"agent_id": agent_id, "agent_type": "a2a", "http_host": "h", "http_port": 1} | fields
    return expect_success(await client.post("/heartbeat", json=body))


async def listed(client: httpx2.AsyncClient, agent_id: str = "a") -> dict[str, Any]:
    """Return the row of one agent in the list."""
    rows = (await client.get("/agents")).json()["agents"]
    return next(dict(row) for row in rows if row["id"] == agent_id)


async def surfaces(client: httpx2.AsyncClient) -> list[dict[str, Any]]:
    """Return the surfaces of all agents."""
    return list((await client.get("/a2a/agents")).json()["surfaces"])


async def test_surfaces_are_returned_and_listed(client: httpx2.AsyncClient) -> None:
    """The response and the list have path and skill; the agent's row has the surfaces as they were sent."""
    response = await post(client, surfaces=SURFACES, a2a_producer=True)

    assert response["surfaces"] == ENTRIES
    assert await surfaces(client) == ENTRIES
    assert (await listed(client))["surfaces"] == SURFACES


async def test_only_valid_surfaces_of_a2a_agents_are_listed(client: httpx2.AsyncClient) -> None:
    """Others are stored as sent."""
    await post(client, surfaces=[{"path": "/x"}, "text", {"path": 1, "skill_id": "s"}, SURFACES[1]])
    await post(client, "other", agent_type="mcp_agent", surfaces=SURFACES)
    await post(client, "text", surfaces="text")

    assert await surfaces(client) == ENTRIES[1:]


async def test_no_agent_has_surfaces(client: httpx2.AsyncClient) -> None:
    """The list is empty, and a response has no field for it."""
    assert "surfaces" not in await post(client)
    assert await surfaces(client) == []


async def test_rows_show_defaults_of_the_flags(client: httpx2.AsyncClient) -> None:
    """The dashboard of mcp-mesh shows a badge for each."""
    await post(client)
    await post(client, "producer", a2a_producer=True)

    assert [(await listed(client))[flag] for flag in ("a2a_producer", "a2a_consumer")] == [False, False]
    assert [(await listed(client, "producer"))[flag] for flag in ("a2a_producer", "a2a_consumer")] == [True, False]


async def test_absent_flags_and_surfaces_have_their_last_value(client: httpx2.AsyncClient) -> None:
    """An explicit value replaces it."""
    await post(client, surfaces=SURFACES, a2a_producer=True, a2a_consumer=True)

    response = await post(client, version="2.0.0")
    assert response["surfaces"] == ENTRIES
    row = await listed(client)
    assert (row["version"], row["a2a_producer"], row["a2a_consumer"]) == ("2.0.0", True, True)

    await post(client, a2a_producer=True, a2a_consumer=False)
    row = await listed(client)
    assert (row["surfaces"], row["a2a_consumer"]) == (SURFACES, False)

    await post(client, a2a_producer=False, a2a_consumer=False, surfaces=[])
    assert await surfaces(client) == []


async def test_a_new_agent_under_an_old_id_inherits_nothing(client: httpx2.AsyncClient) -> None:
    """The agent before it was unregistered."""
    await post(client, surfaces=SURFACES, a2a_producer=True)
    await client.delete("/agents/a")

    assert "surfaces" not in await post(client)


async def test_an_agent_without_a2a_fields_costs_no_read_of_them(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only its first registration does, because the agent may have registered through another replica before."""
    reads: list[object] = []

    async def counted(reflector: Reflector, registration: dict[str, Any]) -> dict[str, Any]:
        reads.append(registration["agent_id"])
        return await with_last_a2a_fields(reflector, registration)

    monkeypatch.setattr(heartbeat, "with_last_a2a_fields", counted)
    await post(client)
    await listed(client)

    for version in ("1", "2", "2"):
        await post(client, version=version)
        await post(client, "complete", a2a_producer=False, a2a_consumer=False)

    assert reads == ["a"]
    assert (await listed(client))["version"] == "2"


async def test_fields_registered_through_another_replica_are_retained(
    client: httpx2.AsyncClient, redis_url: str
) -> None:
    """Also if the replica has not read them yet: Redis rejects the registration without them, and it is repeated."""
    async with in_process_registry(redis_url) as other:
        for round_number in range(20):
            agent_id = f"a{round_number}"
            await post(client, agent_id)
            assert (await listed(other, agent_id))["a2a_producer"] is False
            await post(client, agent_id, a2a_producer=True, surfaces=SURFACES)

            assert (await post(other, agent_id, version="2"))["surfaces"] == ENTRIES
            row = await listed(client, agent_id)
            assert (row["a2a_producer"], row["version"]) == (True, "2")
