"""Draining agents: registered, alive and listed, and not offered to callers."""

from typing import Any

import httpx2
import pytest
import redis

from tests.support.http_calls import (
    a_registration,
    error_fields,
    expect_error,
    expect_success,
    get_agent,
    list_agent_ids,
    register,
    send_heartbeat,
)
from tests.support.in_process_registry import in_process_registry
from tests.support.served_registry import served_registry
from tests.support.watch_client import open_watch


async def drain(client: httpx2.AsyncClient, agent_id: str = "a") -> dict[str, Any]:
    """Drain one agent."""
    return expect_success(await client.post(f"/agents/{agent_id}/drain"))


async def undrain(client: httpx2.AsyncClient, agent_id: str = "a") -> dict[str, Any]:
    """Put one agent back into service."""
    return expect_success(await client.post(f"/agents/{agent_id}/undrain"))


async def discovered(client: httpx2.AsyncClient, **query: Any) -> list[str]:
    """Return the ids that the discovery tool finds."""
    response = expect_success(await client.post("/mcp/tools/discover_services", json={"query": query}))
    return [agent["id"] for agent in response["agents"]]


async def agents_with_capability(client: httpx2.AsyncClient, **query: str) -> list[str]:
    """Return the agents of the capabilities that a search finds."""
    response = await client.get("/capabilities", params=query)
    assert response.status_code == 200, response.text
    return [row["agent_id"] for row in response.json()["capabilities"]]


@pytest.fixture
async def one_draining(client: httpx2.AsyncClient) -> httpx2.AsyncClient:
    """Provide two healthy agents with the same capability, of which `a` is draining."""
    for agent_id in "ab":
        await register(client, agent_id, capabilities=["x"], labels={"env": "dev"})
        await send_heartbeat(client, agent_id)
    await drain(client)
    return client


async def test_draining_reports_the_change(client: httpx2.AsyncClient) -> None:
    """It reports whether the call changed the agent, and since which version; a repeated call changes nothing."""
    await register(client)

    first, repeated = await drain(client), await drain(client)

    assert first == {
        "status": "success",
        "agent_id": "a",
        "draining": True,
        "changed": True,
        "resource_version": (await get_agent(client))["resource_version"],
        "message": "Agent a is draining: it stays registered and is not discovered until undrained",
    }
    assert repeated == first | {"changed": False}
    back = await undrain(client)
    assert (back["draining"], back["changed"], back["message"]) == (False, True, "Agent a is in service")
    assert int(back["resource_version"]) > int(first["resource_version"])
    assert not (await undrain(client))["changed"]


async def test_a_draining_agent_stays_healthy_and_listed(one_draining: httpx2.AsyncClient) -> None:
    """Its status stays, heartbeats are accepted, it is listed with `draining` true; for others it is false."""
    before = await get_agent(one_draining)
    at = await send_heartbeat(one_draining)
    health = (await one_draining.get("/health/a")).json()

    assert before["status"] == "healthy"
    assert [(agent["id"], agent["draining"]) for agent in (await one_draining.get("/agents")).json()["agents"]] == [
        ("a", True),
        ("b", False),
    ]
    assert await get_agent(one_draining) == before | {"last_heartbeat": at}
    assert (health["status"], health["message"]) == (
        "healthy",
        "Heartbeats arrive on time. Draining: not offered to callers",
    )


async def test_searches_for_callable_agents_exclude_draining_ones(one_draining: httpx2.AsyncClient) -> None:
    """Neither by the tool nor among capabilities, until it is undrained."""
    assert await discovered(one_draining) == ["b"]
    assert await discovered(one_draining, capabilities=["x"]) == ["b"]
    assert await discovered(one_draining, status="healthy") == ["b"]
    assert await discovered(one_draining, agent_id="a") == []
    assert await agents_with_capability(one_draining) == ["b"]
    assert await agents_with_capability(one_draining, name="x", agent_status="healthy") == ["b"]

    await undrain(one_draining)

    assert (
        await discovered(one_draining, capabilities=["x"]) == await agents_with_capability(one_draining) == ["a", "b"]
    )


