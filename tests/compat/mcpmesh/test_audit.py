"""What was decided about dependencies, as `meshctl audit` reads it: told when there was something to decide."""

from typing import Any

import httpx2
import redis

from tests.support.http_calls import a_registration, expect_error

NEED = {"capability": "date", "tags": ["utc"], "version": ">=1.0.0"}


async def flat(client: httpx2.AsyncClient, agent_id: str, *tools: dict[str, Any], **fields: Any) -> None:
    """Register an agent in flat form."""
    body = {"agent_id": agent_id, "name": agent_id, "http_host": "h", "http_port": 1, "tools": tools} | fields
    answer = await client.post("/heartbeat", json=body)
    assert answer.json()["status"] == "success", answer.text


async def provide(client: httpx2.AsyncClient, agent_id: str, version: str = "1.0.0", *tags: str, **fields: Any) -> None:
    """Register a provider of dates."""
    tool = {"function_name": "get", "capability": "date", "version": version, "tags": tags or ("utc",)}
    await flat(client, agent_id, tool | fields)


async def need(client: httpx2.AsyncClient, *needs: dict[str, Any]) -> None:
    """Register the consumer, or let it ask anew."""
    await flat(client, "me", {"function_name": "greet", "capability": "greeting", "dependencies": needs or (NEED,)})


async def events(client: httpx2.AsyncClient, **query: str) -> list[dict[str, Any]]:
    """Return the consumer's events, newest first."""
    found = (await client.get("/events", params={"agent_id": "me"} | query)).json()
    assert found["count"] == len(found["events"])
    return list(found["events"])


def told(found: list[dict[str, Any]]) -> list[tuple[str | None, str | None]]:
    """Return who was chosen in each, and who before, oldest first."""
    return [
        (each["data"].get("chosen", {}).get("agent_id"), each["data"].get("prior_chosen")) for each in reversed(found)
    ]


async def test_a_single_choice_is_no_event(client: httpx2.AsyncClient) -> None:
    """Neither that nobody has it, nor that the only one who has it is taken."""
    await need(client)
    assert await events(client) == []

    await provide(client, "date-1")
    await need(client)

    assert await events(client) == []


async def test_a_choice_is_told_stage_by_stage(client: httpx2.AsyncClient) -> None:
    """Who was left after each, who fell out and why; what was chosen, and what was asked for."""
    await provide(client, "date-1")
    await provide(client, "date-2", "1.2.0")
    await provide(client, "date-3", "1.9.0", "gmt")
    await provide(client, "date-4", "0.9.0")
    await need(client)

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


async def test_a_change_of_provider_is_an_event_and_nothing_is_one_twice(client: httpx2.AsyncClient) -> None:
    """A better one comes, all go, one comes back: each with whom there was before."""
    await provide(client, "date-1")
    await need(client)
    await provide(client, "date-2", "2.0.0")
    for _ in range(2):
        await need(client)
    assert told(await events(client)) == [("date-2", None)]

    await client.delete("/agents/date-2")
    await need(client)
    await client.delete("/agents/date-1")
    await need(client)
    await need(client)
    await provide(client, "date-1")
    await need(client)

    changes = [("date-2", None), ("date-1", "date-2"), (None, "date-1"), ("date-1", "date-1")]
    assert told(await events(client)) == changes
    assert told(await events(client)) == changes


async def test_why_nobody_is_left_is_an_event_although_the_answer_stays_the_same(client: httpx2.AsyncClient) -> None:
    """The consumer was told that nobody has it; then came one who will not do.

    Nothing new is to be told to the consumer, so no registration of it ever wrote this down: an audit saw nothing.
    """
    await need(client)
    await provide(client, "date-1", "1.0.0", "gmt")

    (event,) = await events(client)

    assert event["event_type"] == "dependency_unresolved"
    assert [stage["kept"] for stage in event["data"]["stages"]] == [["date-1:get"], ["date-1:get"], []]
    (again,) = await events(client)
    assert again == event


