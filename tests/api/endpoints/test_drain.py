"""Agents out of service: alive, listed, and found by nobody who looks for whom to call."""

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
    """Take one agent out of service."""
    return expect_success(await client.post(f"/agents/{agent_id}/drain"))


async def undrain(client: httpx2.AsyncClient, agent_id: str = "a") -> dict[str, Any]:
    """Put one agent back."""
    return expect_success(await client.post(f"/agents/{agent_id}/undrain"))


async def discovered(client: httpx2.AsyncClient, **query: Any) -> list[str]:
    """Return the ids that the tool finds."""
    answer = expect_success(await client.post("/mcp/tools/discover_services", json={"query": query}))
    return [agent["id"] for agent in answer["agents"]]


async def found(client: httpx2.AsyncClient, **query: str) -> list[str]:
    """Return the agents whose capabilities a search finds."""
    answer = await client.get("/capabilities", params=query)
    assert answer.status_code == 200, answer.text
    return [row["agent_id"] for row in answer.json()["capabilities"]]


@pytest.fixture
async def pair(client: httpx2.AsyncClient) -> httpx2.AsyncClient:
    """Provide two healthy agents with the same capability, of which `a` drains."""
    for agent_id in "ab":
        await register(client, agent_id, capabilities=["x"], labels={"env": "dev"})
        await send_heartbeat(client, agent_id)
    await drain(client)
    return client


async def test_draining_answers_what_was_done(client: httpx2.AsyncClient) -> None:
    """Whether anything changed, and the version from which on it is so; asking again changes nothing."""
    await register(client)

    first, again = await drain(client), await drain(client)

    assert first == {
        "status": "success",
        "agent_id": "a",
        "draining": True,
        "changed": True,
        "resource_version": (await get_agent(client))["resource_version"],
        "message": "Agent a is draining: it stays registered and is not discovered until undrained",
    }
    assert again == first | {"changed": False}
    back = await undrain(client)
    assert (back["draining"], back["changed"], back["message"]) == (False, True, "Agent a is in service")
    assert int(back["resource_version"]) > int(first["resource_version"])
    assert not (await undrain(client))["changed"]


async def test_an_agent_that_drains_lives_on(pair: httpx2.AsyncClient) -> None:
    """Same status, its heartbeats are taken, it is shown and listed, with `draining` true; the others' is false."""
    before = await get_agent(pair)
    at = await send_heartbeat(pair)
    health = (await pair.get("/health/a")).json()

    assert before["status"] == "healthy"
    assert [(agent["id"], agent["draining"]) for agent in (await pair.get("/agents")).json()["agents"]] == [
        ("a", True),
        ("b", False),
    ]
    assert await get_agent(pair) == before | {"last_heartbeat": at}
    assert (health["status"], health["message"]) == (
        "healthy",
        "Heartbeats arrive on time. Draining: not offered to callers",
    )


async def test_who_looks_for_whom_to_call_does_not_find_it(pair: httpx2.AsyncClient) -> None:
    """Neither by the tool nor among capabilities, until it is put back."""
    assert await discovered(pair) == ["b"]
    assert await discovered(pair, capabilities=["x"]) == ["b"]
    assert await discovered(pair, status="healthy") == ["b"]
    assert await discovered(pair, agent_id="a") == []
    assert await found(pair) == ["b"]
    assert await found(pair, name="x", agent_status="healthy") == ["b"]

    await undrain(pair)

    assert await discovered(pair, capabilities=["x"]) == await found(pair) == ["a", "b"]


async def test_who_asks_for_it_finds_it(pair: httpx2.AsyncClient) -> None:
    """`draining` says which; `any` for the status means any agent."""
    assert await discovered(pair, draining=True) == ["a"]
    assert await discovered(pair, draining=False) == ["b"]
    assert await discovered(pair, status="any") == ["a", "b"]
    assert await discovered(pair, status="any", draining=True) == ["a"]
    assert await found(pair, agent_draining="true") == ["a"]
    assert await found(pair, agent_status="any") == ["a", "b"]
    assert await found(pair, agent_status="any", agent_draining="false") == ["b"]
    assert await found(pair, agent_id="a", agent_draining="1") == ["a"]