async def test_searches_can_include_draining_agents(one_draining: httpx2.AsyncClient) -> None:
    """`draining` selects them; the status `any` matches every agent."""
    assert await discovered(one_draining, draining=True) == ["a"]
    assert await discovered(one_draining, draining=False) == ["b"]
    assert await discovered(one_draining, status="any") == ["a", "b"]
    assert await discovered(one_draining, status="any", draining=True) == ["a"]
    assert await agents_with_capability(one_draining, agent_draining="true") == ["a"]
    assert await agents_with_capability(one_draining, agent_status="any") == ["a", "b"]
    assert await agents_with_capability(one_draining, agent_status="any", agent_draining="false") == ["b"]
    assert await agents_with_capability(one_draining, agent_id="a", agent_draining="1") == ["a"]


async def test_lists_can_filter_by_draining(one_draining: httpx2.AsyncClient) -> None:
    """`GET /agents` lists all; `draining` can be combined with the other filters."""
    assert await list_agent_ids(one_draining) == await list_agent_ids(one_draining, capability="x") == ["a", "b"]
    assert await list_agent_ids(one_draining, draining="true") == ["a"]
    assert await list_agent_ids(one_draining, draining="false", capability="x", status="healthy") == ["b"]
    assert await list_agent_ids(one_draining, draining="1", agent_id="b") == []
    refused = expect_error(await one_draining.get("/agents", params={"draining": "maybe"}), 400, "malformed_request")
    assert error_fields(refused) == ["draining"]
    refused = expect_error(
        await one_draining.post("/mcp/tools/discover_services", json={"query": {"draining": "true"}}),
        400,
        "malformed_request",
    )
    assert error_fields(refused) == ["query.draining"]


async def test_a_cached_list_is_updated_by_a_drain(one_draining: httpx2.AsyncClient) -> None:
    """The change alone updates the cached response, and changes its ETag."""
    assert await list_agent_ids(one_draining, draining="false") == ["b"]
    tag = (await one_draining.get("/agents", params={"draining": "false"})).headers["etag"]

    await drain(one_draining, "b")

    response = await one_draining.get("/agents", params={"draining": "false"}, headers={"if-none-match": tag})
    assert (response.status_code, response.json()["agents"]) == (200, [])
    assert await list_agent_ids(one_draining, draining="true") == ["a", "b"]


async def test_an_unknown_agent_cannot_be_drained(client: httpx2.AsyncClient) -> None:
    """404, as in every other call about one agent."""
    for action in ("drain", "undrain"):
        expect_error(await client.post(f"/agents/nobody/{action}"), 404, "unknown_agent")


@pytest.mark.leaves_damaged_data("an incomplete agent record")
async def test_a_damaged_record_is_not_an_unknown_agent(client: httpx2.AsyncClient, redis_client: redis.Redis) -> None:
    """The error is 503, also among other agents, which are drained nevertheless."""
    await register(client, "a", labels={"env": "dev"})
    await register(client, "b", labels={"env": "dev"})
    redis_client.hdel("{mesh}:agent:a", "timeout")

    refused = expect_error(await client.post("/agents/a/drain"), 503, "store_unavailable")
    response = expect_success(await client.post("/agents/drain", json={"label_selector": "env=dev"}))

    assert refused["reason"] == "bad_record"
    assert response["results"]["a"]["error"] == "store_unavailable"
    assert (response["results"]["b"]["changed"], response["changed"], response["count"]) == (True, 1, 2)


