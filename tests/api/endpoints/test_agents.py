"""Agents over HTTP: register, get, list, filter and unregister."""

import asyncio
import json
import re
from datetime import datetime, timedelta
from typing import Any

import httpx2
import pytest
import redis

from tests.support.http_calls import (
    a_registration,
    expect_error,
    expect_success,
    get_agent,
    list_agent_ids,
    register,
    send_heartbeat,
)
from tests.support.in_process_registry import in_process_registry
from tests.support.polling import async_wait_until
from tests.support.server_time import make_overdue

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
SWEEP_INTERVAL = timedelta(milliseconds=50)


async def test_registering_has_the_same_response_as_the_tool(client: httpx2.AsyncClient) -> None:
    """POST /agents and the tool return the same fields; the message names the agent."""
    rest = expect_success(await client.post("/agents", json=a_registration("a", name="My Agent")))
    tool = expect_success(
        await client.post("/mcp/tools/register_agent", json={"registration_data": a_registration("b", name="My Agent")})
    )

    assert rest.keys() == tool.keys() == {"status", "agent_id", "resource_version", "message"}
    assert (rest["agent_id"], tool["agent_id"]) == ("a", "b")
    assert rest["message"] == tool["message"] == "Agent My Agent registered successfully"
    assert int(rest["resource_version"]) < int(tool["resource_version"])


async def test_an_agent_is_returned_completely_with_defaults(client: httpx2.AsyncClient) -> None:
    """Missing fields appear with their defaults, unknown fields are returned unchanged."""
    sent = {
        "id": "a",
        "endpoint": "http://a:1",
        "capabilities": ["x", {"name": "y", "version": "2.0.0-rc.1", "mood": {"of": ["the", "day"]}}],
        "dependencies": ["z"],
        "favourite_colour": "grün",
        "nothing": None,
        "big": 2**63,
    }
    await client.post("/agents", json=sent)

    agent = await get_agent(client)

    assert {name: agent[name] for name in ("name", "namespace", "agent_type", "labels", "annotations", "status")} == {
        "name": "a",
        "namespace": "default",
        "agent_type": "default",
        "labels": {},
        "annotations": {},
        "status": "pending",
    }
    assert agent["capabilities"] == [
        {"name": "x", "version": "1.0.0", "stability": "stable"},
        {"name": "y", "version": "2.0.0-rc.1", "stability": "stable", "mood": {"of": ["the", "day"]}},
    ]
    assert agent["dependencies"] == [{"capability": "z"}]
    assert (agent["favourite_colour"], agent["nothing"], agent["big"]) == ("grün", None, 2**63)
    assert agent["last_heartbeat"] is None
    assert MOMENT.fullmatch(agent["created_at"])
    assert agent["updated_at"] == agent["created_at"]


async def test_fields_of_the_registry_cannot_be_registered(client: httpx2.AsyncClient) -> None:
    """Status and times in a registration are ignored, in the first one and in later ones."""
    claims: dict[str, Any] = {
        "status": "healthy",
        "last_heartbeat": "2001-01-01T00:00:00Z",
        "created_at": "2001-01-01T00:00:00Z",
        "updated_at": "2001-01-01T00:00:00Z",
        "draining": True,
    }
    await register(client, **claims)

    agent = await get_agent(client)

    assert (agent["status"], agent["last_heartbeat"]) == ("pending", None)
    assert not agent["created_at"].startswith("2001")
    assert not agent["updated_at"].startswith("2001")
    assert agent["draining"] is False
    assert await register(client, **claims | {"status": "expired"}) == agent["resource_version"]


@pytest.mark.parametrize("form", [{"id": "a"}, {"agent_id": "a"}, {"id": "a", "agent_id": "a"}])
async def test_an_id_has_two_names_in_requests_and_one_in_responses(
    client: httpx2.AsyncClient, form: dict[str, str]
) -> None:
    """`id` and `agent_id` are the same field; responses have `id`."""
    await client.post("/agents", json={"endpoint": "http://a:1", **form})

    agent = await get_agent(client)

    assert agent["id"] == "a"
    assert "agent_id" not in agent


async def test_all_calls_return_the_same_agent(client: httpx2.AsyncClient) -> None:
    """GET, the tool and the list return the same agent of the same version."""
    version = await register(client, capabilities=["x"])
    alone = await client.get("/agents/a")
    tool = expect_success(await client.post("/mcp/tools/get_agent_status", json={"agent_id": "a"}))
    row = (await client.get("/agents")).json()["agents"]
    status = (await client.get("/agents/a/status")).json()

    assert alone.json() == tool["agent"] == row[0]
    assert alone.headers["x-resource-version"] == version == alone.json()["resource_version"]
    assert status == {"agent_id": "a", "status": "pending", "last_heartbeat": None, "resource_version": version}


