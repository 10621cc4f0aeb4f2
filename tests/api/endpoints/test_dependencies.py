"""Dependencies over HTTP: told to who registers and who beats, explained, shown from both ends; and one to call."""

import asyncio
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

DATE = {"function_name": "get_current_date", "capability": "date_service", "version": "1.2.0", "tags": ["production"]}
GREET = {
    "function_name": "greet",
    "capability": "greeting",
    "dependencies": [{"capability": "date_service", "version": ">=1.0.0", "tags": ["production"]}],
}
FAREWELL = {"function_name": "farewell", "capability": "goodbye"}
DATE_SERVICE = {"agent_id": "date-1", "endpoint": "http://date:8080", "tool_name": "get_current_date"}


def a_batch(agent_id: str, *tools: dict[str, Any], endpoint: str = "http://a:1", **fields: Any) -> dict[str, Any]:
    """Return a registration in batched form."""
    return {"agent_id": agent_id, "metadata": {"endpoint": endpoint, "tools": list(tools)}, **fields}


async def batch(client: httpx2.AsyncClient, agent_id: str, *tools: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Register in batched form; return the answer."""
    return expect_success(await client.post("/agents", json=a_batch(agent_id, *tools, **fields)))


async def date_service(client: httpx2.AsyncClient, agent_id: str = "date-1", **fields: Any) -> dict[str, Any]:
    """Register the provider of dates."""
    return await batch(client, agent_id, DATE, endpoint="http://date:8080", **fields)


async def told(client: httpx2.AsyncClient, agent_id: str = "me", **fields: Any) -> dict[str, Any]:
    """Send a heartbeat; return the answer."""
    return expect_success(await client.post("/heartbeat", json={"agent_id": agent_id, **fields}))


@pytest.mark.parametrize("path", ["/agents", "/api/v1/agents", "/mcp/tools/register_agent", "/agents/batch"])
async def test_a_registration_is_answered_for_all_its_functions(client: httpx2.AsyncClient, path: str) -> None:
    """Knowing this very registration and what came before it, on every path that takes one."""
    await date_service(client)
    sent: Any = a_batch("me", GREET, FAREWELL)
    body = {"/mcp/tools/register_agent": {"registration_data": sent}, "/agents/batch": {"agents": [sent]}}.get(path)

    answer = expect_success(await client.post(path, json=body or sent))
    (answer,) = answer.get("results", [answer])

    assert answer["message"] == "Agent me registered successfully"
    assert answer["dependencies_resolved"] == {"greet": {"date_service": DATE_SERVICE}, "farewell": {}}
    assert answer["dependencies_unresolved"] == {}
    assert answer["dependencies_version"] == (await told(client))["dependencies_version"]


async def test_a_registration_in_batched_form_is_a_heartbeat(client: httpx2.AsyncClient) -> None:
    """So it can be chosen at once."""
    await batch(client, "me", FAREWELL)

    agent = await get_agent(client, "me")

    assert agent["status"] == "healthy"
    assert agent["last_heartbeat"] is not None


async def test_the_seeds_answer_stays_where_nothing_is_needed(client: httpx2.AsyncClient) -> None:
    """Neither a registration nor a heartbeat of such an agent speaks of dependencies."""
    answers = [
        expect_success(await client.post("/agents", json={"id": "a", "endpoint": "http://a", "capabilities": ["c"]}))
    ]
    answers.append(await told(client, "a"))

    assert [set(answer) for answer in answers] == [
        {"status", "agent_id", "resource_version", "message"},
        {"status", "timestamp", "message"},
    ]


async def test_the_same_function_on_two_agents_does_not_collide(client: httpx2.AsyncClient) -> None:
    """It belongs to its agent."""
    for agent_id in ("one", "two"):
        await batch(client, agent_id, {**GREET, "capability": f"greeting-{agent_id}"}, endpoint=f"http://{agent_id}")

    found = [(await client.get("/select", params={"capability": f"greeting-{each}"})).json() for each in ("one", "two")]

    assert [(one["agent_id"], one["tool_name"]) for one in found] == [("one", "greet"), ("two", "greet")]


async def test_a_heartbeat_tells_everything_or_nothing(client: httpx2.AsyncClient) -> None:
    """Without a version the whole map; with it the whole map when anything is different, nothing when not."""
    answer = await batch(client, "me", GREET, FAREWELL)
    version = answer["dependencies_version"]

    unchanged = await told(client, dependencies_version=version)
    await date_service(client)
    changed = await told(client, dependencies_version=version)
    again = await told(client)

    assert set(unchanged) == {"status", "timestamp", "message"}
    assert changed["dependencies_resolved"] == {"greet": {"date_service": DATE_SERVICE}, "farewell": {}}
    assert changed["dependencies_version"] != version
    assert {**again, "timestamp": ""} == {**changed, "timestamp": ""}


async def test_a_provider_that_goes_is_taken_away_and_restored(client: httpx2.AsyncClient) -> None:
    """As the page's manual test has it."""
    await date_service(client)
    await batch(client, "me", GREET)

    seen = []
    for step in ("there", "gone", "back"):
        if step == "gone":
            expect_success(await client.delete("/agents/date-1"))
        elif step == "back":
            await date_service(client)
        answer = await told(client)
        seen.append((answer["dependencies_resolved"]["greet"]["date_service"], answer["dependencies_unresolved"]))

    nobody = {"greet": {"date_service": "no agent has this capability"}}
    assert seen == [(DATE_SERVICE, {}), (None, nobody), (DATE_SERVICE, {})]


async def test_a_provider_is_chosen_from_its_first_heartbeat_on(client: httpx2.AsyncClient) -> None:
    """In the other form, an agent is pending until then; its capability is called by its name."""
    need = {**GREET, "dependencies": ["auth"]}
    await batch(client, "me", need)
    await register(client, "auth-1", capabilities=["auth"])

    pending = await told(client)
    await send_heartbeat(client, "auth-1")
    healthy = await told(client)

    assert pending["dependencies_unresolved"]["greet"]["auth"] == "none of the 1 candidates qualifies: 1 unhealthy"
    assert healthy["dependencies_resolved"]["greet"]["auth"]["tool_name"] == "auth"


async def test_what_was_answered_last_is_in_the_store_and_no_change(
    client: httpx2.AsyncClient, redis_client: redis.Redis
) -> None:
    """In the agent's hash, before the answer leaves; neither logged nor a new version."""
    answer = await batch(client, "me", GREET)
    key, entries, version = "{mesh}:agent:me", redis_client.xlen("{mesh}:log"), redis_client.get("{mesh}:version")
    assert redis_client.hget(key, "response_digest") == answer["dependencies_version"]

    await told(client, load=0.5)

    assert (redis_client.hget(key, "response_digest"), redis_client.hget(key, "load")) == (
        answer["dependencies_version"],
        "0.5",
    )
    assert (redis_client.xlen("{mesh}:log"), redis_client.get("{mesh}:version")) == (entries, version)
    await date_service(client)
    assert redis_client.hget(key, "response_digest") == answer["dependencies_version"]
    assert (
        (await told(client))["dependencies_version"]
        == redis_client.hget(key, "response_digest")
        != answer["dependencies_version"]
    )


async def test_the_store_knows_what_those_were_told_that_need_nothing(
    client: httpx2.AsyncClient, redis_client: redis.Redis
) -> None:
    """Their answers carry a digest, too, of which the store knew nothing, or only one of what they needed before."""
    for tools in ([FAREWELL], [GREET], [FAREWELL]):
        answer = await batch(client, "me", *tools)
        assert redis_client.hget("{mesh}:agent:me", "response_digest") == answer["dependencies_version"]

    answer = await told(client, metadata={"tools": [{**FAREWELL, "function_name": "leave"}]})

    assert redis_client.hget("{mesh}:agent:me", "response_digest") == answer["dependencies_version"]


async def test_metadata_in_a_heartbeat_is_an_update(client: httpx2.AsyncClient) -> None:
    """The endpoint is replaced, other keys are merged, null takes one away; consumers are told."""
    await date_service(client)
    await batch(client, "me", GREET)
    before = await get_agent(client, "date-1")

    await told(client, "date-1", metadata={"endpoint": "http://moved:1", "region": "eu", "rack": 7})
    await told(client, "date-1", metadata={"rack": None, "load": 3})
    after = await get_agent(client, "date-1")

    assert (after["endpoint"], after["metadata"]) == ("http://moved:1", {"region": "eu"})
    assert after["capabilities"] == before["capabilities"]
    assert (await told(client))["dependencies_resolved"]["greet"]["date_service"]["endpoint"] == "http://moved:1"


async def test_metadata_that_says_nothing_new_is_a_heartbeat(client: httpx2.AsyncClient) -> None:
    """No version, no entry."""
    await register(client, metadata={"region": "eu"}, capabilities=["c"])
    await send_heartbeat(client)
    before = await get_agent(client)

    for metadata in ({}, None, {"region": "eu"}, {"endpoint": "http://a:1"}, {"gone": None}, {"load": 1}):
        await told(client, "a", metadata=metadata)

    assert {**await get_agent(client), "last_heartbeat": ""} == {**before, "last_heartbeat": ""}


async def test_metadata_that_overtakes_a_registration_is_not_lost(redis_url: str) -> None:
    """The replica looked before the agent was there, its heartbeat came after: taken as a success, metadata dropped."""
    ids = [f"a{number}" for number in range(20)]
    async with (
        FaultyTcpProxy(redis_url) as wire,
        in_process_registry(wire.url) as slow,
        in_process_registry(redis_url) as quick,
    ):
        wire.delay_s = 0.05
        beats = asyncio.gather(
            *(slow.post("/heartbeat", json={"agent_id": each, "metadata": {"k": 1}}) for each in ids)
        )
        await async_wait_until(lambda: wire.delayed_requests > 0, description="the replica looks")
        for each in ids:
            await batch(quick, each, FAREWELL)
        answers = await beats
        wire.delay_s = 0.0

        taken = [each for each, answer in zip(ids, answers, strict=True) if answer.status_code == 200]
        assert taken
        assert [each for each in taken if (await get_agent(quick, each)).get("metadata") != {"k": 1}] == []


async def test_heartbeats_let_no_agent_grow_without_end(client: httpx2.AsyncClient) -> None:
    """Each brought a key of its own and all were merged: an agent grew by up to a MiB a beat, and the log with it."""
    await register(client, metadata={"k0": "x" * 500_000})
    await told(client, "a", metadata={"k1": "x" * 500_000})

    body = expect_error(
        await client.post("/heartbeat", json={"agent_id": "a", "metadata": {"k2": "x" * 500_000}}),
        422,
        "validation_failed",
    )

    assert error_fields(body) == ["metadata"]
    assert set((await get_agent(client))["metadata"]) == {"k0", "k1"}
    await told(client, "a", metadata={"k0": None, "k2": "x" * 500_000})
    assert set((await get_agent(client))["metadata"]) == {"k1", "k2"}


async def test_what_python_takes_for_the_same_is_new(client: httpx2.AsyncClient) -> None:
    """A heartbeat that turned 1 into true was answered as a success and changed nothing: to Python they are equal."""
    await register(client, metadata={"flag": 1, "deep": [0, {"on": False}]})

    await told(client, "a", metadata={"flag": True, "deep": [False, {"on": 0}]})

    shown = (await client.get("/agents/a")).text
    assert '"metadata":{"deep":[false,{"on":0}],"flag":true}' in shown


async def test_tools_in_a_heartbeat_replace_those_there_were(client: httpx2.AsyncClient) -> None:
    """And its answer knows them."""
    await date_service(client)
    await batch(client, "me", FAREWELL)

    answer = await told(client, metadata={"tools": [GREET]})

    assert answer["dependencies_resolved"] == {"greet": {"date_service": DATE_SERVICE}}
    assert [each["function_name"] for each in (await get_agent(client, "me"))["capabilities"]] == ["greet"]


async def test_updates_at_once_lose_nothing(client: httpx2.AsyncClient) -> None:
    """Each is made on what the other left. Of forty, 35 heartbeats were refused for a version that none had named."""
    await batch(client, "me", FAREWELL)

    await asyncio.gather(*(told(client, metadata={f"key{number}": number}) for number in range(40)))

    assert (await get_agent(client, "me"))["metadata"] == {f"key{number}": number for number in range(40)}


async def test_a_constraint_that_cannot_be_read_is_refused_by_field(client: httpx2.AsyncClient) -> None:
    """When it is registered, in either form."""
    wrong = [{"capability": "x", "version": "banana"}]
    sent = [
        a_batch("me", {**FAREWELL, "dependencies": wrong}),
        {"id": "me", "endpoint": "http://a", "dependencies": wrong},
        {"id": "me", "endpoint": "http://a", "capabilities": [{"name": "c", "dependencies": wrong}]},
    ]

    found = [expect_error(await client.post("/agents", json=each), 422, "validation_failed") for each in sent]

    assert [error_fields(each) for each in found] == [
        ["metadata.tools[0].dependencies[0].version"],
        ["dependencies[0].version"],
        ["capabilities[0].dependencies[0].version"],
    ]


async def test_each_candidate_is_shown_with_the_stage_it_fell_out_at(client: httpx2.AsyncClient) -> None:
    """The chosen one first, then those that would have done, then the others."""
    await date_service(client, "date-1")
    await date_service(client, "date-2")
    await batch(client, "old", {**DATE, "version": "0.9.0"})
    await batch(client, "test", {**DATE, "tags": ["test"]})
    await batch(client, "far", DATE, namespace="far")
    await register(client, "late", capabilities=["date_service"])
    await batch(client, "me", GREET)

    answer = (await client.get("/agents/me/dependencies", params={"explain": "true"})).json()

    (found,) = answer["explanation"]["greet"]
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


async def test_the_last_resolutions_are_kept_with_their_stages(
    client: httpx2.AsyncClient, redis_client: redis.Redis
) -> None:
    """Each that was different, newest first, five at most, and not for ever."""
    await batch(client, "me", GREET)
    for number in range(7):
        await date_service(client, f"date-{9 - number}")
        await told(client)
        await told(client)

    history = (await client.get("/agents/me/dependencies", params={"explain": "true"})).json()["recent_resolutions"]

    chosen = [entry["explanation"]["greet"][0]["chosen"]["agent_id"] for entry in history]
    assert chosen == ["date-3", "date-4", "date-5", "date-6", "date-7"]
    assert history[0]["dependencies_version"] == (await told(client))["dependencies_version"]
    assert all(entry["explanation"]["greet"][0]["candidates"][0]["stage"] == "chosen" for entry in history)
    assert 0 < redis_client.pttl("{mesh}:resolutions:me") <= 24 * 3600 * 1000


async def test_an_explanation_shows_who_was_chosen_however_many_there_are(client: httpx2.AsyncClient) -> None:
    """A trace has room for eight candidates, the best first; the one a strategy took was often none of them."""
    for number in range(20):
        await date_service(client, f"date-{number:02}")
    keys = [{"capability": "date_service", "strategy": "sticky", "key": str(number)} for number in range(30)]
    await batch(client, "me", *({**GREET, "function_name": f"f{key['key']}", "dependencies": [key]} for key in keys))

    shown = (await client.get("/agents/me/dependencies", params={"explain": "true"})).json()

    needs = [need for needs in shown["recent_resolutions"][0]["explanation"].values() for (need,) in [needs]]
    assert len({need["chosen"]["agent_id"] for need in needs}) > 8
    for need in needs:
        first, *others = need["candidates"]
        assert (first["stage"], first["agent_id"]) == ("chosen", need["chosen"]["agent_id"])
        assert {other["stage"] for other in others} == {"not_chosen"}
        assert len(others) == 7


async def test_an_agent_of_very_many_dependencies_keeps_nobody_waiting(
    client: httpx2.AsyncClient, redis_client: redis.Redis
) -> None:
    """One registration of 500 KB held a replica for seven seconds, to be refused; each of its heartbeats did again.

    Its trace had grown to hundreds of megabytes: it shows fewer candidates the more dependencies there are.
    """
    for number in range(30):
        await date_service(client, f"date-{number:02}")
    many = [{**GREET, "function_name": f"f{n}", "dependencies": ["date_service"] * 500} for n in range(20)]

    answer = await batch(client, "me", *many)
    shown = await client.get("/agents/me/dependencies", params={"explain": "true"})

    assert len(answer["dependencies_resolved"]) == 20
    assert len(redis_client.lrange("{mesh}:resolutions:me", 0, 0)[0]) < 10_000_000
    assert len(shown.content) < 30_000_000
    assert [len(need["candidates"]) for need in shown.json()["recent_resolutions"][0]["explanation"]["f19"]] == [
        1
    ] * 500
    expect_error(
        await client.post("/agents", json=a_batch("me", *many, {**GREET, "function_name": "one-more"})),
        422,
        "validation_failed",
    )


async def test_what_was_resolved_by_turns_of_replicas_is_kept_in_order(redis_url: str) -> None:
    """A provider went and came back: the replica that had told of it before kept no word of it coming back."""
    async with in_process_registry(redis_url) as one, in_process_registry(redis_url) as two:
        await date_service(one)
        await batch(one, "me", GREET)
        versions = [(await told(one))["dependencies_version"]]
        expect_success(await one.delete("/agents/date-1"))
        await list_agent_ids(two)
        versions.append((await told(two))["dependencies_version"])
        await date_service(two)
        await list_agent_ids(one)
        versions.append((await told(one))["dependencies_version"])
        shown = (await one.get("/agents/me/dependencies", params={"explain": "true"})).json()

    assert versions[0] == versions[2] != versions[1]
    assert [each["dependencies_version"] for each in reversed(shown["recent_resolutions"])] == versions


async def test_dependents_are_those_who_would_miss_it(client: httpx2.AsyncClient) -> None:
    """And break where nobody else would do."""
    await date_service(client, "date-1")
    await batch(client, "me", GREET)
    first = (await client.get("/agents/date-1/dependents")).json()
    await date_service(client, "date-2")

    second = (await client.get("/agents/date-1/dependents")).json()
    third = (await client.get("/agents/date-2/dependents")).json()

    row = {"agent_id": "me", "function": "greet", "capability": "date_service", "tool_name": "get_current_date"}
    assert first["dependents"] == [{**row, "alternatives": 0, "only_provider": True}]
    assert second["dependents"] == [{**row, "alternatives": 1, "only_provider": False}]
    assert (third["dependents"], third["count"]) == ([], 0)


async def test_every_replica_shows_the_choice_that_loads_made(redis_url: str) -> None:
    """One that had not yet asked for loads showed others as who depends on whom, and as the whole graph."""
    need = {"capability": "date_service", "strategy": "least_loaded"}
    async with in_process_registry(redis_url) as one, in_process_registry(redis_url) as two:
        for number in range(3):
            await date_service(one, f"date-{number}")
            await told(one, f"date-{number}", load=3 - number)
        answer = await batch(one, "me", {**GREET, "dependencies": [need]})
        assert answer["dependencies_resolved"]["greet"]["date_service"]["agent_id"] == "date-2"

        graph = (await two.get("/dependencies")).json()["dependencies"]
    async with in_process_registry(redis_url) as three:
        dependents = [(await three.get(f"/agents/date-{n}/dependents")).json()["count"] for n in range(3)]

    assert [edge["provider"]["agent_id"] for edge in graph] == ["date-2"]
    assert dependents == [0, 0, 1]


async def test_the_graph_shows_what_is_unmet_and_what_goes_round(client: httpx2.AsyncClient) -> None:
    """Over all namespaces, or the agents of one."""
    await batch(client, "a", {"function_name": "f", "capability": "x", "dependencies": ["y"]})
    await batch(client, "b", {"function_name": "f", "capability": "y", "dependencies": ["x"]})
    await batch(client, "c", {"function_name": "f", "capability": "z", "dependencies": ["none"]}, namespace="far")

    whole = (await client.get("/dependencies")).json()
    part = (await client.get("/dependencies", params={"namespace": "far"})).json()

    assert [
        (edge["agent_id"], edge["provider"] and edge["provider"]["agent_id"]) for edge in whole["dependencies"]
    ] == [
        ("a", "b"),
        ("b", "a"),
        ("c", None),
    ]
    assert whole["cycles"] == [["a", "b"]]
    assert [(edge["agent_id"], edge["capability"]) for edge in whole["unresolved"]] == [("c", "none")]
    assert (part["count"], part["cycles"]) == (1, [])


@pytest.mark.parametrize("path", ["/agents/nobody/dependencies", "/agents/nobody/dependents"])
async def test_nobody_has_no_dependencies(client: httpx2.AsyncClient, path: str) -> None:
    """It is told so."""
    expect_error(await client.get(path), 404, "unknown_agent")


async def selected(client: httpx2.AsyncClient, **query: Any) -> str:
    """Return who is selected, by the tool and by the path, which must agree."""
    tool = expect_success(await client.post("/mcp/tools/select_agent", json=query))
    flat = {name: ",".join(value) if isinstance(value, list) else value for name, value in query.items()}
    path = expect_success(await client.get("/select", params=flat))
    assert {**tool, "agent": 0} == {**path, "agent": 0}
    assert tool["agent"]["id"] == tool["agent_id"]
    return str(tool["agent_id"])


async def test_one_agent_is_selected_by_what_is_asked_for(client: httpx2.AsyncClient) -> None:
    """Version, tags, namespace; in any namespace unless one is named."""
    await date_service(client, "date-1")
    await batch(client, "date-2", {**DATE, "version": "2.0.0", "tags": ["test"]}, namespace="far", endpoint="http://b")

    assert await selected(client, capability="date_service") == "date-2"
    assert await selected(client, capability="date_service", version_constraint="^1") == "date-1"
    assert await selected(client, capability="date_service", tags=["+production"]) == "date-1"
    assert await selected(client, capability="date_service", namespace="far") == "date-2"
    assert await selected(client, capability="date_service", resource_version="0") == "date-2"


async def test_a_preferred_tag_is_one_however_the_plus_is_written(client: httpx2.AsyncClient) -> None:
    """As typed into an address it is a blank by the rules of query strings: it was a tag that nobody has, and 404."""
    await batch(client, "plain", {**FAREWELL, "tags": ["x"], "version": "2.0.0"})
    await batch(client, "quick", {**FAREWELL, "tags": ["x", "fast"]})

    found = [
        (await client.get(f"/select?capability=goodbye&tags={tags}")).json()["agent_id"]
        for tags in ("x", "x,+fast", "x,%2Bfast", "+fast&tags=x", "+nobody")
    ]

    assert found == ["plain", "quick", "quick", "quick", "plain"]


async def test_each_strategy_selects_as_it_says(client: httpx2.AsyncClient) -> None:
    """Turns, keys, loads and zones."""
    for agent_id in ("a", "b", "c"):
        await batch(client, agent_id, DATE, labels={"zone": f"zone-{agent_id}"})
    for agent_id, load in (("a", 0.9), ("b", 0.1), ("c", 0.5)):
        await told(client, agent_id, load=load)

    async def select(**query: str) -> str:
        answer = await client.get("/select", params={"capability": "date_service", **query})
        return str(expect_success(answer)["agent_id"])

    assert [await select(strategy="round_robin") for _ in range(4)] == ["a", "b", "c", "a"]
    assert await select(strategy="least_loaded") == "b"
    assert await select(strategy="local", zone="zone-c") == "c"
    assert len({await select(strategy="sticky", key="k") for _ in range(5)}) == 1
    assert len({await select(strategy="sticky", key=f"k{number}") for number in range(30)}) == 3
    assert {await select(strategy="random") for _ in range(50)} == {"a", "b", "c"}
    assert {await select(strategy="weighted") for _ in range(50)} == {"a", "b", "c"}


WRONG: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["capability"]),
    ({"capability": ""}, ["capability"]),
    ({"capability": "c", "strategy": "luck"}, ["strategy"]),
    ({"capability": "c", "strategy": "sticky"}, ["key"]),
    ({"capability": "c", "strategy": "local"}, ["zone"]),
    ({"capability": "c", "namespace": "No Namespace"}, ["namespace"]),
]


