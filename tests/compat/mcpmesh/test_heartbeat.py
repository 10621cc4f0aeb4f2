"""What mesh agents send: all of it by POST, HEAD as the sign of life; 202 to those alone whose own answer differs."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest
import redis

from tests.support.http_calls import expect_error, expect_success
from tests.support.in_process_registry import in_process_registry
from tests.support.polling import async_wait_until
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica

Json = dict[str, Any]


def tool(name: str, capability: str, *needs: Any, **fields: Any) -> Json:
    """Return one function; a need is a name or a dependency."""
    needed = [need if isinstance(need, dict) else {"capability": need} for need in needs]
    return {"function_name": name, "capability": capability, "dependencies": needed, **fields}


def must(capability: str, **fields: Any) -> Json:
    """Return a required dependency."""
    return {"capability": capability, "required": True, **fields}


def flat(agent_id: str, *tools: Json, **fields: Any) -> Json:
    """Return an agent in flat form."""
    return {"agent_id": agent_id, "http_host": "127.0.0.1", "http_port": 9000, "tools": [*tools], **fields}


async def post(client: httpx2.AsyncClient, agent_id: str, *tools: Json, **fields: Any) -> Json:
    """Register an agent in flat form; return the answer."""
    return expect_success(await client.post("/heartbeat", json=flat(agent_id, *tools, **fields)))


async def head(client: httpx2.AsyncClient, agent_id: str) -> int:
    """Send a sign of life after the replica has heard of all there was before; return the status."""
    assert (await client.get("/agents", params={"limit": "1"})).status_code == 200
    return await head_at_once(client, agent_id)


async def head_at_once(client: httpx2.AsyncClient, agent_id: str) -> int:
    """Send a sign of life; return the status, which is all there is."""
    answer = await client.head(f"/heartbeat/{agent_id}")
    assert answer.content == b"" or answer.status_code >= 500
    return answer.status_code


async def posted_again(client: httpx2.AsyncClient, agent_id: str, *tools: Json, **fields: Any) -> Json:
    """Answer a 202 as the SDK does, after which all is well."""
    assert await head(client, agent_id) == 202
    answer = await post(client, agent_id, *tools, **fields)
    assert await head(client, agent_id) == 200
    return answer


def providers(answer: Json, function: str = "f") -> list[str]:
    """Return who is injected into a function, by position."""
    return [entry["agent_id"] for entry in answer["dependencies_resolved"][function]]


@pytest.fixture
async def two(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[httpx2.AsyncClient, httpx2.AsyncClient]]:
    """Provide clients of two replicas that share a store, and wait for it however busy the machine is."""
    monkeypatch.setattr("registry.compat.mcpmesh.fast_heartbeat._REDIS_TIMEOUT_S", 5.0)
    async with (
        in_process_registry(redis_url, instance_id="one") as one,
        in_process_registry(redis_url, instance_id="two") as other,
    ):
        yield one, other


Two = tuple[httpx2.AsyncClient, httpx2.AsyncClient]


async def test_an_unknown_agent_is_gone(two: Two) -> None:
    """It registers, and is kept on every replica from then on."""
    assert [await head(client, "a-1") for client in two] == [410, 410]

    await post(two[0], "a-1")

    assert [await head(client, "a-1") for client in two] == [200, 200]


async def test_head_never_revives(two: Two, raw: redis.Redis) -> None:
    """An agent that is not healthy is gone for it, and stays as it is; a POST brings it back."""
    await post(two[0], "a-1", tool("f", "c"))
    raw.hset("{mesh}:agent:a-1", mapping={"status": "degraded"})

    assert [await head(client, "a-1") for client in two] == [410, 410]
    assert raw.hget("{mesh}:agent:a-1", "status") == "degraded"

    await post(two[1], "a-1", tool("f", "c"))
    assert raw.hget("{mesh}:agent:a-1", "status") == "healthy"
    assert [await head(client, "a-1") for client in two] == [200, 200]


async def test_head_prolongs_a_life(two: Two, raw: redis.Redis) -> None:
    """As a heartbeat does, by 20 s."""
    await post(two[0], "a-1")
    raw.zadd("{mesh}:deadlines", {"a-1": 9_000_000_000_000})

    assert await head(two[1], "a-1") == 200

    score = raw.zscore("{mesh}:deadlines", "a-1")
    seconds, micro = raw.time()
    assert isinstance(score, float)
    assert 15_000 < score - (seconds * 1000 + micro / 1000) <= 20_000


async def test_who_left_is_gone_and_its_consumers_are_told(two: Two) -> None:
    """DELETE is what an agent sends at its end; what it met is unresolved at the next sign of life."""
    await post(two[0], "p-1", tool("g", "c"))
    assert providers(await post(two[1], "me-1", tool("f", "x", "c"))) == ["p-1"]

    assert (await two[0].delete("/agents/p-1")).status_code == 200
    assert (await two[1].delete("/agents/p-1")).status_code == 404

    assert [await head(client, "p-1") for client in two] == [410, 410]
    assert providers(await posted_again(two[0], "me-1", tool("f", "x", "c"))) == [""]


async def test_a_join_concerns_only_those_whose_answer_differs(two: Two) -> None:
    """Upstream sends everybody a 202; here a provider that nobody asks for, or that is not the best, concerns none."""
    await post(two[0], "p-1", tool("g", "c", version="2.0.0"))
    await post(two[0], "me-1", tool("f", "x", "c"))
    await post(two[1], "other-1", tool("f", "y", "z"))
    await post(two[1], "lone-1")

    await post(two[0], "new-1", tool("g", "unheard-of"))
    await post(two[1], "new-2", tool("g", "c", version="1.0.0"))
    everybody = ("p-1", "me-1", "other-1", "lone-1", "new-1", "new-2")
    assert [await head(client, each) for client in two for each in everybody] == [200] * 12

    await post(two[0], "new-3", tool("g", "c", version="3.0.0"))
    assert [await head(two[1], each) for each in everybody] == [200, 202, 200, 200, 200, 200]
    assert providers(await posted_again(two[1], "me-1", tool("f", "x", "c"))) == ["new-3"]


async def test_a_202_stays_until_the_agent_has_asked(two: Two) -> None:
    """It is a level: whoever is asked says so, as often as it is asked, and it ends where the difference ends."""
    await post(two[0], "me-1", tool("f", "x", "c"))
    await post(two[0], "p-1", tool("g", "c"))
    assert [await head(client, "me-1") for client in two * 2] == [202] * 4

    await two[1].delete("/agents/p-1")

    assert [await head(client, "me-1") for client in two] == [200, 200]


@pytest.mark.parametrize(
    "change",
    [
        {"http_port": 9001},
        {"http_host": "127.0.0.2"},
        {"tools": [tool("g2", "c")]},
        {"tools": [tool("g", "c", kwargs={"streaming": True})]},
        {"tools": []},
    ],
    ids=["port", "host", "function", "kwargs", "gone"],
)
async def test_a_provider_that_changes_in_place_is_noticed(two: Two, change: Json) -> None:
    """It is healthy all the time; upstream tells nobody."""
    await post(two[0], "p-1", tool("g", "c"))
    await post(two[1], "me-1", tool("f", "x", "c"))

    expect_success(await two[0].post("/heartbeat", json=flat("p-1", tool("g", "c")) | change))

    await posted_again(two[1], "me-1", tool("f", "x", "c"))


async def test_what_an_agent_says_of_itself_alone_is_nobodys_concern(two: Two) -> None:
    """Another description, or another tag that nobody asks for, moves no consumer."""
    await post(two[0], "p-1", tool("g", "c"))
    await post(two[1], "me-1", tool("f", "x", "c"))

    await post(two[0], "p-1", tool("g", "c", description="d", tags=["t"]), description="new")

    assert await head(two[1], "me-1") == 200


async def test_a_required_chain_is_felt_at_its_far_end(two: Two) -> None:
    """What a needs needs d, three agents away; with d everything is there, without it nothing."""
    links = [tool("f", "b", must("c")), tool("f", "c", must("d")), tool("f", "d")]
    for name, link in reversed([*zip("bcd", links, strict=True)]):
        await post(two[0], f"{name}-1", link)
    a = tool("f", "a", must("b"))
    assert providers(await post(two[1], "a-1", a)) == ["b-1"]

    await two[0].delete("/agents/d-1")
    assert [await head(two[0], f"{name}-1") for name in "abc"] == [202, 202, 202]
    assert providers(await posted_again(two[1], "a-1", a)) == [""]

    await post(two[0], "d-1", links[2])
    assert providers(await posted_again(two[1], "a-1", a)) == ["b-1"]


@pytest.mark.parametrize(
    "entry", [{"tags": ["t"]}, "c", "*", {"tags": ["+u"]}, {"capability": "c", "version": ">=1"}], ids=str
)
async def test_a_tool_for_a_language_model_is_felt(two: Two, entry: Any) -> None:
    """Whatever the filter asks for: a tool that comes, that changes what is said of it, and that goes."""
    chat = tool("chat", "chat", llm_filter={"filter": [entry], "filter_mode": "all"})
    schema = {"type": "object"}
    assert (await post(two[0], "me-1", chat))["llm_tools"] == {"chat": []}

    await post(two[1], "p-1", tool("g", "c", tags=["t"], inputSchema=schema))
    assert len((await posted_again(two[0], "me-1", chat))["llm_tools"]["chat"]) == 1

    await post(two[1], "p-1", tool("g", "c", tags=["t"], inputSchema=schema, description="better"))
    (told,) = (await posted_again(two[0], "me-1", chat))["llm_tools"]["chat"]
    assert told["description"] == "better"

    await post(two[1], "p-1", tool("g", "c", tags=["t"]))
    assert (await posted_again(two[0], "me-1", chat))["llm_tools"] == {"chat": []}


async def test_a_provider_of_a_language_model_is_felt(two: Two) -> None:
    """With what it was declared with."""
    chat = tool("chat", "chat", llm_provider={"capability": "llm"})
    assert "llm_providers" not in await post(two[0], "me-1", chat)

    for vendor in "anthropic", "openai":
        await post(two[1], "p-1", tool("ask", "llm", inputSchema={"type": "object"}, kwargs={"vendor": vendor}))
        assert (await posted_again(two[0], "me-1", chat))["llm_providers"]["chat"]["vendor"] == vendor


async def test_each_dependency_keeps_its_place(two: Two) -> None:
    """Also one that is asked for twice; of two functions with one name the entries follow each other."""
    await post(two[0], "p-1", tool("g", "c", tags=["x"]))
    answer = await post(
        two[1],
        "me-1",
        tool("f", "a", "none", "c", {"capability": "c", "tags": ["y"]}, "c"),
        tool("", "b", "c"),
        tool("f", "d", {"capability": ""}),
    )

    assert providers(answer) == ["", "p-1", "", "p-1", ""]
    assert providers(answer, "b" if "b" in answer["dependencies_resolved"] else "") == ["p-1"]
    texts = [
        entry[name]
        for entries in answer["dependencies_resolved"].values()
        for entry in entries
        for name in ("agent_id", "endpoint", "function_name", "capability", "status")
    ]
    assert all(isinstance(text, str) for text in texts)


async def test_namespaces_isolate_unless_they_are_told_not_to(redis_url: str) -> None:
    """Upstream passes over them; a setting does likewise."""
    async with in_process_registry(redis_url) as client:
        await post(client, "p-1", tool("g", "c"), namespace="prod")
        assert providers(await post(client, "me-1", tool("f", "x", "c"), namespace="dev")) == [""]
    async with in_process_registry(redis_url, isolate_namespaces=False) as client:
        assert providers(await post(client, "me-1", tool("f", "x", "c"), namespace="dev")) == ["p-1"]


async def test_the_forms_find_each_other(two: Two) -> None:
    """An agent of the seeds' form is a provider of a mesh agent, and the other way round."""
    expect_success(
        await two[0].post("/agents", json={"id": "plain", "endpoint": "http://p:1", "capabilities": [{"name": "c"}]})
    )
    await two[0].post("/heartbeat", json={"agent_id": "plain"})
    assert providers(await post(two[1], "me-1", tool("f", "x", "c"))) == ["plain"]

    sent = {"id": "asks", "endpoint": "http://q:1", "dependencies": ["x"]}
    answer = expect_success(await two[1].post("/agents", json=sent))

    assert answer["dependencies_resolved"]["*"]["x"]["agent_id"] == "me-1"