async def test_a_heartbeat_makes_the_agent_healthy_and_changes_no_other_time(client: httpx2.AsyncClient) -> None:
    """The first one is a change; later ones change `last_heartbeat`, and neither version nor `updated_at`."""
    version = await register(client)
    pending = await get_agent(client)
    first = await send_heartbeat(client)
    healthy = await get_agent(client)
    await async_wait_until(
        lambda: _heartbeat_is_later(client, first), description="the clock has advanced by a millisecond"
    )
    later = await get_agent(client)

    assert healthy["status"] == "healthy"
    assert healthy["last_heartbeat"] == first
    assert int(healthy["resource_version"]) > int(version)
    assert later["last_heartbeat"] > first
    assert later | {"last_heartbeat": first} == healthy
    assert pending["updated_at"] == healthy["updated_at"] == later["updated_at"]


async def _heartbeat_is_later(client: httpx2.AsyncClient, than: str) -> bool:
    return await send_heartbeat(client) > than


async def test_registering_the_same_again_is_a_heartbeat(client: httpx2.AsyncClient) -> None:
    """Equal data in other bytes: same version and `updated_at`, later `last_heartbeat`."""
    await register(client, labels={"a": "1", "b": "2"}, capabilities=["x"])
    first = await send_heartbeat(client)
    before = await get_agent(client)
    again = '{"capabilities":[{"name":"x"}],"labels":{"b":"2","a":"1"},"endpoint":"http://a:1","name":null,"id":"a"}'

    async def heartbeat_is_later() -> bool:
        expect_success(await client.post("/agents", content=again, headers={"content-type": "application/json"}))
        return str((await get_agent(client))["last_heartbeat"]) > first

    await async_wait_until(heartbeat_is_later, description="registering again updates the last heartbeat")
    after = await get_agent(client)

    assert after | {"last_heartbeat": first} == before


async def test_registering_another_spec_updates_the_agent(client: httpx2.AsyncClient) -> None:
    """Version and `updated_at` increase, `created_at` and the status do not change."""
    first = await register(client, capabilities=["x"])
    await send_heartbeat(client)
    before = await get_agent(client)

    async def update_is_later() -> bool:
        await register(client, capabilities=["y"], at=str(asyncio.get_running_loop().time()))
        return str((await get_agent(client))["updated_at"]) > str(before["updated_at"])

    await async_wait_until(update_is_later, description="a new spec updates updated_at")
    after = await get_agent(client)

    assert int(after["resource_version"]) > int(first)
    assert (after["created_at"], after["status"]) == (before["created_at"], "healthy")
    assert [capability["name"] for capability in after["capabilities"]] == ["y"]
    assert await list_agent_ids(client, capability="x") == []


async def test_an_unregistered_agent_is_removed_at_once(client: httpx2.AsyncClient) -> None:
    """The response names the agent and a version; every later call reports it as unknown."""
    version = await register(client)

    removed = expect_success(await client.delete("/agents/a"))

    assert removed.keys() == {"status", "agent_id", "resource_version", "message"}
    assert removed["agent_id"] == "a"
    assert int(removed["resource_version"]) > int(version)
    assert await list_agent_ids(client) == []
    for response in (
        await client.get("/agents/a"),
        await client.get("/agents/a/status"),
        await client.get("/health/a"),
        await client.delete("/agents/a"),
        await client.post("/heartbeat", json={"agent_id": "a"}),
        await client.post("/mcp/tools/heartbeat", json={"agent_id": "a"}),
        await client.post("/mcp/tools/unregister_agent", json={"agent_id": "a"}),
        await client.post("/mcp/tools/get_agent_status", json={"agent_id": "a"}),
    ):
        assert "'a'" in expect_error(response, 404, "unknown_agent")["message"]


async def test_a_list_is_sorted_by_namespace_then_id(client: httpx2.AsyncClient) -> None:
    """In any order of registration; `count` is the number of rows."""
    for namespace, agent_id in (("b", "1"), ("a", "z"), ("b", "0"), ("a", "y"), ("default", "m")):
        await register(client, agent_id, namespace=namespace)

    assert await list_agent_ids(client) == ["y", "z", "0", "1", "m"]


