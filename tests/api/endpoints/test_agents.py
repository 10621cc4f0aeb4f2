"""Agents over HTTP: registered, shown, listed, removed."""

import asyncio
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

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
OFTEN = timedelta(milliseconds=50)


async def test_registering_answers_what_the_tool_answers(client: httpx2.AsyncClient) -> None:
    """POST /agents and the tool give the same fields; the message names the agent."""
    rest = expect_success(await client.post("/agents", json=a_registration("a", name="My Agent")))
    tool = expect_success(
        await client.post("/mcp/tools/register_agent", json={"registration_data": a_registration("b", name="My Agent")})
    )

    assert rest.keys() == tool.keys() == {"status", "agent_id", "resource_version", "message"}
    assert (rest["agent_id"], tool["agent_id"]) == ("a", "b")
    assert rest["message"] == tool["message"] == "Agent My Agent registered successfully"
    assert int(rest["resource_version"]) < int(tool["resource_version"])


async def test_an_agent_shows_all_it_registered_with_defaults_filled_in(client: httpx2.AsyncClient) -> None:
    """What was left out appears with its default; what the registry does not know is kept as it was sent."""
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


async def test_what_the_server_owns_cannot_be_registered(client: httpx2.AsyncClient) -> None:
    """Status and times in a registration are ignored, at registering and at registering anew."""
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
async def test_an_id_has_two_names_and_returns_under_one(client: httpx2.AsyncClient, form: dict[str, str]) -> None:
    """`id` and `agent_id` mean the same; the agent shows `id`."""
    await client.post("/agents", json={"endpoint": "http://a:1", **form})

    agent = await get_agent(client)

    assert agent["id"] == "a"
    assert "agent_id" not in agent


async def test_the_answers_of_one_agent_agree(client: httpx2.AsyncClient) -> None:
    """GET one, the tool, the list, the batch of one status: the same agent at the same version."""
    version = await register(client, capabilities=["x"])
    alone = await client.get("/agents/a")
    tool = expect_success(await client.post("/mcp/tools/get_agent_status", json={"agent_id": "a"}))
    row = (await client.get("/agents")).json()["agents"]
    status = (await client.get("/agents/a/status")).json()

    assert alone.json() == tool["agent"] == row[0]
    assert alone.headers["x-resource-version"] == version == alone.json()["resource_version"]
    assert status == {"agent_id": "a", "status": "pending", "last_heartbeat": None, "resource_version": version}


async def test_a_heartbeat_makes_healthy_and_moves_no_other_time(client: httpx2.AsyncClient) -> None:
    """The first is a change; later ones move `last_heartbeat` alone, neither version nor `updated_at`."""
    version = await register(client)
    pending = await get_agent(client)
    first = await send_heartbeat(client)
    healthy = await get_agent(client)
    await async_wait_until(lambda: _beats_later(client, first), description="the clock moves on by a millisecond")
    later = await get_agent(client)

    assert healthy["status"] == "healthy"
    assert healthy["last_heartbeat"] == first
    assert int(healthy["resource_version"]) > int(version)
    assert later["last_heartbeat"] > first
    assert later | {"last_heartbeat": first} == healthy
    assert pending["updated_at"] == healthy["updated_at"] == later["updated_at"]


async def _beats_later(client: httpx2.AsyncClient, than: str) -> bool:
    return await send_heartbeat(client) > than


async def test_registering_the_same_again_is_a_heartbeat(client: httpx2.AsyncClient) -> None:
    """Same meaning in other bytes: no new version, `updated_at` stays, `last_heartbeat` moves."""
    await register(client, labels={"a": "1", "b": "2"}, capabilities=["x"])
    first = await send_heartbeat(client)
    before = await get_agent(client)
    again = '{"capabilities":[{"name":"x"}],"labels":{"b":"2","a":"1"},"endpoint":"http://a:1","name":null,"id":"a"}'

    async def registers_later() -> bool:
        expect_success(await client.post("/agents", content=again, headers={"content-type": "application/json"}))
        return str((await get_agent(client))["last_heartbeat"]) > first

    await async_wait_until(registers_later, description="registering anew moves the last heartbeat")
    after = await get_agent(client)

    assert after | {"last_heartbeat": first} == before


