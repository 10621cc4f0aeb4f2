"""Dependencies over HTTP: in responses to registrations and heartbeats, explained, as a graph; and `/select`."""

import asyncio
from functools import partial
from typing import Any

import httpx2
import pytest
import redis

from tests.support.faulty_tcp_proxy import FaultyTcpProxy
from tests.support.http_calls import (
    error_fields,
    expect_error,
    expect_success,
    get_agent,
    list_agent_ids,
    register,
    send_heartbeat,
)
from tests.support.in_process_registry import in_process_registry
from tests.support.polling import async_wait_until
from tests.support.server_time import server_time_ms

DATE = {"function_name": "get_current_date", "capability": "date_service", "version": "1.2.0", "tags": ["production"]}
GREET = {
    "function_name": "greet",
    "capability": "greeting",
    "dependencies": [{"capability": "date_service", "version": ">=1.0.0", "tags": ["production"]}],
}
GOODBYE = {"function_name": "farewell", "capability": "goodbye"}
DATE_SERVICE = {"agent_id": "date-1", "endpoint": "http://date:8080", "tool_name": "get_current_date"}


def tools_registration(
    agent_id: str, *tools: dict[str, Any], endpoint: str = "http://a:1", **fields: Any
) -> dict[str, Any]:
    """Return a registration in the tools format."""
    return {"agent_id": agent_id, "metadata": {"endpoint": endpoint, "tools": list(tools)}, **fields}


async def register_tools(
    client: httpx2.AsyncClient, agent_id: str, *tools: dict[str, Any], **fields: Any
) -> dict[str, Any]:
    """Register in the tools format; return the response."""
    return expect_success(await client.post("/agents", json=tools_registration(agent_id, *tools, **fields)))


async def register_date_service(client: httpx2.AsyncClient, agent_id: str = "date-1", **fields: Any) -> dict[str, Any]:
    """Register a provider of dates."""
    return await register_tools(client, agent_id, DATE, endpoint="http://date:8080", **fields)


async def heartbeat(client: httpx2.AsyncClient, agent_id: str = "me", **fields: Any) -> dict[str, Any]:
    """Send a heartbeat; return the response."""
    return expect_success(await client.post("/heartbeat", json={"agent_id": agent_id, **fields}))


@pytest.mark.parametrize("path", ["/agents", "/api/v1/agents", "/mcp/tools/register_agent", "/agents/batch"])
async def test_a_registration_returns_the_dependencies_of_all_functions(client: httpx2.AsyncClient, path: str) -> None:
    """It includes this registration and all earlier ones, on every path that accepts a registration."""
    await register_date_service(client)
    sent: Any = tools_registration("me", GREET, GOODBYE)
    body = {"/mcp/tools/register_agent": {"registration_data": sent}, "/agents/batch": {"agents": [sent]}}.get(path)

    response = expect_success(await client.post(path, json=body or sent))
    (response,) = response.get("results", [response])

    assert response["message"] == "Agent me registered successfully"
    assert response["dependencies_resolved"] == {"greet": {"date_service": DATE_SERVICE}, "farewell": {}}
    assert response["dependencies_unresolved"] == {}
    assert response["dependencies_version"] == (await heartbeat(client))["dependencies_version"]


async def test_a_registration_in_tools_format_is_a_heartbeat(client: httpx2.AsyncClient) -> None:
    """So it can be a provider at once."""
    await register_tools(client, "me", GOODBYE)

    agent = await get_agent(client, "me")

    assert agent["status"] == "healthy"
    assert agent["last_heartbeat"] is not None


async def test_an_agent_without_dependencies_gets_the_responses_of_the_seeds(client: httpx2.AsyncClient) -> None:
    """Responses to its registrations and heartbeats have the fields of the seeds only."""
    responses = [
        expect_success(await client.post("/agents", json={"id": "a", "endpoint": "http://a", "capabilities": ["c"]}))
    ]
    responses.append(await heartbeat(client, "a"))

    assert [set(response) for response in responses] == [
        {"status", "agent_id", "resource_version", "message"},
        {"status", "timestamp", "message"},
    ]