async def test_a_list_has_its_version_and_its_time(client: httpx2.AsyncClient) -> None:
    """Header and body have the same version, which is at least that of every row."""
    version = await register(client)

    response = await client.get("/agents")

    body = response.json()
    assert body.keys() == {"agents", "count", "resource_version", "timestamp"}
    assert body["resource_version"] == response.headers["x-resource-version"] == version
    assert MOMENT.fullmatch(body["timestamp"])
    assert "x-registry-stale" not in response.headers


@pytest.fixture
async def population(client: httpx2.AsyncClient) -> httpx2.AsyncClient:
    """Provide a mesh in which every filter matches some agents and not all."""
    await register(client, "p", namespace="n1", labels={"env": "prod", "team": "x"}, capabilities=["read", "write"])
    await register(
        client,
        "q",
        namespace="n1",
        labels={"env": "dev"},
        capabilities=[{"name": "read", "version": "2.1.0"}, {"name": "audit", "version": "1.0.0"}],
    )
    await register(client, "r", namespace="n2", labels={"env": "prod"}, capabilities=["write"])
    await register(client, "s")
    for agent_id in ("p", "r"):
        await send_heartbeat(client, agent_id)
    return client


FILTERS: list[tuple[dict[str, str | list[str]], str]] = [
    ({}, "spqr"),
    ({"namespace": "n1"}, "pq"),
    ({"namespace": "nowhere"}, ""),
    ({"namespace": ""}, "spqr"),
    ({"status": "healthy"}, "pr"),
    ({"status": "pending"}, "sq"),
    ({"status": "degraded"}, ""),
    ({"status": "unhealthy"}, ""),
    ({"status": "offline"}, ""),
    ({"status": "any"}, "spqr"),
    ({"capability": "read"}, "pq"),
    ({"capability": ["read", "write"]}, "p"),
    ({"capability": "rea"}, ""),
    ({"capability": "READ"}, ""),
    ({"capability": "read", "version_constraint": ">=2.0.0"}, "q"),
    ({"capability": "audit", "version_constraint": ">=2.0.0"}, ""),
    ({"capability": ["read", "audit"], "version_constraint": ">=1.0.0"}, "q"),
    ({"version_constraint": "<2"}, "pqr"),
    ({"label_selector": "env=prod"}, "pr"),
    ({"label_selector": "env==prod, team=x"}, "p"),
    ({"label_selector": "env=prod,env=dev"}, ""),
    ({"label_selector": "team="}, ""),
    ({"namespace": "n1", "status": "healthy", "capability": "write", "label_selector": "team=x"}, "p"),
    ({"fuzzy_match": "false", "capability": "read"}, "pq"),
    ({"fuzzy_match": "0"}, "spqr"),
]


@pytest.mark.parametrize(("query", "found"), FILTERS, ids=[str(query) for query, _ in FILTERS])
async def test_filters_combine_with_and(
    population: httpx2.AsyncClient, query: dict[str, str | list[str]], found: str
) -> None:
    """Each row: a query string and the matching agents, sorted by namespace, then id."""
    assert await list_agent_ids(population, **query) == list(found)


QUERIES: list[tuple[dict[str, Any], str]] = [
    ({}, "pr"),
    ({"status": "any"}, "spqr"),
    ({"status": "pending", "capabilities": ["read"]}, "q"),
    ({"capabilities": []}, "pr"),
    ({"capabilities": ["write"], "labels": {"env": "prod"}}, "pr"),
    ({"capability": "write", "namespace": "n2"}, "r"),
    ({"capabilities": "write"}, "pr"),
    ({"labels": {"env": "prod", "team": "x"}}, "p"),
    ({"labels": {"env": "prod"}, "label_selector": "team=x"}, "p"),
    ({"status": "any", "capabilities": ["read"], "version_constraint": ">=2"}, "q"),
    ({"fuzzy_match": False, "namespace": None}, "pr"),
    ({"resource_version": "0"}, "pr"),
]


@pytest.mark.parametrize(("query", "found"), QUERIES, ids=[str(query) for query, _ in QUERIES])
async def test_the_discovery_tool_finds_healthy_agents_by_default(
    population: httpx2.AsyncClient, query: dict[str, Any], found: str
) -> None:
    """Each row: a query object and the matching agents."""
    if query.get("resource_version") == "0":
        await population.get("/agents")  # updates the cache of this replica

    response = expect_success(await population.post("/mcp/tools/discover_services", json={"query": query}))

    assert response.keys() == {"status", "agents", "count", "resource_version", "timestamp"}
    assert [agent["id"] for agent in response["agents"]] == list(found)
    assert response["count"] == len(found)