async def test_registering_another_spec_is_an_update(client: httpx2.AsyncClient) -> None:
    """The version rises, `updated_at` moves, `created_at` and the status stay."""
    first = await register(client, capabilities=["x"])
    await send_heartbeat(client)
    before = await get_agent(client)

    async def updates() -> bool:
        await register(client, capabilities=["y"], at=str(asyncio.get_running_loop().time()))
        return str((await get_agent(client))["updated_at"]) > str(before["updated_at"])

    await async_wait_until(updates, description="a new spec moves updated_at")
    after = await get_agent(client)

    assert int(after["resource_version"]) > int(first)
    assert (after["created_at"], after["status"]) == (before["created_at"], "healthy")
    assert [capability["name"] for capability in after["capabilities"]] == ["y"]
    assert await list_agent_ids(client, capability="x") == []


async def test_unregistering_removes_at_once(client: httpx2.AsyncClient) -> None:
    """The answer names the agent and a version; afterwards it is unknown to every call."""
    version = await register(client)

    gone = expect_success(await client.delete("/agents/a"))

    assert gone.keys() == {"status", "agent_id", "resource_version", "message"}
    assert gone["agent_id"] == "a"
    assert int(gone["resource_version"]) > int(version)
    assert await list_agent_ids(client) == []
    for answer in (
        await client.get("/agents/a"),
        await client.get("/agents/a/status"),
        await client.get("/health/a"),
        await client.delete("/agents/a"),
        await client.post("/heartbeat", json={"agent_id": "a"}),
        await client.post("/mcp/tools/heartbeat", json={"agent_id": "a"}),
        await client.post("/mcp/tools/unregister_agent", json={"agent_id": "a"}),
        await client.post("/mcp/tools/get_agent_status", json={"agent_id": "a"}),
    ):
        assert "'a'" in expect_error(answer, 404, "unknown_agent")["message"]


async def test_a_list_is_sorted_by_namespace_then_id(client: httpx2.AsyncClient) -> None:
    """Whatever the order of arrival; `count` is the number of rows."""
    for namespace, agent_id in (("b", "1"), ("a", "z"), ("b", "0"), ("a", "y"), ("default", "m")):
        await register(client, agent_id, namespace=namespace)

    assert await list_agent_ids(client) == ["y", "z", "0", "1", "m"]


async def test_a_list_names_its_version_and_its_moment(client: httpx2.AsyncClient) -> None:
    """The header and the body agree; the version is at least that of every row."""
    version = await register(client)

    answer = await client.get("/agents")

    body = answer.json()
    assert body.keys() == {"agents", "count", "resource_version", "timestamp"}
    assert body["resource_version"] == answer.headers["x-resource-version"] == version
    assert MOMENT.fullmatch(body["timestamp"])
    assert "x-registry-stale" not in answer.headers


@pytest.fixture
async def population(client: httpx2.AsyncClient) -> httpx2.AsyncClient:
    """Provide a mesh in which every filter finds some and leaves some."""
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
    """Each row: a query string and the agents it finds, sorted by namespace, then id."""
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
async def test_the_discovery_tool_finds_healthy_agents_unless_it_is_told_otherwise(
    population: httpx2.AsyncClient, query: dict[str, Any], found: str
) -> None:
    """Each row: a query object and the agents it finds."""
    if query.get("resource_version") == "0":
        await population.get("/agents")  # so that this replica's memory is up to date

    answer = expect_success(await population.post("/mcp/tools/discover_services", json={"query": query}))

    assert answer.keys() == {"status", "agents", "count", "resource_version", "timestamp"}
    assert [agent["id"] for agent in answer["agents"]] == list(found)
    assert answer["count"] == len(found)


@pytest.mark.parametrize("body", [{}, {"query": None}, {"query": {}}])
async def test_discovery_without_a_query_finds_every_healthy_agent(
    population: httpx2.AsyncClient, body: dict[str, Any]
) -> None:
    """Nothing asked is everything that can be chosen."""
    answer = expect_success(await population.post("/mcp/tools/discover_services", json=body))

    assert [agent["id"] for agent in answer["agents"]] == ["p", "r"]