async def test_the_same_function_on_two_agents_does_not_collide(client: httpx2.AsyncClient) -> None:
    """A function belongs to its agent."""
    for agent_id in ("one", "two"):
        await register_tools(
            client, agent_id, {**GREET, "capability": f"greeting-{agent_id}"}, endpoint=f"http://{agent_id}"
        )

    found = [(await client.get("/select", params={"capability": f"greeting-{each}"})).json() for each in ("one", "two")]

    assert [(one["agent_id"], one["tool_name"]) for one in found] == [("one", "greet"), ("two", "greet")]


async def test_a_heartbeat_returns_all_dependencies_or_none(client: httpx2.AsyncClient) -> None:
    """Without a version the whole map; with a version the whole map if it differs, otherwise none."""
    response = await register_tools(client, "me", GREET, GOODBYE)
    version = response["dependencies_version"]

    unchanged = await heartbeat(client, dependencies_version=version)
    await register_date_service(client)
    changed = await heartbeat(client, dependencies_version=version)
    again = await heartbeat(client)

    assert set(unchanged) == {"status", "timestamp", "message"}
    assert changed["dependencies_resolved"] == {"greet": {"date_service": DATE_SERVICE}, "farewell": {}}
    assert changed["dependencies_version"] != version
    assert {**again, "timestamp": ""} == {**changed, "timestamp": ""}


async def test_a_provider_that_leaves_is_removed_and_restored(client: httpx2.AsyncClient) -> None:
    """As in the manual test list of the seed."""
    await register_date_service(client)
    await register_tools(client, "me", GREET)

    seen = []
    for step in ("there", "gone", "back"):
        if step == "gone":
            expect_success(await client.delete("/agents/date-1"))
        elif step == "back":
            await register_date_service(client)
        response = await heartbeat(client)
        seen.append((response["dependencies_resolved"]["greet"]["date_service"], response["dependencies_unresolved"]))

    no_agent = {"greet": {"date_service": "no agent has this capability"}}
    assert seen == [(DATE_SERVICE, {}), (None, no_agent), (DATE_SERVICE, {})]


async def test_a_provider_is_chosen_after_its_first_heartbeat(client: httpx2.AsyncClient) -> None:
    """In the native format an agent is pending until then; its capability has no other tool name."""
    tool = {**GREET, "dependencies": ["auth"]}
    await register_tools(client, "me", tool)
    await register(client, "auth-1", capabilities=["auth"])

    pending = await heartbeat(client)
    await send_heartbeat(client, "auth-1")
    healthy = await heartbeat(client)

    assert pending["dependencies_unresolved"]["greet"]["auth"] == "none of the 1 candidates qualifies: 1 unhealthy"
    assert healthy["dependencies_resolved"]["greet"]["auth"]["tool_name"] == "auth"


async def test_the_last_sent_version_is_stored_without_a_change(
    client: httpx2.AsyncClient, redis_client: redis.Redis
) -> None:
    """In the hash of the agent, before the response is sent; without a log entry or a new version."""
    response = await register_tools(client, "me", GREET)
    key, entries, version = "{mesh}:agent:me", redis_client.xlen("{mesh}:log"), redis_client.get("{mesh}:version")
    assert redis_client.hget(key, "response_digest") == response["dependencies_version"]

    await heartbeat(client, load=0.5)

    assert (redis_client.hget(key, "response_digest"), redis_client.hget(key, "load")) == (
        response["dependencies_version"],
        "0.5",
    )
    assert (redis_client.xlen("{mesh}:log"), redis_client.get("{mesh}:version")) == (entries, version)
    await register_date_service(client)
    assert redis_client.hget(key, "response_digest") == response["dependencies_version"]
    assert (
        (await heartbeat(client))["dependencies_version"]
        == redis_client.hget(key, "response_digest")
        != response["dependencies_version"]
    )