async def test_agents_are_drained_by_labels(client: httpx2.AsyncClient) -> None:
    """Results have the order of a list; `changed` is false for agents that were draining already."""
    for agent_id, env, namespace in (("a", "dev", "n"), ("b", "dev", "m"), ("c", "prod", "m"), ("d", "dev", "m")):
        await register(client, agent_id, labels={"env": env}, namespace=namespace)
    before = await drain(client, "d")

    response = expect_success(await client.post("/agents/drain", json={"label_selector": "env=dev"}))

    versions = {agent_id: (await get_agent(client, agent_id))["resource_version"] for agent_id in "abd"}
    assert response == {
        "status": "success",
        "draining": True,
        "results": {
            "b": {"status": "success", "changed": True, "resource_version": versions["b"]},
            "d": {"status": "success", "changed": False, "resource_version": before["resource_version"]},
            "a": {"status": "success", "changed": True, "resource_version": versions["a"]},
        },
        "count": 3,
        "changed": 2,
    }
    assert list(response["results"]) == ["b", "d", "a"]
    assert await list_agent_ids(client, draining="true") == ["b", "d", "a"]

    back = expect_success(await client.post("/agents/undrain", json={"label_selector": "env", "namespace": "m"}))
    assert (back["draining"], list(back["results"]), back["changed"]) == (False, ["b", "c", "d"], 2)
    assert await list_agent_ids(client, draining="true") == ["a"]
    assert expect_success(await client.post("/agents/undrain", json={"namespace": "n"}))["changed"] == 1
    assert await list_agent_ids(client, draining="true") == []


async def test_many_agents_are_drained_in_several_store_calls(client: httpx2.AsyncClient) -> None:
    """All of them, though they exceed one call to the store."""
    for start in (0, 200, 400):
        agents = [a_registration(f"a{at}", namespace="n") for at in range(start, start + 150)]
        expect_success(await client.post("/agents/batch", json={"agents": agents}))

    response = expect_success(await client.post("/agents/drain", json={"namespace": "n"}))

    assert (response["count"], response["changed"]) == (450, 450)
    assert len(await list_agent_ids(client, draining="true")) == 450


async def test_a_selector_without_a_match_is_not_an_error(client: httpx2.AsyncClient) -> None:
    """The result is empty."""
    response = expect_success(await client.post("/agents/drain", json={"label_selector": "env=nowhere"}))

    assert (response["results"], response["count"], response["changed"]) == ({}, 0, 0)


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 422, "label_selector"),
        ({"label_selector": ""}, 422, "label_selector"),
        ({"label_selector": " "}, 422, "label_selector"),
        ({"namespace": None}, 422, "label_selector"),
        ({"label_selector": "a in"}, 400, "label_selector"),
        ({"label_selector": 7}, 400, "label_selector"),
        ({"labels": {"a": "b"}}, 400, "labels"),
        ({"namespace": "n", "draining": False}, 400, "draining"),
    ],
    ids=str,
)
async def test_the_whole_mesh_never_drains_by_mistake(
    client: httpx2.AsyncClient, body: dict[str, Any], status: int, field: str
) -> None:
    """A missing, misspelt or unreadable selection is rejected, and no agent is drained."""
    await register(client)

    response = await client.post("/agents/drain", json=body)

    code = "validation_failed" if status == 422 else "malformed_request"
    assert error_fields(expect_error(response, status, code)) == [field]
    assert await list_agent_ids(client, draining="true") == []


async def test_unsupported_parameters_are_rejected(client: httpx2.AsyncClient) -> None:
    """A precondition, a query parameter, an unknown field of the body."""
    await register(client)

    for headers in ({"if-match": "1"}, {"if-none-match": "*"}):
        expect_error(await client.post("/agents/a/drain", headers=headers), 400, "malformed_request")
        expect_error(
            await client.post("/agents/drain", json={"namespace": "n"}, headers=headers), 400, "malformed_request"
        )
    expect_error(await client.post("/agents/a/drain?grace=5s"), 400, "malformed_request")
    expect_error(await client.post("/agents/a/drain", json={"draining": False}), 400, "malformed_request")
    assert (await get_agent(client))["draining"] is False
    assert expect_success(await client.post("/agents/a/drain", json={}))["changed"]


async def test_agents_may_be_called_drain(client: httpx2.AsyncClient) -> None:
    """The paths of the calls for many agents do not hide agents with these names."""
    for agent_id in ("drain", "undrain"):
        await register(client, agent_id)
        await drain(client, agent_id)
        assert (await get_agent(client, agent_id))["draining"] is True
        assert (await client.get(f"/agents/{agent_id}/status")).json()["agent_id"] == agent_id
        await undrain(client, agent_id)
        assert expect_success(await client.delete(f"/agents/{agent_id}"))["agent_id"] == agent_id