async def test_a_silent_agent_degrades_expires_and_is_gone(redis_url: str) -> None:
    """The life of an agent that beats once and then never again, on its own thresholds; the words of filters fit."""
    async with in_process_registry(redis_url, retention=timedelta(seconds=0.2), health_check_interval=OFTEN) as client:
        await register(client, timeout_threshold=0.2, eviction_threshold=0.4)
        await send_heartbeat(client)
        seen: list[str] = []

        async def gone() -> bool:
            answer = await client.get("/agents/a")
            if answer.status_code == 404:
                return True
            status = answer.json()["status"]
            if status not in seen:
                seen.append(status)
                word = {"degraded": "unhealthy", "expired": "offline"}.get(status, status)
                assert await list_agent_ids(client, status=word) in (["a"], [])
            return False

        await async_wait_until(gone, description="the agent is removed after its retention")

    assert seen == ["healthy", "degraded", "expired"]


async def test_a_heartbeat_brings_a_degraded_agent_back(redis_url: str) -> None:
    """One heartbeat heals; the version rises, `updated_at` does not move."""
    async with in_process_registry(redis_url, health_check_interval=OFTEN) as client:
        await register(client, timeout_threshold=0.1, eviction_threshold=60)
        await send_heartbeat(client)
        await async_wait_until(lambda: _has_status(client, "degraded"), description="the agent is degraded")
        degraded = await get_agent(client)

        await send_heartbeat(client)
        healed = await get_agent(client)

    assert healed["status"] == "healthy"
    assert int(healed["resource_version"]) > int(degraded["resource_version"])
    assert healed["updated_at"] == degraded["updated_at"] == degraded["created_at"]


async def test_a_pending_agent_runs_on_the_same_clock(redis_url: str) -> None:
    """Registered and never heard of: it does not stay pending for ever."""
    async with in_process_registry(redis_url, health_check_interval=OFTEN) as client:
        await register(client, timeout_threshold=0.1, eviction_threshold=60)

        await async_wait_until(lambda: _has_status(client, "degraded"), description="the agent is degraded")


async def _has_status(client: httpx2.AsyncClient, status: str) -> bool:
    return str((await get_agent(client))["status"]) == status


async def test_the_last_heartbeat_is_exact_of_one_and_a_second_old_in_lists(
    client: httpx2.AsyncClient, redis_url: str
) -> None:
    """Beaten through another replica: GET one shows it at once, a list at most a second later."""
    async with in_process_registry(redis_url) as other:
        await register(client)
        await send_heartbeat(client)
        assert await list_agent_ids(client) == ["a"]
        first = (await get_agent(client))["last_heartbeat"]

        async def exact() -> bool:
            at = await send_heartbeat(other)
            shown = (await get_agent(client))["last_heartbeat"]
            assert shown == at
            assert (await client.get("/agents/a/status")).json()["last_heartbeat"] == at
            assert (await client.get("/health/a")).json()["last_heartbeat"] == at
            return bool(at > first)

        await async_wait_until(exact, description="a later heartbeat is shown exactly")
        last = await send_heartbeat(other)

        async def in_list() -> bool:
            return bool((await client.get("/agents")).json()["agents"][0]["last_heartbeat"] == last)

        began = asyncio.get_running_loop().time()
        await async_wait_until(in_list, description="the list shows it", timeout=3)
        assert asyncio.get_running_loop().time() - began < 1.5


async def test_times_are_the_redis_servers(client: httpx2.AsyncClient, redis_client: redis.Redis) -> None:
    """What is stored is told by one clock, whichever replica was asked."""
    seconds: Any = redis_client.time()
    before = seconds[0] + seconds[1] / 1e6
    await register(client)
    at = await send_heartbeat(client)
    seconds = redis_client.time()
    after = seconds[0] + seconds[1] / 1e6

    assert before - 0.001 <= datetime.fromisoformat(at).timestamp() <= after