async def test_a_refused_agent_is_not_there(two: Two) -> None:
    """200 with an error in it, for anything else would be tried again and again; the half that was there stays."""
    await post(two[0], "a-1", tool("f", "a", must("b")))

    answer = await two[1].post("/heartbeat", json=flat("b-1", tool("f", "b", must("a"))))

    assert answer.status_code == 200
    body = answer.json()
    assert (body["status"], body["message"]) == ("error", "required dependency cycle: b → a → b")
    assert [await head(client, "b-1") for client in two] == [410, 410]
    assert [await head(client, "a-1") for client in two] == [200, 200]
    await post(two[1], "c-1", tool("f", "c", must("a")))


async def test_what_is_no_registration_is_400(two: Two) -> None:
    """Not JSON, no object, no id, another type."""
    for content in (b"{", b"[1]", b'{"name":"z"}', b'{"agent_id":"a","http_port":"80"}'):
        answer = await two[0].post("/heartbeat", content=content, headers={"content-type": "application/json"})
        expect_error(answer, 400, "malformed_request")


async def test_a_beat_of_the_other_form_may_not_amend_a_flat_agent(two: Two) -> None:
    """What is new of it comes with all of it; a plain beat is taken, and answered in the form the agent has."""
    await post(two[0], "a-1", tool("f", "a", "c"))

    plain = expect_success(await two[1].post("/heartbeat", json={"agent_id": "a-1"}))
    refused = await two[1].post("/heartbeat", json={"agent_id": "a-1", "metadata": {"endpoint": "http://b:1"}})

    assert providers(plain) == [""]
    assert [detail["field"] for detail in expect_error(refused, 422, "validation_failed")["details"]] == ["metadata"]
    assert [await head(client, "a-1") for client in two] == [200, 200]