async def test_a_drain_survives_registering_and_ends_with_unregistering(client: httpx2.AsyncClient) -> None:
    """With the same or another spec, recovered or not; only a removed agent starts without it."""
    await register(client)
    await send_heartbeat(client)
    await drain(client)

    await register(client)
    await register(client, labels={"env": "dev"}, draining=False)
    await register(client, timeout_threshold=7)
    agent = await get_agent(client)
    assert (agent["draining"], agent["labels"], agent["timeout_threshold"]) == (True, {}, 7)

    expect_success(await client.delete("/agents/a"))
    await register(client)
    assert (await get_agent(client))["draining"] is False


async def test_draining_does_not_conflict_with_a_conditional_registration(client: httpx2.AsyncClient) -> None:
    """The spec has not changed, so both the version before and the version of the drain are current."""
    version = await register(client)
    drained = (await drain(client))["resource_version"]
    assert int(drained) > int(version)

    later = await register(client, resource_version=version, labels={"k": "1"})
    expect_error(
        await client.post("/agents", json=a_registration(resource_version=drained, labels={"k": "2"})),
        409,
        "stale_version",
    )
    back = (await undrain(client))["resource_version"]
    await register(client, resource_version=back, labels={"k": "3"})

    assert int(later) > int(drained)
    assert (await get_agent(client))["labels"] == {"k": "3"}


async def test_a_drain_changes_the_version_and_no_time(client: httpx2.AsyncClient) -> None:
    """Only changes of the registration change `updated_at`."""
    await register(client)
    before = await get_agent(client)

    version = (await drain(client))["resource_version"]

    assert await get_agent(client) == before | {"draining": True, "resource_version": version}


async def test_every_replica_shows_a_drain_even_if_started_later(redis_url: str) -> None:
    """The next read on another replica shows an acknowledged drain, and a restart preserves it."""
    async with in_process_registry(redis_url) as one, in_process_registry(redis_url) as two:
        await register(one)
        await send_heartbeat(one)
        await drain(one)
        assert await discovered(two) == []
        assert await list_agent_ids(two, draining="true") == ["a"]
    async with in_process_registry(redis_url) as three:
        assert (await get_agent(three))["draining"] is True
        assert await discovered(three) == []
        await undrain(three)
        assert await discovered(three) == ["a"]


async def test_a_watch_of_agents_in_service_receives_drains_as_deletions(redis_url: str) -> None:
    """DELETED when an agent drains, ADDED when it is undrained, and no event for updates in between."""
    async with served_registry(redis_url) as served:
        client = served.client
        since = {"resource_version": await register(client)}
        async with (
            open_watch(served.url, draining="false", **since) as stream,
            open_watch(served.url, draining="true", **since) as others,
            open_watch(served.url, **since) as everything,
        ):
            drained = (await drain(client))["resource_version"]
            await register(client, labels={"k": "1"})
            back = (await undrain(client))["resource_version"]

            seen = await stream.next_events(2)
            assert [(each.kind, str(each.version)) for each in seen] == [("DELETED", drained), ("ADDED", back)]
            assert [each.object["draining"] for each in seen] == [False, False]
            assert [each.kind for each in await others.next_events(3)] == ["ADDED", "MODIFIED", "DELETED"]
            assert [(each.kind, each.object["draining"]) for each in await everything.next_events(3)] == [
                ("MODIFIED", True),
                ("MODIFIED", True),
                ("MODIFIED", False),
            ]


async def test_draining_agents_are_counted(one_draining: httpx2.AsyncClient) -> None:
    """In addition to their statuses, in JSON and in the Prometheus text."""
    numbers = (await one_draining.get("/metrics")).json()
    text = (await one_draining.get("/metrics/prometheus")).text

    assert (numbers["draining_agents"], numbers["healthy_agents"], numbers["total_agents"]) == (1, 2, 2)
    assert "\nmcp_registry_agents_draining 1.0\n" in text
    await undrain(one_draining)
    assert (await one_draining.get("/metrics")).json()["draining_agents"] == 0