async def test_the_last_sent_version_is_stored_for_agents_without_dependencies(
    client: httpx2.AsyncClient, redis_client: redis.Redis
) -> None:
    """Their responses have a version too; the store had none, or that of dependencies they had before."""
    for tools in ([GOODBYE], [GREET], [GOODBYE]):
        response = await register_tools(client, "me", *tools)
        assert redis_client.hget("{mesh}:agent:me", "response_digest") == response["dependencies_version"]

    response = await heartbeat(client, metadata={"tools": [{**GOODBYE, "function_name": "leave"}]})

    assert redis_client.hget("{mesh}:agent:me", "response_digest") == response["dependencies_version"]


async def test_metadata_in_a_heartbeat_is_an_update(client: httpx2.AsyncClient) -> None:
    """The endpoint is replaced, other keys are merged, null deletes a key; consumers receive the change."""
    await register_date_service(client)
    await register_tools(client, "me", GREET)
    before = await get_agent(client, "date-1")

    await heartbeat(client, "date-1", metadata={"endpoint": "http://moved:1", "region": "eu", "rack": 7})
    await heartbeat(client, "date-1", metadata={"rack": None, "load": 3})
    after = await get_agent(client, "date-1")

    assert (after["endpoint"], after["metadata"]) == ("http://moved:1", {"region": "eu"})
    assert after["capabilities"] == before["capabilities"]
    assert (await heartbeat(client))["dependencies_resolved"]["greet"]["date_service"]["endpoint"] == "http://moved:1"


async def test_unchanged_metadata_is_a_heartbeat(client: httpx2.AsyncClient) -> None:
    """No version, no log entry."""
    await register(client, metadata={"region": "eu"}, capabilities=["c"])
    await send_heartbeat(client)
    before = await get_agent(client)

    for metadata in ({}, None, {"region": "eu"}, {"endpoint": "http://a:1"}, {"gone": None}, {"load": 1}):
        await heartbeat(client, "a", metadata=metadata)

    assert {**await get_agent(client), "last_heartbeat": ""} == {**before, "last_heartbeat": ""}


async def test_metadata_that_races_with_a_registration_is_not_lost(redis_url: str) -> None:
    """The replica read before the registration and wrote after it, and reported success without the metadata."""
    ids = [f"a{number}" for number in range(20)]
    async with (
        FaultyTcpProxy(redis_url) as proxy,
        in_process_registry(proxy.url) as slow,
        in_process_registry(redis_url) as quick,
    ):
        proxy.delay_s = 0.05
        heartbeats = asyncio.gather(
            *(slow.post("/heartbeat", json={"agent_id": each, "metadata": {"k": 1}}) for each in ids)
        )
        await async_wait_until(lambda: proxy.delayed_requests > 0, description="the replica has sent its read")
        for each in ids:
            await register_tools(quick, each, GOODBYE)
        responses = await heartbeats
        proxy.delay_s = 0.0

        taken = [each for each, response in zip(ids, responses, strict=True) if response.status_code == 200]
        assert taken
        assert [each for each in taken if (await get_agent(quick, each)).get("metadata") != {"k": 1}] == []


async def test_heartbeats_cannot_enlarge_an_agent_without_limit(client: httpx2.AsyncClient) -> None:
    """Each added a key, so an agent and its log entries grew by up to a MiB with every heartbeat."""
    await register(client, metadata={"k0": "x" * 500_000})
    await heartbeat(client, "a", metadata={"k1": "x" * 500_000})

    body = expect_error(
        await client.post("/heartbeat", json={"agent_id": "a", "metadata": {"k2": "x" * 500_000}}),
        422,
        "validation_failed",
    )

    assert error_fields(body) == ["metadata"]
    assert set((await get_agent(client))["metadata"]) == {"k0", "k1"}
    await heartbeat(client, "a", metadata={"k0": None, "k2": "x" * 500_000})
    assert set((await get_agent(client))["metadata"]) == {"k1", "k2"}