@contextlib.contextmanager
def paused(server: RedisServer) -> Iterator[None]:
    """Freeze a server: its sockets stay open, nothing is answered."""
    server.pause()
    try:
        yield
    finally:
        server.resume()


async def test_while_the_store_is_frozen_the_healthy_are_kept_at_once(own_server: RedisServer) -> None:
    """A failing HEAD would make each of them send five times as much; of the others nothing is known, so it is 503."""
    async with in_process_registry(own_server.url) as client:
        for number in range(20):
            await post(client, f"a-{number}", tool("f", "x", "c"))
        with paused(own_server):
            began = time.monotonic()
            answers = await asyncio.gather(*(head_at_once(client, f"a-{number}") for number in range(20)))
            took = time.monotonic() - began
            nobody = await head_at_once(client, "nobody")

        assert answers == [200] * 20
        assert took < 1, took  # not the two seconds until the store is given up
        assert nobody == 503
        await async_wait_until(lambda: _is_kept(client), description="the store answers again")


async def test_while_the_store_is_frozen_who_asked_elsewhere_is_not_sent_to_ask_again(own_server: RedisServer) -> None:
    """The replica that sent it knew the answer before that one; it asked, was answered 503, and tried ever again."""
    async with in_process_registry(own_server.url) as one, in_process_registry(own_server.url) as other:
        await post(one, "me-1", tool("f", "x", "c"))
        await post(other, "p-1", tool("g", "c"))
        assert await head(one, "me-1") == 202
        assert providers(await post(other, "me-1", tool("f", "x", "c"))) == ["p-1"]

        with paused(own_server):
            assert [await head_at_once(client, "me-1") for client in (one, other)] == [200, 200]