async def test_lists_tell_them_apart_where_they_are_asked(pair: httpx2.AsyncClient) -> None:
    """`GET /agents` shows all; `draining` is one more filter, and goes with the others."""
    assert await list_agent_ids(pair) == await list_agent_ids(pair, capability="x") == ["a", "b"]
    assert await list_agent_ids(pair, draining="true") == ["a"]
    assert await list_agent_ids(pair, draining="false", capability="x", status="healthy") == ["b"]
    assert await list_agent_ids(pair, draining="1", agent_id="b") == []
    refused = expect_error(await pair.get("/agents", params={"draining": "maybe"}), 400, "malformed_request")
    assert error_fields(refused) == ["draining"]
    refused = expect_error(
        await pair.post("/mcp/tools/discover_services", json={"query": {"draining": "true"}}), 400, "malformed_request"
    )
    assert error_fields(refused) == ["query.draining"]


async def test_a_list_that_was_kept_follows(pair: httpx2.AsyncClient) -> None:
    """An answer given before is brought up to date by the change alone; its tag changes with it."""
    assert await list_agent_ids(pair, draining="false") == ["b"]
    tag = (await pair.get("/agents", params={"draining": "false"})).headers["etag"]

    await drain(pair, "b")

    answer = await pair.get("/agents", params={"draining": "false"}, headers={"if-none-match": tag})
    assert (answer.status_code, answer.json()["agents"]) == (200, [])
    assert await list_agent_ids(pair, draining="true") == ["a", "b"]


async def test_nobody_can_be_drained_who_is_not_there(client: httpx2.AsyncClient) -> None:
    """404, as for everything else that is asked of an agent."""
    for verb in ("drain", "undrain"):
        expect_error(await client.post(f"/agents/nobody/{verb}"), 404, "unknown_agent")


@pytest.mark.leaves_damaged_data("a hash that is none")
async def test_a_damaged_record_is_no_unknown_agent(client: httpx2.AsyncClient, redis_client: redis.Redis) -> None:
    """It is trouble of the store, alone and among others, who drain all the same."""
    await register(client, "a", labels={"env": "dev"})
    await register(client, "b", labels={"env": "dev"})
    redis_client.hdel("{mesh}:agent:a", "timeout")

    refused = expect_error(await client.post("/agents/a/drain"), 503, "store_unavailable")
    answer = expect_success(await client.post("/agents/drain", json={"label_selector": "env=dev"}))

    assert refused["reason"] == "bad_record"
    assert answer["results"]["a"]["error"] == "store_unavailable"
    assert (answer["results"]["b"]["changed"], answer["changed"], answer["count"]) == (True, 1, 2)