async def test_values_that_python_considers_equal_are_distinguished(client: httpx2.AsyncClient) -> None:
    """Python considers 1 and true equal, so a heartbeat that replaced one by the other had no effect."""
    await register(client, metadata={"flag": 1, "deep": [0, {"on": False}]})

    await heartbeat(client, "a", metadata={"flag": True, "deep": [False, {"on": 0}]})

    shown = (await client.get("/agents/a")).text
    assert '"metadata":{"deep":[false,{"on":0}],"flag":true}' in shown


async def test_tools_in_a_heartbeat_replace_the_earlier_ones(client: httpx2.AsyncClient) -> None:
    """The response includes their dependencies."""
    await register_date_service(client)
    await register_tools(client, "me", GOODBYE)

    response = await heartbeat(client, metadata={"tools": [GREET]})

    assert response["dependencies_resolved"] == {"greet": {"date_service": DATE_SERVICE}}
    assert [each["function_name"] for each in (await get_agent(client, "me"))["capabilities"]] == ["greet"]


async def test_concurrent_metadata_updates_are_all_applied(client: httpx2.AsyncClient) -> None:
    """Each updates the result of the one before. Of 40 heartbeats, 35 had failed with a version conflict."""
    await register_tools(client, "me", GOODBYE)

    await asyncio.gather(*(heartbeat(client, metadata={f"key{number}": number}) for number in range(40)))

    assert (await get_agent(client, "me"))["metadata"] == {f"key{number}": number for number in range(40)}


async def test_an_invalid_constraint_is_rejected_by_field(client: httpx2.AsyncClient) -> None:
    """At registration, in either format."""
    wrong = [{"capability": "x", "version": "banana"}]
    sent = [
        tools_registration("me", {**GOODBYE, "dependencies": wrong}),
        {"id": "me", "endpoint": "http://a", "dependencies": wrong},
        {"id": "me", "endpoint": "http://a", "capabilities": [{"name": "c", "dependencies": wrong}]},
    ]

    found = [expect_error(await client.post("/agents", json=each), 422, "validation_failed") for each in sent]

    assert [error_fields(each) for each in found] == [
        ["metadata.tools[0].dependencies[0].version"],
        ["dependencies[0].version"],
        ["capabilities[0].dependencies[0].version"],
    ]


async def test_each_candidate_is_shown_with_the_stage_that_rejected_it(client: httpx2.AsyncClient) -> None:
    """First the chosen one, then those that also satisfy the dependency, then the others."""
    await register_date_service(client, "date-2")
    await register_date_service(client, "date-1")
    await register_tools(client, "old", {**DATE, "version": "0.9.0"})
    await register_tools(client, "test", {**DATE, "tags": ["test"]})
    await register_tools(client, "far", DATE, namespace="far")
    await register(client, "late", capabilities=["date_service"])
    await register_tools(client, "me", GREET)

    response = (await client.get("/agents/me/dependencies", params={"explain": "true"})).json()

    (found,) = response["explanation"]["greet"]
    assert (found["chosen"], found["considered"]) == (DATE_SERVICE, 6)
    assert [(each["agent_id"], each["stage"]) for each in found["candidates"]] == [
        ("date-1", "chosen"),
        ("date-2", "not_chosen"),
        ("far", "namespace"),
        ("late", "health"),
        ("old", "version"),
        ("test", "tags"),
    ]
    assert found["candidates"][4]["reason"] == "version 0.9.0 does not satisfy >=1.0.0"


async def test_the_last_resolutions_are_stored_with_their_stages(
    client: httpx2.AsyncClient, redis_client: redis.Redis
) -> None:
    """Only those that differ, newest first, at most five, with an expiry."""
    await register_tools(client, "me", GREET)
    for number in range(7):
        await register_date_service(client, f"date-{9 - number}")
        await heartbeat(client)
        await heartbeat(client)

    resolutions = (await client.get("/agents/me/dependencies", params={"explain": "true"})).json()["recent_resolutions"]

    chosen = [entry["explanation"]["greet"][0]["chosen"]["agent_id"] for entry in resolutions]
    assert chosen == ["date-3", "date-4", "date-5", "date-6", "date-7"]
    assert resolutions[0]["dependencies_version"] == (await heartbeat(client))["dependencies_version"]
    assert all(entry["explanation"]["greet"][0]["candidates"][0]["stage"] == "chosen" for entry in resolutions)
    assert 0 < redis_client.pttl("{mesh}:resolutions:me") <= 24 * 3600 * 1000


