"""The events of dependency resolution for `meshctl audit`; a choice without an alternative is no event."""

from typing import Any

import httpx2
import redis

from tests.support.http_calls import a_registration

DEPENDENCY = {"capability": "date", "tags": ["utc"], "version": ">=1.0.0"}


async def register_agent(client: httpx2.AsyncClient, agent_id: str, *tools: dict[str, Any], **fields: Any) -> None:
    """Register an agent in the mcp-mesh format."""
    body = {"agent_id": agent_id, "name": agent_id, "http_host": "h", "http_port": 1, "tools": tools} | fields
    response = await client.post("/heartbeat", json=body)
    assert response.json()["status"] == "success", response.text


async def register_provider(
    client: httpx2.AsyncClient, agent_id: str, version: str = "1.0.0", *tags: str, **fields: Any
) -> None:
    """Register a provider of dates."""
    tool = {"function_name": "get", "capability": "date", "version": version, "tags": tags or ("utc",)}
    await register_agent(client, agent_id, tool | fields)


async def register_consumer(client: httpx2.AsyncClient, *dependencies: dict[str, Any]) -> None:
    """Register the consumer, or send its registration again."""
    await register_agent(
        client,
        "me",
        {"function_name": "greet", "capability": "greeting", "dependencies": dependencies or (DEPENDENCY,)},
    )


async def events(client: httpx2.AsyncClient, **query: str) -> list[dict[str, Any]]:
    """Return the events of the consumer, newest first."""
    types = {"type": "dependency_resolved,dependency_unresolved"}
    found = (await client.get("/events", params={"agent_id": "me"} | types | query)).json()
    assert found["count"] == len(found["events"])
    return list(found["events"])


def choices(found: list[dict[str, Any]]) -> list[tuple[str | None, str | None]]:
    """Return the chosen and the previous provider of each event, oldest first."""
    return [
        (each["data"].get("chosen", {}).get("agent_id"), each["data"].get("prior_chosen")) for each in reversed(found)
    ]


async def test_a_choice_without_an_alternative_is_no_event(client: httpx2.AsyncClient) -> None:
    """Neither a missing provider nor a single one is an event."""
    await register_consumer(client)
    assert await events(client) == []

    await register_provider(client, "date-1")
    await register_consumer(client)

    assert await events(client) == []


async def test_a_choice_is_reported_stage_by_stage(client: httpx2.AsyncClient) -> None:
    """Each stage lists remaining and rejected candidates; the event has the dependency and the chosen provider."""
    await register_provider(client, "date-1")
    await register_provider(client, "date-2", "1.2.0")
    await register_provider(client, "date-3", "1.9.0", "gmt")
    await register_provider(client, "date-4", "0.9.0")
    await register_consumer(client)

    (event,) = await events(client)

    ids = [f"date-{number}:get" for number in (1, 2, 3, 4)]
    missing = {"id": "date-3:get", "reason": "MissingTag", "details": {"missing": ["utc"]}}
    details = {"constraint": ">=1.0.0", "version": "0.9.0"}
    old = {"id": "date-4:get", "reason": "VersionConstraintFailed", "details": details}
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "agent_id": "me",
        "agent_name": "me",
        "event_type": "dependency_resolved",
        "function_name": "greet",
        "data": {
            "consumer": "me",
            "dep_index": 0,
            "spec": {"capability": "date", "schema_mode": "none", "tags": ["utc"], "version_constraint": ">=1.0.0"},
            "stages": [
                {"stage": "health", "kept": ids},
                {"stage": "capability_match", "kept": ids},
                {"stage": "tags", "kept": [ids[0], ids[1], ids[3]], "evicted": [missing]},
                {"stage": "version", "kept": ids[:2], "evicted": [old]},
                {"stage": "schema", "kept": ids[:2]},
                {
                    "stage": "tiebreaker",
                    "kept": [ids[1], ids[0]],
                    "chosen": ids[1],
                    "reason": "HighestScoreThenVersion",
                },
            ],
            "chosen": {"agent_id": "date-2", "endpoint": "http://h:1", "function_name": "get"},
        },
    }


async def test_each_change_of_provider_is_one_event(client: httpx2.AsyncClient) -> None:
    """It contains the previous provider; a repeated registration is no event."""
    await register_provider(client, "date-1")
    await register_consumer(client)
    await register_provider(client, "date-2", "2.0.0")
    for _ in range(2):
        await register_consumer(client)
    assert choices(await events(client)) == [("date-2", None)]

    await client.delete("/agents/date-2")
    await register_consumer(client)
    await client.delete("/agents/date-1")
    await register_consumer(client)
    await register_consumer(client)
    await register_provider(client, "date-1")
    await register_consumer(client)

    changes = [("date-2", None), ("date-1", "date-2"), (None, "date-1"), ("date-1", "date-1")]
    assert choices(await events(client)) == changes
    assert choices(await events(client)) == changes