async def _is_kept(client: httpx2.AsyncClient) -> bool:
    return await head_at_once(client, "a-0") == 200


async def test_a_sign_of_life_that_is_answered_early_counts_all_the_same(own_server: RedisServer) -> None:
    """An agent that hears 200 while the store is slow must not be degraded for what was lost on the way to it."""
    async with in_process_registry(own_server.url) as client, _looking_into(own_server) as raw:
        await post(client, "a-1")
        raw.zadd("{mesh}:heartbeats", {"a-1": 1})
        with paused(own_server):
            assert [await head_at_once(client, "a-1") for _ in range(3)] == [200, 200, 200]

        await async_wait_until(lambda: (raw.zscore("{mesh}:heartbeats", "a-1") or 0) > 1, description="it counts")


@contextlib.asynccontextmanager
async def _looking_into(server: RedisServer) -> AsyncIterator[Any]:
    with redis.Redis.from_url(server.url, decode_responses=True) as raw:
        yield raw


async def _soon_told(client: httpx2.AsyncClient, agent_id: str) -> bool:
    """Tell whether an agent is told to ask by one of its next signs of life; on a busy machine not by the first."""
    return 202 in [await head(client, agent_id) for _ in range(3)]


async def test_of_pairs_that_come_at_once_none_is_lost(redis_url: str) -> None:
    """Two hundred consumers and providers over two processes: each is resolved, or told so at its next sign of life.

    Upstream loses 7 to 19 of them for good.
    """
    with Replica(redis_url) as one, Replica(redis_url) as other:
        limits = httpx2.Limits(max_connections=20)
        async with (
            httpx2.AsyncClient(base_url=one.url, timeout=30, limits=limits) as left,
            httpx2.AsyncClient(base_url=other.url, timeout=30, limits=limits) as right,
        ):
            lost = []
            for at in range(0, 200, 20):
                pairs = [f"{number}" for number in range(at, at + 20)]
                answers = await asyncio.gather(
                    *(post(left, f"me-{each}", tool("f", f"x{each}", f"c{each}")) for each in pairs),
                    *(post(right, f"p-{each}", tool("g", f"c{each}")) for each in pairs),
                )
                for each, answer in zip(pairs, answers, strict=False):
                    if providers(answer) != [f"p-{each}"]:
                        told = [await _soon_told(client, f"me-{each}") for client in (left, right)]
                        lost += [] if all(told) else [(each, told)]

            assert lost == []