async def test_an_explanation_shows_the_chosen_provider_among_many(client: httpx2.AsyncClient) -> None:
    """It has room for the eight best candidates, and had often omitted the one that a strategy had chosen."""
    for number in range(20):
        await register_date_service(client, f"date-{number:02}")
    keys = [{"capability": "date_service", "strategy": "sticky", "key": str(number)} for number in range(30)]
    await register_tools(
        client, "me", *({**GREET, "function_name": f"f{key['key']}", "dependencies": [key]} for key in keys)
    )

    shown = (await client.get("/agents/me/dependencies", params={"explain": "true"})).json()

    dependencies = [
        dependency
        for dependencies in shown["recent_resolutions"][0]["explanation"].values()
        for (dependency,) in [dependencies]
    ]
    assert len({dependency["chosen"]["agent_id"] for dependency in dependencies}) > 8
    for dependency in dependencies:
        first, *others = dependency["candidates"]
        assert (first["stage"], first["agent_id"]) == ("chosen", dependency["chosen"]["agent_id"])
        assert {other["stage"] for other in others} == {"not_chosen"}
        assert len(others) == 7


async def test_an_agent_with_many_dependencies_does_not_block_the_replica(
    client: httpx2.AsyncClient, redis_client: redis.Redis
) -> None:
    """A registration of 500 KB had blocked a replica for seven seconds, and each of its heartbeats had too.

    Its explanation had hundreds of megabytes: the more dependencies, the fewer candidates it shows.
    """
    for number in range(30):
        await register_date_service(client, f"date-{number:02}")
    many = [{**GREET, "function_name": f"f{n}", "dependencies": ["date_service"] * 500} for n in range(20)]

    response = await register_tools(client, "me", *many)
    shown = await client.get("/agents/me/dependencies", params={"explain": "true"})

    assert len(response["dependencies_resolved"]) == 20
    assert len(redis_client.lrange("{mesh}:resolutions:me", 0, 0)[0]) < 10_000_000
    assert len(shown.content) < 30_000_000
    assert [
        len(dependency["candidates"]) for dependency in shown.json()["recent_resolutions"][0]["explanation"]["f19"]
    ] == [1] * 500
    expect_error(
        await client.post("/agents", json=tools_registration("me", *many, {**GREET, "function_name": "one-more"})),
        422,
        "validation_failed",
    )


async def test_resolutions_by_alternating_replicas_are_stored_in_order(redis_url: str) -> None:
    """A provider left and returned: the replica that had resolved it before did not record its return."""
    async with in_process_registry(redis_url) as one, in_process_registry(redis_url) as two:
        await register_date_service(one)
        await register_tools(one, "me", GREET)
        versions = [(await heartbeat(one))["dependencies_version"]]
        expect_success(await one.delete("/agents/date-1"))
        await list_agent_ids(two)
        versions.append((await heartbeat(two))["dependencies_version"])
        await register_date_service(two)
        await list_agent_ids(one)
        versions.append((await heartbeat(one))["dependencies_version"])
        shown = (await one.get("/agents/me/dependencies", params={"explain": "true"})).json()

    assert versions[0] == versions[2] != versions[1]
    assert [each["dependencies_version"] for each in reversed(shown["recent_resolutions"])] == versions


async def test_dependents_are_the_consumers_of_a_provider(client: httpx2.AsyncClient) -> None:
    """Each row has the number of alternative providers."""
    await register_date_service(client, "date-2")
    await register_tools(client, "me", GREET)
    first = (await client.get("/agents/date-2/dependents")).json()
    await register_date_service(client, "date-1")

    second = (await client.get("/agents/date-1/dependents")).json()
    third = (await client.get("/agents/date-2/dependents")).json()

    row = {"agent_id": "me", "function": "greet", "capability": "date_service", "tool_name": "get_current_date"}
    assert first["dependents"] == [{**row, "alternatives": 0, "only_provider": True}]
    assert second["dependents"] == [{**row, "alternatives": 1, "only_provider": False}]
    assert (third["dependents"], third["count"]) == ([], 0)