async def test_every_way_to_fall_out_has_its_reason(client: httpx2.AsyncClient, raw: redis.Redis) -> None:
    """In the words of mesh clients, with what they need to see it."""
    schema = {"type": "object", "required": ["day"], "properties": {"day": {"type": "string"}}}
    lacking: dict[str, Any] = {"dependencies": [{"capability": "nothing", "required": True}]}
    other: dict[str, Any] = {"outputSchemaHash": "sha256:o", "outputSchemaCanonical": {"type": "object"}}
    await provide(client, "a-drains")
    await client.post("/agents/a-drains/drain")
    await provide(client, "b-lacks", **lacking)
    await provide(client, "c-excluded", "1.0.0", "utc", "slow")
    await provide(client, "d-untagged", "1.0.0", "gmt")
    await provide(client, "e-schema", **other)
    await flat(client, "f-elsewhere", {"function_name": "get", "capability": "date"}, namespace="other")
    await client.post("/agents", json=a_registration("g-pending", capabilities=["date"]))
    wanted = {"matchMode": "subset", "expectedSchemaHash": "sha256:w", "expectedSchemaCanonical": schema}
    await need(client, {"capability": "date", "tags": [["utc", "cet"], "-slow"], **wanted})

    (event,) = await events(client)

    assert event["data"]["spec"]["schema_mode"] == "subset"
    assert event["data"]["spec"]["tags"] == ["utc|cet", "-slow"]
    assert raw.llen("{mesh}:resolutions:me") == 1
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


async def test_events_are_told_by_function_and_position(client: httpx2.AsyncClient) -> None:
    """Of those that came together the later one comes first; one function's alone where that is named."""
    await provide(client, "date-1")
    await provide(client, "date-2")
    needs = [{"capability": "nobody"}, {"capability": "date"}]
    functions = ("f", "g")
    await flat(
        client, "me", *({"function_name": name, "capability": name, "dependencies": needs} for name in functions)
    )

    found = await events(client)

    assert [(each["function_name"], each["data"]["dep_index"]) for each in found] == [("g", 1), ("f", 1)]
    assert await events(client, function_name="g") == found[:1]
    assert await events(client, limit="1") == found[:1]
    assert await events(client, function_name="h") == []


async def test_of_very_many_candidates_some_are_told_and_how_many_there_are(client: httpx2.AsyncClient) -> None:
    """An event stays small, whatever the mesh is."""
    for number in range(20):
        await provide(client, f"date-{number}")
    await need(client)

    (event,) = await events(client)

    assert event["data"]["considered"] == 20
    assert len(event["data"]["stages"][0]["kept"]) == 8


async def test_what_explains_itself_is_as_it_was(client: httpx2.AsyncClient) -> None:
    """What events alone need is not shown with the history of resolutions."""
    await provide(client, "date-1", "1.0.0", "gmt")
    await need(client)

    (past,) = (await client.get("/agents/me/dependencies?explain=true")).json()["recent_resolutions"]

    assert past.keys() == {"timestamp", "resource_version", "dependencies_version", "explanation"}


async def test_of_an_agent_that_nobody_knows_there_are_none(client: httpx2.AsyncClient) -> None:
    """But whose they are must be said."""
    assert (await client.get("/events?agent_id=nobody&limit=40")).json() == {"count": 0, "events": []}
    expect_error(await client.get("/events"), 400, "malformed_request")
    expect_error(await client.get("/events?agent_id=me&limit=0"), 400, "malformed_request")


async def test_an_agent_that_is_gone_keeps_its_events_for_a_while(client: httpx2.AsyncClient) -> None:
    """Why it was wired as it was may be asked afterwards."""
    await provide(client, "date-1")
    await provide(client, "date-2")
    await need(client)
    before = await events(client)

    await client.delete("/agents/me")

    assert await events(client) == before