@pytest.mark.parametrize(("query", "fields"), WRONG)
async def test_a_selection_that_cannot_be_is_refused_by_field(
    client: httpx2.AsyncClient, query: dict[str, Any], fields: list[str]
) -> None:
    """400 for a query string, 422 for a body."""
    by_path = expect_error(await client.get("/select", params=query), 400, "malformed_request")
    by_tool = expect_error(await client.post("/mcp/tools/select_agent", json=query), 422, "validation_failed")

    assert (error_fields(by_path), error_fields(by_tool)) == (fields, fields)


async def test_a_selection_with_a_constraint_nobody_can_read_is_refused(client: httpx2.AsyncClient) -> None:
    """As for lists."""
    body = expect_error(
        await client.get("/select", params={"capability": "c", "version_constraint": "banana"}),
        400,
        "malformed_request",
    )

    assert error_fields(body) == ["version_constraint"]


async def test_where_nobody_will_do_it_is_said_why(client: httpx2.AsyncClient) -> None:
    """By the stages at which they fell out; a 404 of another kind than that of an unknown agent."""
    await register(client, "late", capabilities=["c"])

    body = expect_error(await client.get("/select", params={"capability": "c"}), 404, "no_provider")

    assert body["reason"] == "none of the 1 candidates qualifies: 1 unhealthy"


async def test_replicas_agree_and_know_of_each_others_writes(redis_url: str) -> None:
    """A consumer that registered through one replica beats through others; the answers are the same, byte for byte."""
    async with in_process_registry(redis_url) as one, in_process_registry(redis_url) as two:
        await batch(
            one,
            "me",
            GREET,
            {**GREET, "function_name": "hail", "dependencies": [{"capability": "date_service", "strategy": "random"}]},
        )
        assert (await told(two))["dependencies_resolved"]["greet"]["date_service"] is None
        for number in range(5):
            await date_service(one if number % 2 else two, f"date-{number}")
        # What was written through another replica is known once the feed has followed; a fresh read waits for that.
        for client in (one, two):
            await get_agent(client, "date-4")

        first, second = await told(one), await told(two)
        shown = [(await client.get("/agents/me/dependencies")).json() for client in (one, two)]

    assert {**first, "timestamp": ""} == {**second, "timestamp": ""}
    assert first["dependencies_resolved"]["greet"]["date_service"]["agent_id"] == "date-0"
    assert shown[0] == shown[1]