async def test_every_replica_shows_the_same_choice_by_load(redis_url: str) -> None:
    """A replica that had not read loads yet showed other dependents, and another graph."""
    dependency = {"capability": "date_service", "strategy": "least_loaded"}
    async with in_process_registry(redis_url) as one, in_process_registry(redis_url) as two:
        for number in range(3):
            await register_date_service(one, f"date-{number}")
            await heartbeat(one, f"date-{number}", load=3 - number)
        response = await register_tools(one, "me", {**GREET, "dependencies": [dependency]})
        assert response["dependencies_resolved"]["greet"]["date_service"]["agent_id"] == "date-2"

        graph = (await two.get("/dependencies")).json()["dependencies"]
    async with in_process_registry(redis_url) as three:
        dependents = [(await three.get(f"/agents/date-{n}/dependents")).json()["count"] for n in range(3)]

    assert [edge["provider"]["agent_id"] for edge in graph] == ["date-2"]
    assert dependents == [0, 0, 1]


async def test_the_graph_shows_unresolved_dependencies_and_cycles(client: httpx2.AsyncClient) -> None:
    """Over all namespaces, or for the agents of one."""
    await register_tools(client, "a", {"function_name": "f", "capability": "x", "dependencies": ["y"]})
    await register_tools(client, "b", {"function_name": "f", "capability": "y", "dependencies": ["x"]})
    await register_tools(
        client, "c", {"function_name": "f", "capability": "z", "dependencies": ["none"]}, namespace="far"
    )

    full = (await client.get("/dependencies")).json()
    filtered = (await client.get("/dependencies", params={"namespace": "far"})).json()

    assert [(edge["agent_id"], edge["provider"] and edge["provider"]["agent_id"]) for edge in full["dependencies"]] == [
        ("a", "b"),
        ("b", "a"),
        ("c", None),
    ]
    assert full["cycles"] == [["a", "b"]]
    assert [(edge["agent_id"], edge["capability"]) for edge in full["unresolved"]] == [("c", "none")]
    assert (filtered["count"], filtered["cycles"]) == (1, [])


@pytest.mark.parametrize("path", ["/agents/nobody/dependencies", "/agents/nobody/dependents"])
async def test_an_unknown_agent_has_no_dependencies(client: httpx2.AsyncClient, path: str) -> None:
    """Both calls are 404."""
    expect_error(await client.get(path), 404, "unknown_agent")


async def selected(client: httpx2.AsyncClient, **query: Any) -> str:
    """Return the id of the selected agent, which the tool and the path must agree on."""
    tool = expect_success(await client.post("/mcp/tools/select_agent", json=query))
    query_string = {name: ",".join(value) if isinstance(value, list) else value for name, value in query.items()}
    path = expect_success(await client.get("/select", params=query_string))
    assert {**tool, "agent": 0} == {**path, "agent": 0}
    assert tool["agent"]["id"] == tool["agent_id"]
    return str(tool["agent_id"])


async def test_an_agent_is_selected_by_the_conditions_of_the_query(client: httpx2.AsyncClient) -> None:
    """By version, tags and namespace; from any namespace unless one is named."""
    await register_date_service(client, "date-1")
    await register_tools(
        client, "date-2", {**DATE, "version": "2.0.0", "tags": ["test"]}, namespace="far", endpoint="http://b"
    )

    assert await selected(client, capability="date_service") == "date-2"
    assert await selected(client, capability="date_service", version_constraint="^1") == "date-1"
    assert await selected(client, capability="date_service", tags=["+production"]) == "date-1"
    assert await selected(client, capability="date_service", namespace="far") == "date-2"
    assert await selected(client, capability="date_service", resource_version="0") == "date-2"