@pytest.mark.parametrize("body", [{}, {"query": None}, {"query": {}}])
async def test_discovery_without_a_query_finds_every_healthy_agent(
    population: httpx2.AsyncClient, body: dict[str, Any]
) -> None:
    """An empty query and a missing one match every agent that can be called."""
    response = expect_success(await population.post("/mcp/tools/discover_services", json=body))

    assert [agent["id"] for agent in response["agents"]] == ["p", "r"]


async def test_an_agent_without_heartbeats_is_degraded_expired_and_removed(redis_url: str) -> None:
    """Its own thresholds apply."""
    async with in_process_registry(
        redis_url, retention=timedelta(seconds=0.2), health_check_interval=SWEEP_INTERVAL
    ) as client:
        before = await register(client, "before")
        await register(client, timeout_threshold=0.2, eviction_threshold=0.4)

        async def is_removed() -> bool:
            return (await client.get("/agents/a")).status_code == 404

        await async_wait_until(is_removed, description="the agent is removed after its retention")
        stream = await client.get(f"/agents?watch=true&agent_id=a&timeout=0.1s&resource_version={before}")

    events = [json.loads(line) for line in stream.text.splitlines() if line]
    assert [(event["type"], event["object"].get("status")) for event in events] == [
        ("ADDED", "pending"),
        ("MODIFIED", "degraded"),
        ("MODIFIED", "expired"),
        ("DELETED", "expired"),
        ("BOOKMARK", None),
    ]


async def test_a_heartbeat_makes_a_degraded_agent_healthy(redis_url: str, redis_client: redis.Redis) -> None:
    """The version increases, and `updated_at` does not change."""
    async with in_process_registry(redis_url, health_check_interval=SWEEP_INTERVAL) as client:
        await register(client)
        await send_heartbeat(client)
        make_overdue(redis_client, "a")
        await async_wait_until(lambda: _has_status(client, "degraded"), description="the agent is degraded")
        degraded = await get_agent(client)

        await send_heartbeat(client)
        recovered = await get_agent(client)

    assert recovered["status"] == "healthy"
    assert int(recovered["resource_version"]) > int(degraded["resource_version"])
    assert recovered["updated_at"] == degraded["updated_at"] == degraded["created_at"]


async def test_a_pending_agent_has_the_same_deadlines(redis_url: str) -> None:
    """An agent that never sends a heartbeat does not stay pending."""
    async with in_process_registry(redis_url, health_check_interval=SWEEP_INTERVAL) as client:
        await register(client, timeout_threshold=0.1, eviction_threshold=60)

        await async_wait_until(lambda: _has_status(client, "degraded"), description="the agent is degraded")


async def _has_status(client: httpx2.AsyncClient, status: str) -> bool:
    return str((await get_agent(client))["status"]) == status


async def test_the_last_heartbeat_is_exact_for_one_agent_and_later_in_lists(
    client: httpx2.AsyncClient, redis_url: str
) -> None:
    """Sent through another replica: GET of the agent returns it at once, a list later."""
    async with in_process_registry(redis_url) as other:
        await register(client)
        await send_heartbeat(client)
        assert await list_agent_ids(client) == ["a"]
        first = (await get_agent(client))["last_heartbeat"]

        async def is_exact() -> bool:
            at = await send_heartbeat(other)
            shown = (await get_agent(client))["last_heartbeat"]
            assert shown == at
            assert (await client.get("/agents/a/status")).json()["last_heartbeat"] == at
            assert (await client.get("/health/a")).json()["last_heartbeat"] == at
            return bool(at > first)

        await async_wait_until(is_exact, description="a later heartbeat is returned exactly")
        last = await send_heartbeat(other)

        async def is_listed() -> bool:
            return bool((await client.get("/agents")).json()["agents"][0]["last_heartbeat"] == last)

        await async_wait_until(is_listed, description="the list has the heartbeat")


async def test_times_are_those_of_the_redis_server(client: httpx2.AsyncClient, redis_client: redis.Redis) -> None:
    """Stored times do not depend on the clocks of replicas."""
    seconds: Any = redis_client.time()
    before = seconds[0] + seconds[1] / 1e6
    await register(client)
    at = await send_heartbeat(client)
    seconds = redis_client.time()
    after = seconds[0] + seconds[1] / 1e6

    assert before - 0.001 <= datetime.fromisoformat(at).timestamp() <= after
