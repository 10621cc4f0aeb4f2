"""Many in one call: each succeeds or fails alone."""

import re
from typing import Any

import httpx2
import pytest

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


async def test_many_heartbeats_each_by_itself(client: httpx2.AsyncClient) -> None:
    """Known ones are taken, unknown ones told so, by id."""
    for agent_id in "ab":
        await register(client, agent_id)

    answer = expect_success(await client.post("/heartbeats", json={"agent_ids": ["a", "nobody", "b"]}))

    assert answer.keys() == {"status", "results", "count", "timestamp"}
    assert answer["count"] == 3
    results = answer["results"]
    assert list(results) == ["a", "nobody", "b"]
    for agent_id in "ab":
        assert results[agent_id].keys() == {"status", "timestamp"}
        assert results[agent_id]["status"] == "success"
        assert (await get_agent(client, agent_id))["last_heartbeat"] == results[agent_id]["timestamp"]
        assert (await get_agent(client, agent_id))["status"] == "healthy"
    assert (results["nobody"]["status"], results["nobody"]["error"]) == ("error", "unknown_agent")


@pytest.mark.parametrize("strange", ["", "no such", "ü", "x" * 300, "../a", "a\n"])
async def test_an_id_no_agent_can_have_fails_alone(client: httpx2.AsyncClient, strange: str) -> None:
    """It is an unknown agent; the others beat."""
    await register(client)

    results = expect_success(await client.post("/heartbeats", json={"agent_ids": [strange, "a"]}))["results"]

    assert results[strange]["error"] == "unknown_agent"
    assert results["a"]["status"] == "success"


async def test_one_id_twice_beats_once_or_twice_and_is_told_once(client: httpx2.AsyncClient) -> None:
    """Legal, since the result stands under the id."""
    await register(client)

    answer = expect_success(await client.post("/heartbeats", json={"agent_ids": ["a", "a", "a"]}))

    assert list(answer["results"]) == ["a"]
    assert answer["count"] == 1


async def test_nobody_is_a_legal_many(client: httpx2.AsyncClient) -> None:
    """An empty list is answered with an empty answer."""
    assert expect_success(await client.post("/heartbeats", json={"agent_ids": []}))["results"] == {}
    assert expect_success(await client.post("/agents/batch", json={"agents": []}))["results"] == []


async def test_a_thousand_heartbeats_go_into_one_call_and_no_more(client: httpx2.AsyncClient) -> None:
    """1,000 are taken, 1,001 refused with the limit."""
    for at in range(0, 1000, 200):
        agents = [a_registration(f"a{n}") for n in range(at, at + 200)]
        expect_success(await client.post("/agents/batch", json={"agents": agents}))
    ids = [f"a{n}" for n in range(1000)]

    answer = expect_success(await client.post("/heartbeats", json={"agent_ids": ids}))
    refused = expect_error(
        await client.post("/heartbeats", json={"agent_ids": [*ids, "one more"]}), 422, "validation_failed"
    )

    assert answer["count"] == 1000
    assert {result["status"] for result in answer["results"].values()} == {"success"}
    assert len(await list_agent_ids(client, status="healthy")) == 1000
    assert error_fields(refused) == ["agent_ids"]
    assert "1001" in refused["message"]
    assert "1000" in refused["message"]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["agent_ids"]),
        ({"agent_ids": None}, ["agent_ids"]),
        ({"agent_ids": "a"}, ["agent_ids"]),
        ({"agent_ids": {"a": 1}}, ["agent_ids"]),
        ({"agent_ids": ["a", 1, None, ["b"]]}, ["agent_ids[1]", "agent_ids[2]", "agent_ids[3]"]),
    ],
)
async def test_a_wrong_list_of_ids_is_422(client: httpx2.AsyncClient, body: dict[str, Any], fields: list[str]) -> None:
    """Each entry that is no id is named; no heartbeat is taken then."""
    await register(client)

    assert error_fields(expect_error(await client.post("/heartbeats", json=body), 422, "validation_failed")) == fields
    assert (await get_agent(client))["status"] == "pending"


async def test_many_registrations_each_by_itself(client: httpx2.AsyncClient) -> None:
    """In the order sent: what a call of its own would have answered; paths name the place in the list."""
    version = await register(client, "old")
    agents = [
        a_registration("a", name="First"),
        {"id": "no endpoint"},
        a_registration("old", resource_version="1"),
        "nonsense",
        a_registration("b", capabilities=["x", {"name": "y", "version": "one"}]),
        a_registration("c", security_context="high_security"),
        a_registration("old", resource_version=version, step="2"),
    ]

    answer = expect_success(await client.post("/agents/batch", json={"agents": agents}))

    results = answer["results"]
    assert answer["count"] == 7
    assert [result["status"] for result in results] == [
        "success",
        "error",
        "error",
        "error",
        "error",
        "error",
        "success",
    ]
    assert results[0]["message"] == "Agent First registered successfully"
    assert results[0]["agent_id"] == "a"
    assert set(error_fields(results[1])) == {"agents[1].id", "agents[1].endpoint"}
    assert (results[2]["error"], results[2]["resource_version"]) == ("stale_version", version)
    assert error_fields(results[3])[0] == "agents[3]"
    assert error_fields(results[4]) == ["agents[4].capabilities[1].version"]
    assert error_fields(results[5]) == ["agents[5].capabilities"]
    assert int(results[6]["resource_version"]) > int(version)
    assert await list_agent_ids(client) == ["a", "old"]


async def test_200_registrations_go_into_one_call_and_no_more(client: httpx2.AsyncClient) -> None:
    """200 are taken, 201 refused with the limit, and then none is registered."""
    agents = [a_registration(f"a{n:03}") for n in range(201)]

    refused = expect_error(await client.post("/agents/batch", json={"agents": agents}), 422, "validation_failed")
    assert error_fields(refused) == ["agents"]
    assert await list_agent_ids(client) == []
    answer = expect_success(await client.post("/agents/batch", json={"agents": agents[:200]}))

    assert answer["count"] == 200
    assert len(await list_agent_ids(client)) == 200
    versions = [int(result["resource_version"]) for result in answer["results"]]
    assert len(set(versions)) == 200


async def test_one_agent_twice_in_a_batch_ends_as_the_last(client: httpx2.AsyncClient) -> None:
    """In the order sent, like two calls one after the other."""
    agents = [a_registration(step="1"), a_registration(step="2")]

    expect_success(await client.post("/agents/batch", json={"agents": agents}))

    assert (await get_agent(client))["step"] == "2"


@pytest.mark.parametrize("body", [{}, {"agents": None}, {"agents": {"id": "a"}}, {"agent_ids": []}])
async def test_a_batch_without_a_list_is_422(client: httpx2.AsyncClient, body: dict[str, Any]) -> None:
    """The field that must be a list is named."""
    assert error_fields(expect_error(await client.post("/agents/batch", json=body), 422, "validation_failed")) == [
        "agents"
    ]


async def test_an_agent_may_be_called_batch(client: httpx2.AsyncClient) -> None:
    """The path of the batch call does not hide it."""
    await register(client, "batch")
    await send_heartbeat(client, "batch")

    assert (await get_agent(client, "batch"))["status"] == "healthy"
    expect_success(await client.delete("/agents/batch"))


async def test_a_batch_of_heartbeats_moves_one_clock(client: httpx2.AsyncClient) -> None:
    """Times are RFC 3339 UTC, with milliseconds."""
    await register(client)

    answer = expect_success(await client.post("/heartbeats", json={"agent_ids": ["a"]}))

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", answer["results"]["a"]["timestamp"])