async def test_a_preferred_tag_may_have_an_unescaped_plus(client: httpx2.AsyncClient) -> None:
    """An unescaped plus in a query string is a blank, and had become a required tag that no agent has."""
    await register_tools(client, "plain", {**GOODBYE, "tags": ["x"], "version": "2.0.0"})
    await register_tools(client, "quick", {**GOODBYE, "tags": ["x", "fast"]})

    found = [
        (await client.get(f"/select?capability=goodbye&tags={tags}")).json()["agent_id"]
        for tags in ("x", "x,+fast", "x,%2Bfast", "+fast&tags=x", "+nobody")
    ]

    assert found == ["plain", "quick", "quick", "quick", "plain"]


async def test_each_strategy_selects_by_its_rule(client: httpx2.AsyncClient) -> None:
    """Round robin, load, zone, key, random and weighted."""
    for agent_id in ("a", "b", "c"):
        await register_tools(client, agent_id, DATE, labels={"zone": f"zone-{agent_id}"})
    for agent_id, load in (("a", 0.9), ("b", 0.1), ("c", 0.5)):
        await heartbeat(client, agent_id, load=load)

    async def select(**query: str) -> str:
        response = await client.get("/select", params={"capability": "date_service", **query})
        return str(expect_success(response)["agent_id"])

    assert [await select(strategy="round_robin") for _ in range(4)] == ["a", "b", "c", "a"]
    assert await select(strategy="least_loaded") == "b"
    assert await select(strategy="local", zone="zone-c") == "c"
    assert len({await select(strategy="sticky", key="k") for _ in range(5)}) == 1
    assert len({await select(strategy="sticky", key=f"k{number}") for number in range(30)}) == 3
    assert {await select(strategy="random") for _ in range(50)} == {"a", "b", "c"}
    assert {await select(strategy="weighted") for _ in range(50)} == {"a", "b", "c"}


async def test_a_replacement_comes_before_the_record_of_its_killed_process(
    redis_url: str, redis_client: redis.Redis
) -> None:
    """A provider that restarts under a random id was chosen only if this id was lower."""
    async with in_process_registry(redis_url) as one, in_process_registry(redis_url) as two:
        await register_tools(one, "me", GREET)
        for number, agent_id in enumerate(("date-b", "date-c", "date-a")):
            await register_date_service(one if number % 2 else two, agent_id)
            registered_at = server_time_ms(redis_client)
            await async_wait_until(
                partial(_time_is_after, redis_client, registered_at), description="the next registration is later"
            )
            for each in (one, two):
                resolved = (await heartbeat(each))["dependencies_resolved"]
                assert resolved["greet"]["date_service"]["agent_id"] == agent_id
                assert await selected(each, capability="date_service") == agent_id


def _time_is_after(redis_client: redis.Redis, at: int) -> bool:
    return server_time_ms(redis_client) > at


async def test_excluded_agents_are_not_selected(client: httpx2.AsyncClient) -> None:
    """A caller excludes a provider that has just failed; without another one the reason says so."""
    for agent_id in ("c", "b", "a"):
        await register_date_service(client, agent_id)

    assert await selected(client, capability="date_service") == "a"
    assert await selected(client, capability="date_service", exclude=["a"]) == "b"
    assert await selected(client, capability="date_service", exclude=["a", "b", "unknown"]) == "c"
    response = await client.get("/select?capability=date_service&strategy=round_robin&exclude=a,b&exclude=c")
    assert expect_error(response, 404, "no_provider")["reason"] == "the call excludes all 3 agents that qualify"
    ids = [f"a{number}" for number in range(101)]
    by_path = await client.get("/select", params={"capability": "date_service", "exclude": ",".join(ids)})
    assert error_fields(expect_error(by_path, 400, "malformed_request")) == ["exclude"]
    by_tool = await client.post("/mcp/tools/select_agent", json={"capability": "date_service", "exclude": ids})
    assert error_fields(expect_error(by_tool, 422, "validation_failed")) == ["exclude"]