async def test_many_drain_by_their_labels(client: httpx2.AsyncClient) -> None:
    """Each is told by its id, sorted as in a list; only those that did not drain already have changed."""
    for agent_id, env, namespace in (("a", "dev", "n"), ("b", "dev", "m"), ("c", "prod", "m"), ("d", "dev", "m")):
        await register(client, agent_id, labels={"env": env}, namespace=namespace)
    before = await drain(client, "d")

    answer = expect_success(await client.post("/agents/drain", json={"label_selector": "env=dev"}))

    versions = {agent_id: (await get_agent(client, agent_id))["resource_version"] for agent_id in "abd"}
    assert answer == {
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
    assert list(answer["results"]) == ["b", "d", "a"]
    assert await list_agent_ids(client, draining="true") == ["b", "d", "a"]

    back = expect_success(await client.post("/agents/undrain", json={"label_selector": "env", "namespace": "m"}))
    assert (back["draining"], list(back["results"]), back["changed"]) == (False, ["b", "c", "d"], 2)
    assert await list_agent_ids(client, draining="true") == ["a"]
    assert expect_success(await client.post("/agents/undrain", json={"namespace": "n"}))["changed"] == 1
    assert await list_agent_ids(client, draining="true") == []


async def test_more_than_one_call_can_carry_drain(client: httpx2.AsyncClient) -> None:
    """All of them, whatever goes into one call to the store."""
    for start in (0, 200, 400):
        agents = [a_registration(f"a{at}", namespace="n") for at in range(start, start + 150)]
        expect_success(await client.post("/agents/batch", json={"agents": agents}))

    answer = expect_success(await client.post("/agents/drain", json={"namespace": "n"}))

    assert (answer["count"], answer["changed"]) == (450, 450)
    assert len(await list_agent_ids(client, draining="true")) == 450


async def test_a_selector_that_finds_nobody_is_no_error(client: httpx2.AsyncClient) -> None:
    """Nothing was to be done."""
    answer = expect_success(await client.post("/agents/drain", json={"label_selector": "env=nowhere"}))

    assert (answer["results"], answer["count"], answer["changed"]) == ({}, 0, 0)


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
    """A selection that is missing, misspelt or unreadable is refused, and nobody drains."""
    await register(client)

    answer = await client.post("/agents/drain", json=body)

    code = "validation_failed" if status == 422 else "malformed_request"
    assert error_fields(expect_error(answer, status, code)) == [field]
    assert await list_agent_ids(client, draining="true") == []


async def test_what_would_not_be_honoured_is_refused(client: httpx2.AsyncClient) -> None:
    """A precondition, a parameter, a word in the body."""
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
    """The paths of many leave those of agents with such names alone."""
    for agent_id in ("drain", "undrain"):
        await register(client, agent_id)
        await drain(client, agent_id)
        assert (await get_agent(client, agent_id))["draining"] is True
        assert (await client.get(f"/agents/{agent_id}/status")).json()["agent_id"] == agent_id
        await undrain(client, agent_id)
        assert expect_success(await client.delete(f"/agents/{agent_id}"))["agent_id"] == agent_id


async def test_registering_anew_ends_no_drain_and_unregistering_does(client: httpx2.AsyncClient) -> None:
    """With the same words or others, recovered or not; only who is removed and comes anew begins anew."""
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


async def test_draining_is_no_conflict_for_a_conditional_registration(client: httpx2.AsyncClient) -> None:
    """What the agent says of itself has not changed: the version known before still counts, and the new one, too."""
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


async def test_a_drain_moves_the_version_and_no_time(client: httpx2.AsyncClient) -> None:
    """`updated_at` is the agent's own doing."""
    await register(client)
    before = await get_agent(client)

    version = (await drain(client))["resource_version"]

    assert await get_agent(client) == before | {"draining": True, "resource_version": version}


async def test_every_replica_knows_and_so_does_one_that_comes_later(redis_url: str) -> None:
    """What one has acknowledged, the next read on another shows, and a restart forgets nothing."""
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


async def test_a_watch_of_those_in_service_sees_them_leave_and_come_back(redis_url: str) -> None:
    """DELETED when one begins to drain, ADDED when it ends; what it says of itself meanwhile is nothing to it."""
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
            assert [each.object["draining"] for each in seen] == [True, False]
            assert [each.kind for each in await others.next_events(3)] == ["ADDED", "MODIFIED", "DELETED"]
            assert [(each.kind, each.object["draining"]) for each in await everything.next_events(3)] == [
                ("MODIFIED", True),
                ("MODIFIED", True),
                ("MODIFIED", False),
            ]


async def test_those_that_drain_are_counted(pair: httpx2.AsyncClient) -> None:
    """Beside the statuses, of which they keep theirs; in both forms."""
    numbers = (await pair.get("/metrics")).json()
    text = (await pair.get("/metrics/prometheus")).text

    assert (numbers["draining_agents"], numbers["healthy_agents"], numbers["total_agents"]) == (1, 2, 2)
    assert "\nmcp_registry_agents_draining 1.0\n" in text
    await undrain(pair)
    assert (await pair.get("/metrics")).json()["draining_agents"] == 0
