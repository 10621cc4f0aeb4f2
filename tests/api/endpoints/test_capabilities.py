"""Capability search: one row for each capability of each agent."""

import httpx2
import pytest

from tests.support.http_calls import register, send_heartbeat


@pytest.fixture
async def population(client: httpx2.AsyncClient) -> httpx2.AsyncClient:
    """Provide agents with capabilities of all kinds."""
    await register(
        client,
        "p",
        namespace="n2",
        capabilities=[
            {"name": "read", "version": "1.2.0", "description": "Read files", "tags": ["io"], "extra": [1]},
            {"name": "old", "stability": "deprecated"},
            "write",
        ],
    )
    await register(client, "q", namespace="n1", name="The Q", capabilities=[{"name": "read", "version": "2.0.0"}])
    await register(client, "r", namespace="n1")
    await send_heartbeat(client, "p")
    return client


async def test_a_row_has_the_capability_and_its_agent(population: httpx2.AsyncClient) -> None:
    """With defaults, unknown fields, and the endpoint of the agent."""
    response = await population.get("/capabilities", params={"agent_id": "p", "name": "read"})

    body = response.json()
    assert body.keys() == {"capabilities", "count", "resource_version", "timestamp"}
    assert body["resource_version"] == response.headers["x-resource-version"]
    assert body["capabilities"] == [
        {
            "name": "read",
            "version": "1.2.0",
            "stability": "stable",
            "description": "Read files",
            "tags": ["io"],
            "extra": [1],
            "agent_id": "p",
            "agent_name": "p",
            "agent_namespace": "n2",
            "agent_status": "healthy",
            "agent_draining": False,
            "agent_endpoint": "http://a:1",
        }
    ]


QUERIES: list[tuple[dict[str, str], str]] = [
    ({}, "q.read p.read p.write"),
    ({"include_deprecated": "true"}, "q.read p.read p.old p.write"),
    ({"include_deprecated": "false"}, "q.read p.read p.write"),
    ({"name": "read"}, "q.read p.read"),
    ({"name": "rea"}, ""),
    ({"name": "old"}, ""),
    ({"name": "old", "include_deprecated": "1"}, "p.old"),
    ({"agent_namespace": "n2"}, "p.read p.write"),
    ({"agent_namespace": "n3"}, ""),
    ({"agent_status": "healthy"}, "p.read p.write"),
    ({"agent_status": "pending"}, "q.read"),
    ({"agent_status": "any"}, "q.read p.read p.write"),
    ({"agent_status": "unhealthy"}, ""),
    ({"agent_id": "q"}, "q.read"),
    ({"agent_id": "nobody"}, ""),
    ({"agent_id": "p", "agent_namespace": "n1"}, ""),
    ({"version_constraint": ">=1.1"}, "q.read p.read"),
    ({"version_constraint": ">=1.1,<2"}, "p.read"),
    ({"version_constraint": "1.0.0"}, "p.write"),
    ({"name": "read", "agent_status": "healthy", "fuzzy_match": "false"}, "p.read"),
    ({"name": ""}, "q.read p.read p.write"),
]


@pytest.mark.parametrize(("query", "found"), QUERIES, ids=[str(query) for query, _ in QUERIES])
async def test_filters_combine_with_and(population: httpx2.AsyncClient, query: dict[str, str], found: str) -> None:
    """Rows are sorted by namespace and id of the agent, then in the order of its registration."""
    body = (await population.get("/capabilities", params=query)).json()

    assert [f"{row['agent_id']}.{row['name']}" for row in body["capabilities"]] == found.split()
    assert body["count"] == len(found.split())


async def test_a_capability_cannot_override_the_fields_of_its_agent(client: httpx2.AsyncClient) -> None:
    """The registry, not the registration, provides the fields about the agent."""
    await register(client, capabilities=[{"name": "x", "agent_id": "b", "agent_status": "healthy"}])

    (row,) = (await client.get("/capabilities")).json()["capabilities"]

    assert (row["agent_id"], row["agent_status"]) == ("a", "pending")