async def test_a_rejected_candidate_is_an_event_although_the_resolution_stays_the_same(
    client: httpx2.AsyncClient,
) -> None:
    """The consumer has no provider before and after the candidate registers.

    The response to the consumer does not change, so none of its heartbeats recorded the reason.
    """
    await register_consumer(client)
    await register_provider(client, "date-1", "1.0.0", "gmt")

    (event,) = await events(client)

    assert event["event_type"] == "dependency_unresolved"
    assert [stage["kept"] for stage in event["data"]["stages"]] == [["date-1:get"], ["date-1:get"], []]
    (again,) = await events(client)
    assert again == event


async def test_every_rejection_has_its_reason(client: httpx2.AsyncClient, redis_client: redis.Redis) -> None:
    """The reasons and details have the names that mcp-mesh clients read."""
    schema = {"type": "object", "required": ["day"], "properties": {"day": {"type": "string"}}}
    lacking: dict[str, Any] = {"dependencies": [{"capability": "nothing", "required": True}]}
    other: dict[str, Any] = {"outputSchemaHash": "sha256:o", "outputSchemaCanonical": {"type": "object"}}
    await register_provider(client, "a-drains")
    await client.post("/agents/a-drains/drain")
    await register_provider(client, "b-lacks", **lacking)
    await register_provider(client, "c-excluded", "1.0.0", "utc", "slow")
    await register_provider(client, "d-untagged", "1.0.0", "gmt")
    await register_provider(client, "e-schema", **other)
    await register_agent(client, "f-elsewhere", {"function_name": "get", "capability": "date"}, namespace="other")
    await client.post("/agents", json=a_registration("g-pending", capabilities=["date"]))
    schema_fields = {"matchMode": "subset", "expectedSchemaHash": "sha256:w", "expectedSchemaCanonical": schema}
    await register_consumer(client, {"capability": "date", "tags": [["utc", "cet"], "-slow"], **schema_fields})

    (event,) = await events(client)

    assert event["data"]["spec"]["schema_mode"] == "subset"
    assert event["data"]["spec"]["tags"] == ["utc|cet", "-slow"]
    assert redis_client.llen("{mesh}:resolutions:me") == 1
    assert {
        each["id"]: (stage["stage"], each["reason"], each["details"])
        for stage in event["data"]["stages"]
        for each in stage.get("evicted", ())
    } == {
        "a-drains:get": ("health", "Unavailable", {"reason": "is draining"}),
        "b-lacks:get": ("health", "Unavailable", {"reason": "required dependency nothing is unresolved"}),
        "c-excluded:get": ("tags", "ExtraTagDisallowed", {"disallowed": ["slow"]}),
        "d-untagged:get": ("tags", "MissingTag", {"missing_one_of": ["utc", "cet"]}),
        "e-schema:get": (
            "schema",
            "SchemaIncompatible",
            {
                "consumer_hash": "sha256:w",
                "mode": "subset",
                "producer_hash": "sha256:o",
                "reason": "output has no field day",
            },
        ),
        "f-elsewhere:get": (
            "capability_match",
            "OtherNamespace",
            {"reason": "is in namespace other, not default"},
        ),
        "g-pending:date": ("health", "Unhealthy", {"status": "pending"}),
    }


async def test_events_are_listed_by_function_and_position(client: httpx2.AsyncClient) -> None:
    """The later position comes first; the list can be limited to one function."""
    await register_provider(client, "date-1")
    await register_provider(client, "date-2")
    dependencies = [{"capability": "nobody"}, {"capability": "date"}]
    functions = ("f", "g")
    await register_agent(
        client, "me", *({"function_name": name, "capability": name, "dependencies": dependencies} for name in functions)
    )

    found = await events(client)

    assert [(each["function_name"], each["data"]["dep_index"]) for each in found] == [("g", 1), ("f", 1)]
    assert await events(client, function_name="g") == found[:1]
    assert await events(client, limit="1") == found[:1]
    assert await events(client, function_name="h") == []


async def test_an_event_lists_some_of_very_many_candidates_and_their_number(client: httpx2.AsyncClient) -> None:
    """The size of an event does not depend on the size of the mesh."""
    for number in range(20):
        await register_provider(client, f"date-{number}")
    await register_consumer(client)

    (event,) = await events(client)

    assert event["data"]["considered"] == 20
    assert len(event["data"]["stages"][0]["kept"]) == 8


async def test_the_explanation_has_no_fields_of_events(client: httpx2.AsyncClient) -> None:
    """The fields that only events use are not part of the recent resolutions."""
    await register_provider(client, "date-1", "1.0.0", "gmt")
    await register_consumer(client)

    (past,) = (await client.get("/agents/me/dependencies?explain=true")).json()["recent_resolutions"]

    assert past.keys() == {"timestamp", "resource_version", "dependencies_version", "explanation"}


async def test_an_unknown_agent_has_no_events(client: httpx2.AsyncClient) -> None:
    """It is not an error."""
    assert (await client.get("/events?agent_id=nobody&limit=40")).json() == {"count": 0, "events": []}


async def test_the_events_of_a_deregistered_agent_stay_for_a_while(client: httpx2.AsyncClient) -> None:
    """They explain its resolutions afterwards."""
    await register_provider(client, "date-1")
    await register_provider(client, "date-2")
    await register_consumer(client)
    before = await events(client)

    await client.delete("/agents/me")

    assert await events(client) == before