async def test_a_provider_with_a_late_heartbeat_comes_last(redis_url: str) -> None:
    """On every replica, for calls and for dependencies, although its status and the change log are unchanged."""
    fields = {"capabilities": ["date_service"], "health_interval": 0.5}
    async with in_process_registry(redis_url) as one, in_process_registry(redis_url) as two:
        await register_tools(one, "me", {**GREET, "dependencies": ["date_service"]})
        for agent_id in ("old", "new"):
            await register(one, agent_id, **fields)
            await send_heartbeat(one, agent_id)

        async def all_choose(expected: str) -> bool:
            await send_heartbeat(one, "new" if expected == "new" else "old")
            chosen, query = [], {"capability": "date_service"}
            for each in (one, two):
                by_path = await each.get("/select", params=query)
                by_tool = await each.post("/mcp/tools/select_agent", json=query)
                chosen += [expect_success(response)["agent_id"] for response in (by_path, by_tool)]
                resolved = (await heartbeat(each))["dependencies_resolved"]
                chosen.append(resolved["greet"]["date_service"]["agent_id"])
            return chosen == [expected] * 6

        version = (await get_agent(one, "new"))["resource_version"]
        await async_wait_until(lambda: all_choose("old"), description="the living one is preferred")
        await async_wait_until(lambda: all_choose("new"), description="the returned one is chosen")
        assert (await get_agent(two, "new"))["resource_version"] == version


WRONG: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["capability"]),
    ({"capability": ""}, ["capability"]),
    ({"capability": "c", "strategy": "luck"}, ["strategy"]),
    ({"capability": "c", "strategy": "sticky"}, ["key"]),
    ({"capability": "c", "strategy": "local"}, ["zone"]),
    ({"capability": "c", "namespace": "No Namespace"}, ["namespace"]),
]


@pytest.mark.parametrize(("query", "fields"), WRONG)
async def test_an_invalid_selection_is_rejected_by_field(
    client: httpx2.AsyncClient, query: dict[str, Any], fields: list[str]
) -> None:
    """400 for a query string, 422 for a body."""
    by_path = expect_error(await client.get("/select", params=query), 400, "malformed_request")
    by_tool = expect_error(await client.post("/mcp/tools/select_agent", json=query), 422, "validation_failed")

    assert (error_fields(by_path), error_fields(by_tool)) == (fields, fields)


async def test_a_selection_with_an_invalid_constraint_is_rejected(client: httpx2.AsyncClient) -> None:
    """As in lists."""
    body = expect_error(
        await client.get("/select", params={"capability": "c", "version_constraint": "banana"}),
        400,
        "malformed_request",
    )

    assert error_fields(body) == ["version_constraint"]


async def test_a_selection_without_a_match_returns_the_reasons(client: httpx2.AsyncClient) -> None:
    """With the number of candidates rejected at each stage; its code differs from that of an unknown agent."""
    await register(client, "late", capabilities=["c"])

    body = expect_error(await client.get("/select", params={"capability": "c"}), 404, "no_provider")

    assert body["reason"] == "none of the 1 candidates qualifies: 1 unhealthy"


async def test_replicas_return_the_same_resolutions_after_writes_of_each_other(redis_url: str) -> None:
    """A consumer registers through one replica and sends heartbeats through others: equal responses, byte for byte."""
    async with in_process_registry(redis_url) as one, in_process_registry(redis_url) as two:
        await register_tools(
            one,
            "me",
            GREET,
            {**GREET, "function_name": "hail", "dependencies": [{"capability": "date_service", "strategy": "random"}]},
        )
        assert (await heartbeat(two))["dependencies_resolved"]["greet"]["date_service"] is None
        for number in reversed(range(5)):
            await register_date_service(one if number % 2 else two, f"date-{number}")
        # A fresh read waits until this replica has read the writes of the others.
        for client in (one, two):
            await get_agent(client, "date-0")

        first, second = await heartbeat(one), await heartbeat(two)
        shown = [(await client.get("/agents/me/dependencies")).json() for client in (one, two)]

    assert {**first, "timestamp": ""} == {**second, "timestamp": ""}
    assert first["dependencies_resolved"]["greet"]["date_service"]["agent_id"] == "date-0"
    assert shown[0] == shown[1]
