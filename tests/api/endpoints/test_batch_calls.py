"""Calls with many items, each of which succeeds or fails separately."""

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


async def test_each_heartbeat_of_a_call_has_its_own_result(client: httpx2.AsyncClient) -> None:
    """Known agents are extended, unknown ones reported, by id."""
    for agent_id in "ab":
        await register(client, agent_id)

    response = expect_success(await client.post("/heartbeats", json={"agent_ids": ["a", "nobody", "b"]}))

    assert response.keys() == {"status", "results", "count", "timestamp"}
    assert response["count"] == 3
    results = response["results"]
    assert list(results) == ["a", "nobody", "b"]
    for agent_id in "ab":
        assert results[agent_id].keys() == {"status", "timestamp"}
        assert results[agent_id]["status"] == "success"
        assert (await get_agent(client, agent_id))["last_heartbeat"] == results[agent_id]["timestamp"]
        assert (await get_agent(client, agent_id))["status"] == "healthy"
    assert (results["nobody"]["status"], results["nobody"]["error"]) == ("error", "unknown_agent")


@pytest.mark.parametrize("strange", ["", "no such", "ü", "x" * 300, "../a", "a\n"])
async def test_an_invalid_id_fails_alone(client: httpx2.AsyncClient, strange: str) -> None:
    """It is an unknown agent; the heartbeats of the others are accepted."""
    await register(client)

    results = expect_success(await client.post("/heartbeats", json={"agent_ids": [strange, "a"]}))["results"]

    assert results[strange]["error"] == "unknown_agent"
    assert results["a"]["status"] == "success"


async def test_an_id_that_occurs_twice_has_one_result(client: httpx2.AsyncClient) -> None:
    """The call is valid, since results are stored by id."""
    await register(client)

    response = expect_success(await client.post("/heartbeats", json={"agent_ids": ["a", "a", "a"]}))

    assert list(response["results"]) == ["a"]
    assert response["count"] == 1


async def test_an_empty_list_is_valid(client: httpx2.AsyncClient) -> None:
    """The response is empty, too."""
    assert expect_success(await client.post("/heartbeats", json={"agent_ids": []}))["results"] == {}
    assert expect_success(await client.post("/agents/batch", json={"agents": []}))["results"] == []


async def test_a_call_has_at_most_a_thousand_heartbeats(client: httpx2.AsyncClient) -> None:
    """1,000 are accepted, 1,001 are rejected with the limit in the message."""
    for at in range(0, 1000, 200):
        agents = [a_registration(f"a{n}") for n in range(at, at + 200)]
        expect_success(await client.post("/agents/batch", json={"agents": agents}))
    ids = [f"a{n}" for n in range(1000)]

    response = expect_success(await client.post("/heartbeats", json={"agent_ids": ids}))
    refused = expect_error(
        await client.post("/heartbeats", json={"agent_ids": [*ids, "one more"]}), 422, "validation_failed"
    )

    assert response["count"] == 1000
    assert {result["status"] for result in response["results"].values()} == {"success"}
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
async def test_an_invalid_list_of_ids_is_422(
    client: httpx2.AsyncClient, body: dict[str, Any], fields: list[str]
) -> None:
    """Each invalid entry is named, and no heartbeat is accepted."""
    await register(client)

    assert error_fields(expect_error(await client.post("/heartbeats", json=body), 422, "validation_failed")) == fields
    assert (await get_agent(client))["status"] == "pending"


async def test_each_registration_of_a_call_has_its_own_result(client: httpx2.AsyncClient) -> None:
    """In the order sent, each with the response of a single call; paths contain the index in the list."""
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

    response = expect_success(await client.post("/agents/batch", json={"agents": agents}))

    results = response["results"]
    assert response["count"] == 7
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


async def test_a_call_has_at_most_200_registrations(client: httpx2.AsyncClient) -> None:
    """200 are accepted; 201 are rejected with the limit in the message, and none is registered."""
    agents = [a_registration(f"a{n:03}") for n in range(201)]

    refused = expect_error(await client.post("/agents/batch", json={"agents": agents}), 422, "validation_failed")
    assert error_fields(refused) == ["agents"]
    assert await list_agent_ids(client) == []
    response = expect_success(await client.post("/agents/batch", json={"agents": agents[:200]}))

    assert response["count"] == 200
    assert len(await list_agent_ids(client)) == 200
    versions = [int(result["resource_version"]) for result in response["results"]]
    assert len(set(versions)) == 200


async def test_the_last_registration_of_an_agent_in_a_batch_wins(client: httpx2.AsyncClient) -> None:
    """In the order sent, as with two sequential calls."""
    agents = [a_registration(step="1"), a_registration(step="2")]

    expect_success(await client.post("/agents/batch", json={"agents": agents}))

    assert (await get_agent(client))["step"] == "2"


@pytest.mark.parametrize("body", [{}, {"agents": None}, {"agents": {"id": "a"}}, {"agent_ids": []}])
async def test_a_batch_without_a_list_is_422(client: httpx2.AsyncClient, body: dict[str, Any]) -> None:
    """The error names the field that must be a list."""
    assert error_fields(expect_error(await client.post("/agents/batch", json=body), 422, "validation_failed")) == [
        "agents"
    ]


async def test_an_agent_may_be_called_batch(client: httpx2.AsyncClient) -> None:
    """The path of the batch call does not hide the agent."""
    await register(client, "batch")
    await send_heartbeat(client, "batch")

    assert (await get_agent(client, "batch"))["status"] == "healthy"
    expect_success(await client.delete("/agents/batch"))


async def test_all_heartbeats_of_a_call_have_the_same_time(client: httpx2.AsyncClient) -> None:
    """All heartbeats of the call have the same time, in RFC 3339 UTC with milliseconds."""
    await register(client)

    response = expect_success(await client.post("/heartbeats", json={"agent_ids": ["a"]}))

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", response["results"]["a"]["timestamp"])
