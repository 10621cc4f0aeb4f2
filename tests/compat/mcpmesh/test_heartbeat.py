"""Heartbeats of mcp-mesh agents: POST with all data, and HEAD, which returns 202 if the resolution has changed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any

import httpx2
import pytest
import redis

from registry.compat.mcpmesh.registration import MARKER_FIELDS
from tests.support.faulty_tcp_proxy import FaultyTcpProxy
from tests.support.http_calls import REQUEST_TIMEOUT_S, expect_error, expect_success
from tests.support.in_process_registry import in_process_registry
from tests.support.polling import async_wait_until
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica

Json = dict[str, Any]


def tool(name: str, capability: str, *dependencies: Any, **fields: Any) -> Json:
    """Return one function; each dependency is a capability or a dict."""
    as_dicts = [each if isinstance(each, dict) else {"capability": each} for each in dependencies]
    return {"function_name": name, "capability": capability, "dependencies": as_dicts, **fields}


def required(capability: str, **fields: Any) -> Json:
    """Return a required dependency."""
    return {"capability": capability, "required": True, **fields}


def registration(agent_id: str, *tools: Json, **fields: Any) -> Json:
    """Return an agent in the mcp-mesh format."""
    return {"agent_id": agent_id, "http_host": "127.0.0.1", "http_port": 9000, "tools": [*tools], **fields}


async def post(client: httpx2.AsyncClient, agent_id: str, *tools: Json, **fields: Any) -> Json:
    """Register an agent in the mcp-mesh format; return the response."""
    return expect_success(await client.post("/heartbeat", json=registration(agent_id, *tools, **fields)))


async def head(client: httpx2.AsyncClient, agent_id: str) -> int:
    """Send a HEAD heartbeat after the replica has caught up; return the status."""
    assert (await client.get("/agents", params={"limit": "1"})).status_code == 200
    return await head_at_once(client, agent_id)


async def head_at_once(client: httpx2.AsyncClient, agent_id: str) -> int:
    """Send a HEAD heartbeat; return the status."""
    response = await client.head(f"/heartbeat/{agent_id}")
    assert response.content == b"" or response.status_code >= 500
    return response.status_code


async def wait_for_full_heartbeat_request(client: httpx2.AsyncClient, agent_id: str) -> None:
    """Send HEAD heartbeats until one returns 202; if Redis takes longer than 30 ms, a replica returns 200."""

    async def is_requested() -> bool:
        return await head(client, agent_id) == 202

    await async_wait_until(is_requested, description=f"a full heartbeat of {agent_id} is requested")


async def register_again(client: httpx2.AsyncClient, agent_id: str, *tools: Json, **fields: Any) -> Json:
    """Expect a 202, register again as the SDK does, and expect a 200."""
    assert await head(client, agent_id) == 202
    response = await post(client, agent_id, *tools, **fields)
    assert await head(client, agent_id) == 200
    return response


def providers(response: Json, function: str = "f") -> list[str]:
    """Return the providers of a function by position."""
    return [entry["agent_id"] for entry in response["dependencies_resolved"][function]]


@pytest.fixture
async def replicas(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[httpx2.AsyncClient, httpx2.AsyncClient]]:
    """Provide clients of two replicas that share a store, and wait for it even on a busy machine."""
    monkeypatch.setattr("registry.compat.mcpmesh.fast_heartbeat._REDIS_TIMEOUT_S", REQUEST_TIMEOUT_S)
    async with (
        in_process_registry(redis_url, instance_id="one") as one,
        in_process_registry(redis_url, instance_id="two") as other,
    ):
        yield one, other


Pair = tuple[httpx2.AsyncClient, httpx2.AsyncClient]


async def test_an_unknown_agent_gets_410(replicas: Pair) -> None:
    """After its registration it gets 200 on every replica."""
    assert [await head(client, "a-1") for client in replicas] == [410, 410]

    await post(replicas[0], "a-1")

    assert [await head(client, "a-1") for client in replicas] == [200, 200]


@pytest.mark.leaves_damaged_data("a status is set without its counts")
async def test_a_head_heartbeat_never_revives_an_agent(replicas: Pair, redis_client: redis.Redis) -> None:
    """A degraded agent gets 410 and stays degraded; a POST revives it."""
    await post(replicas[0], "a-1", tool("f", "c"))
    redis_client.hset("{mesh}:agent:a-1", mapping={"status": "degraded"})

    assert [await head(client, "a-1") for client in replicas] == [410, 410]
    assert redis_client.hget("{mesh}:agent:a-1", "status") == "degraded"

    await post(replicas[1], "a-1", tool("f", "c"))
    assert redis_client.hget("{mesh}:agent:a-1", "status") == "healthy"
    assert [await head(client, "a-1") for client in replicas] == [200, 200]


async def test_a_head_heartbeat_extends_the_deadline(replicas: Pair, redis_client: redis.Redis) -> None:
    """It adds 20 s, as any heartbeat does."""
    await post(replicas[0], "a-1")
    redis_client.zadd("{mesh}:deadlines", {"a-1": 9_000_000_000_000})

    assert await head(replicas[1], "a-1") == 200

    score = redis_client.zscore("{mesh}:deadlines", "a-1")
    seconds, micro = redis_client.time()
    assert isinstance(score, float)
    assert 15_000 < score - (seconds * 1000 + micro / 1000) <= 20_000


async def test_the_consumers_of_a_deregistered_agent_get_202(replicas: Pair) -> None:
    """An agent deregisters with DELETE; its next heartbeat gets 410."""
    await post(replicas[0], "p-1", tool("g", "c"))
    assert providers(await post(replicas[1], "me-1", tool("f", "x", "c"))) == ["p-1"]

    assert (await replicas[0].delete("/agents/p-1")).status_code == 200
    assert (await replicas[1].delete("/agents/p-1")).status_code == 404

    assert [await head(client, "p-1") for client in replicas] == [410, 410]
    assert providers(await register_again(replicas[0], "me-1", tool("f", "x", "c"))) == [""]


async def test_a_new_provider_affects_only_agents_whose_resolution_changes(replicas: Pair) -> None:
    """Upstream sends a 202 to all agents; here an unrequested or second-best provider affects none."""
    await post(replicas[0], "p-1", tool("g", "c", version="2.0.0"))
    await post(replicas[0], "me-1", tool("f", "x", "c"))
    await post(replicas[1], "other-1", tool("f", "y", "z"))
    await post(replicas[1], "lone-1")

    await post(replicas[0], "new-1", tool("g", "unheard-of"))
    await post(replicas[1], "new-2", tool("g", "c", version="1.0.0"))
    all_agents = ("p-1", "me-1", "other-1", "lone-1", "new-1", "new-2")
    assert [await head(client, each) for client in replicas for each in all_agents] == [200] * 12

    await post(replicas[0], "new-3", tool("g", "c", version="3.0.0"))
    assert [await head(replicas[1], each) for each in all_agents] == [200, 202, 200, 200, 200, 200]
    assert providers(await register_again(replicas[1], "me-1", tool("f", "x", "c"))) == ["new-3"]


async def test_a_202_repeats_until_the_resolution_is_fetched(replicas: Pair) -> None:
    """It depends on state, not on an event: every replica repeats it, and it ends when the change is reverted."""
    await post(replicas[0], "me-1", tool("f", "x", "c"))
    await post(replicas[0], "p-1", tool("g", "c"))
    assert [await head(client, "me-1") for client in replicas * 2] == [202] * 4

    await replicas[1].delete("/agents/p-1")

    assert [await head(client, "me-1") for client in replicas] == [200, 200]


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
async def test_a_change_of_a_healthy_provider_is_noticed(replicas: Pair, change: Json) -> None:
    """Upstream sends no 202 for it."""
    await post(replicas[0], "p-1", tool("g", "c"))
    await post(replicas[1], "me-1", tool("f", "x", "c"))

    expect_success(await replicas[0].post("/heartbeat", json=registration("p-1", tool("g", "c")) | change))

    await register_again(replicas[1], "me-1", tool("f", "x", "c"))


async def test_an_irrelevant_change_of_a_provider_affects_no_consumer(replicas: Pair) -> None:
    """Its description and a tag that no dependency names are irrelevant."""
    await post(replicas[0], "p-1", tool("g", "c"))
    await post(replicas[1], "me-1", tool("f", "x", "c"))

    await post(replicas[0], "p-1", tool("g", "c", description="d", tags=["t"]), description="new")

    assert await head(replicas[1], "me-1") == 200


@pytest.mark.leaves_damaged_data("a status is set without its counts")
async def test_a_required_chain_is_resolved_from_end_to_end(replicas: Pair) -> None:
    """`a` depends on `d` through two other agents; its resolution follows the removal and the return of `d`."""
    functions = [tool("f", "b", required("c")), tool("f", "c", required("d")), tool("f", "d")]
    for name, function in reversed([*zip("bcd", functions, strict=True)]):
        await post(replicas[0], f"{name}-1", function)
    a = tool("f", "a", required("b"))
    assert providers(await post(replicas[1], "a-1", a)) == ["b-1"]

    await replicas[0].delete("/agents/d-1")
    assert [await head(replicas[0], f"{name}-1") for name in "abc"] == [202, 202, 202]
    assert providers(await register_again(replicas[1], "a-1", a)) == [""]

    await post(replicas[0], "d-1", functions[2])
    assert providers(await register_again(replicas[1], "a-1", a)) == ["b-1"]


@pytest.mark.parametrize(
    "entry", [{"tags": ["t"]}, "c", "*", {"tags": ["+u"]}, {"capability": "c", "version": ">=1"}], ids=str
)
async def test_a_change_of_an_llm_tool_is_noticed(replicas: Pair, entry: Any) -> None:
    """A tool that is added, described differently and removed changes the response with any filter."""
    chat = tool("chat", "chat", llm_filter={"filter": [entry], "filter_mode": "all"})
    schema = {"type": "object"}
    assert (await post(replicas[0], "me-1", chat))["llm_tools"] == {"chat": []}

    await post(replicas[1], "p-1", tool("g", "c", tags=["t"], inputSchema=schema))
    assert len((await register_again(replicas[0], "me-1", chat))["llm_tools"]["chat"]) == 1

    await post(replicas[1], "p-1", tool("g", "c", tags=["t"], inputSchema=schema, description="better"))
    (changed,) = (await register_again(replicas[0], "me-1", chat))["llm_tools"]["chat"]
    assert changed["description"] == "better"

    await post(replicas[1], "p-1", tool("g", "c", tags=["t"]))
    assert (await register_again(replicas[0], "me-1", chat))["llm_tools"] == {"chat": []}


async def test_a_change_of_an_llm_provider_is_noticed(replicas: Pair) -> None:
    """The response contains its vendor."""
    chat = tool("chat", "chat", llm_provider={"capability": "llm"})
    assert "llm_providers" not in await post(replicas[0], "me-1", chat)

    for vendor in "anthropic", "openai":
        await post(replicas[1], "p-1", tool("ask", "llm", inputSchema={"type": "object"}, kwargs={"vendor": vendor}))
        assert (await register_again(replicas[0], "me-1", chat))["llm_providers"]["chat"]["vendor"] == vendor


async def test_dependencies_are_resolved_by_position(replicas: Pair) -> None:
    """A capability may be listed twice; functions with the same name share one list."""
    await post(replicas[0], "p-1", tool("g", "c", tags=["x"]))
    response = await post(
        replicas[1],
        "me-1",
        tool("f", "a", "none", "c", {"capability": "c", "tags": ["y"]}, "c"),
        tool("", "b", "c"),
        tool("f", "d", {"capability": ""}),
    )

    assert providers(response) == ["", "p-1", "", "p-1", ""]
    assert providers(response, "b" if "b" in response["dependencies_resolved"] else "") == ["p-1"]
    texts = [
        entry[name]
        for entries in response["dependencies_resolved"].values()
        for entry in entries
        for name in ("agent_id", "endpoint", "function_name", "capability", "status")
    ]
    assert all(isinstance(text, str) for text in texts)


async def test_namespaces_isolate_agents_unless_the_setting_is_off(redis_url: str) -> None:
    """Upstream ignores namespaces; the setting does the same."""
    async with in_process_registry(redis_url) as client:
        await post(client, "p-1", tool("g", "c"), namespace="prod")
        assert providers(await post(client, "me-1", tool("f", "x", "c"), namespace="dev")) == [""]
    async with in_process_registry(redis_url, isolate_namespaces=False) as client:
        assert providers(await post(client, "me-1", tool("f", "x", "c"), namespace="dev")) == ["p-1"]


async def test_a_cycle_through_two_namespaces_is_rejected_if_they_are_not_isolated(redis_url: str) -> None:
    """Then every dependency is one on any namespace; with isolation the two agents have nothing in common."""
    for isolate, expected in ((False, "required dependency cycle: b/y → */x → a/x → */y → b/y"), (True, None)):
        async with in_process_registry(redis_url, isolate_namespaces=isolate) as client:
            await post(client, "a-1", tool("f", "x", required("y")), namespace="a")
            sent = registration("b-1", tool("f", "y", required("x")), namespace="b")
            response = (await client.post("/heartbeat", json=sent)).json()

        assert (response["message"] if response["status"] == "error" else None) == expected


async def test_agents_of_both_formats_find_each_other(replicas: Pair) -> None:
    """Each is a provider of the other."""
    expect_success(
        await replicas[0].post(
            "/agents", json={"id": "plain", "endpoint": "http://p:1", "capabilities": [{"name": "c"}]}
        )
    )
    await replicas[0].post("/heartbeat", json={"agent_id": "plain"})
    assert providers(await post(replicas[1], "me-1", tool("f", "x", "c"))) == ["plain"]

    sent = {"id": "asks", "endpoint": "http://q:1", "dependencies": ["x"]}
    response = expect_success(await replicas[1].post("/agents", json=sent))

    assert response["dependencies_resolved"]["*"]["x"]["agent_id"] == "me-1"


@pytest.mark.parametrize(
    ("endpoint", "sent"),
    [
        ("http://p:1/mcp", "http://p:1"),
        ("http://p:1/mcp/", "http://p:1"),
        ("http://p:1/team/mcp", "http://p:1/team"),
        ("http://p:1", "http://p:1"),
        ("http://mcp", "http://mcp"),
        ("http://p:1/mcp2", "http://p:1/mcp2"),
    ],
)
async def test_the_endpoint_of_a_native_provider_is_sent_without_mcp(replicas: Pair, endpoint: str, sent: str) -> None:
    """The SDKs append `/mcp` to each endpoint."""
    expect_success(
        await replicas[0].post("/agents", json={"id": "plain", "endpoint": endpoint, "capabilities": [{"name": "c"}]})
    )
    await replicas[0].post("/heartbeat", json={"agent_id": "plain"})

    response = await post(replicas[1], "me-1", tool("f", "x", "c"))

    assert response["dependencies_resolved"]["f"][0]["endpoint"] == sent
    rows = (await replicas[1].get("/agents", params={"agent_id": "me-1"})).json()["agents"]
    assert rows[0]["dependency_resolutions"][0]["endpoint"] == sent


async def test_warnings_are_texts(replicas: Pair) -> None:
    """As upstream sends them; a registration from this host may name a loopback address."""
    assert "warnings" not in await post(replicas[0], "a-1")
    assert (await post(replicas[0], "b-1", http_host="0.0.0.0"))["warnings"] == [  # noqa: S104  nothing is bound
        "http_host: callers cannot connect to an unspecified address; register a host name or an address of the agent"
    ]
    await post(replicas[0], "a-1", http_host="other")

    (warning,) = (await post(replicas[1], "a-1"))["warnings"]

    assert warning.startswith("id: is registered alternately with the endpoints http://other:9000 and http://127.0.0.1")


async def test_a_loopback_host_of_another_machine_is_reported(replicas: Pair) -> None:
    """The balancer reports the address of the sender."""
    sent = registration("a-1", http_host="localhost")

    response = await replicas[0].post("/heartbeat", json=sent, headers={"x-forwarded-for": "10.0.0.9, 10.0.0.1"})

    assert "callers cannot connect to a loopback address" in expect_success(response)["warnings"][0]


async def test_a_rejected_agent_is_not_registered(replicas: Pair) -> None:
    """The error has status 200, because the SDK retries all others; the other agent of the cycle stays registered."""
    await post(replicas[0], "a-1", tool("f", "a", required("b")))

    response = await replicas[1].post("/heartbeat", json=registration("b-1", tool("f", "b", required("a"))))

    assert response.status_code == 200
    body = response.json()
    assert (body["status"], body["message"]) == (
        "error",
        "required dependency cycle: default/b → default/a → default/b",
    )
    assert [await head(client, "b-1") for client in replicas] == [410, 410]
    assert [await head(client, "a-1") for client in replicas] == [200, 200]
    await post(replicas[1], "c-1", tool("f", "c", required("a")))


async def test_an_invalid_registration_is_a_400(replicas: Pair) -> None:
    """In the form of mcp-mesh: without an id, and with a wrong type. What is not an object has no format."""
    for content, error in (
        (b'{"name":"z"}', "agent_id is required"),
        (b'{"agent_id":"a","http_port":"80"}', "Invalid registration: Expected `int | null`"),
    ):
        response = await replicas[0].post("/heartbeat", content=content, headers={"content-type": "application/json"})
        assert response.status_code == 400
        body = response.json()
        assert body.keys() == {"error", "timestamp"}
        assert body["error"].startswith(error)
        assert datetime.fromisoformat(body["timestamp"]).tzinfo is not None
    for content in (b"{", b"[1]"):
        response = await replicas[0].post("/heartbeat", content=content, headers={"content-type": "application/json"})
        expect_error(response, 400, "malformed_request")


async def test_a_heartbeat_of_the_other_format_cannot_change_an_mcpmesh_agent(replicas: Pair) -> None:
    """Changes require a full registration; a heartbeat without changes gets a response in the format of the agent."""
    await post(replicas[0], "a-1", tool("f", "a", "c"))

    plain = expect_success(await replicas[1].post("/heartbeat", json={"agent_id": "a-1"}))
    rejected = await replicas[1].post("/heartbeat", json={"agent_id": "a-1", "metadata": {"endpoint": "http://b:1"}})

    assert providers(plain) == [""]
    assert [detail["field"] for detail in expect_error(rejected, 422, "validation_failed")["details"]] == ["metadata"]
    assert [await head(client, "a-1") for client in replicas] == [200, 200]


@contextlib.contextmanager
def paused(server: RedisServer) -> Iterator[None]:
    """Freeze a server: its sockets stay open, and it sends no responses."""
    server.pause()
    try:
        yield
    finally:
        server.resume()


async def test_healthy_agents_are_accepted_while_the_store_is_frozen(dedicated_redis: RedisServer) -> None:
    """After an error the SDK sends five times as many heartbeats; an unknown agent gets a 503."""
    async with in_process_registry(dedicated_redis.url) as client:
        for number in range(20):
            await post(client, f"a-{number}", tool("f", "x", "c"))
        with paused(dedicated_redis):
            responses = await asyncio.gather(*(head_at_once(client, f"a-{number}") for number in range(20)))
            unknown = await head_at_once(client, "unknown")

        assert responses == [200] * 20
        assert unknown == 503
        await async_wait_until(lambda: _is_accepted(client), description="the store responds again")


async def test_unknown_agents_get_410_while_the_store_is_slow(redis_url: str) -> None:
    """A 503 would make the SDK send five times as many heartbeats to the slow store."""
    async with FaultyTcpProxy(redis_url) as proxy, in_process_registry(proxy.url) as client:
        proxy.delay_s = 0.05
        responses = await asyncio.gather(*(head_at_once(client, f"unknown-{number}") for number in range(100)))
        proxy.delay_s = 0

    assert set(responses) == {410}


async def test_a_frozen_store_does_not_make_an_agent_fetch_again(dedicated_redis: RedisServer) -> None:
    """The agent fetched from another replica; a second 202 would send it to a store that returns 503."""
    async with in_process_registry(dedicated_redis.url) as one, in_process_registry(dedicated_redis.url) as other:
        await post(one, "me-1", tool("f", "x", "c"))
        await post(other, "p-1", tool("g", "c"))
        await wait_for_full_heartbeat_request(one, "me-1")
        assert providers(await post(other, "me-1", tool("f", "x", "c"))) == ["p-1"]

        with paused(dedicated_redis):
            assert [await head_at_once(client, "me-1") for client in (one, other)] == [200, 200]


async def _is_accepted(client: httpx2.AsyncClient) -> bool:
    return await head_at_once(client, "a-0") == 200


async def test_a_heartbeat_with_an_early_response_is_stored_later(dedicated_redis: RedisServer) -> None:
    """An agent that got a 200 from a slow store must not be degraded."""
    async with in_process_registry(dedicated_redis.url) as client, _raw_client(dedicated_redis) as redis_client:
        await post(client, "a-1")
        redis_client.zadd("{mesh}:heartbeats", {"a-1": 1})
        with paused(dedicated_redis):
            assert [await head_at_once(client, "a-1") for _ in range(3)] == [200, 200, 200]

        await async_wait_until(
            lambda: (redis_client.zscore("{mesh}:heartbeats", "a-1") or 0) > 1, description="it counts"
        )


@contextlib.asynccontextmanager
async def _raw_client(server: RedisServer) -> AsyncIterator[Any]:
    with redis.Redis.from_url(server.url, decode_responses=True) as redis_client:
        yield redis_client


async def test_no_pair_of_simultaneous_registrations_is_lost(redis_url: str) -> None:
    """200 consumers and providers register on two replicas.

    Each consumer is resolved, or gets a 202 at its next heartbeat. Upstream loses 7 to 19 of them for good.
    """
    with Replica(redis_url) as one, Replica(redis_url) as other:
        limits = httpx2.Limits(max_connections=20)
        async with (
            httpx2.AsyncClient(base_url=one.url, timeout=REQUEST_TIMEOUT_S, limits=limits) as left,
            httpx2.AsyncClient(base_url=other.url, timeout=REQUEST_TIMEOUT_S, limits=limits) as right,
        ):
            for at in range(0, 200, 20):
                pairs = [f"{number}" for number in range(at, at + 20)]
                responses = await asyncio.gather(
                    *(post(left, f"me-{each}", tool("f", f"x{each}", f"c{each}")) for each in pairs),
                    *(post(right, f"p-{each}", tool("g", f"c{each}")) for each in pairs),
                )
                for each, response in zip(pairs, responses, strict=False):
                    if providers(response) != [f"p-{each}"]:
                        for client in (left, right):
                            await wait_for_full_heartbeat_request(client, f"me-{each}")


@pytest.mark.parametrize("marker", MARKER_FIELDS)
async def test_any_marker_field_identifies_the_format(
    replicas: tuple[httpx2.AsyncClient, httpx2.AsyncClient], marker: str
) -> None:
    """Its value does not matter; `status` and `metadata` alone are a native heartbeat, here of an unknown agent."""
    client, _ = replicas
    response = await client.post("/heartbeat", json={"agent_id": "a", marker: None})
    assert response.status_code != 404, response.text
    response = await client.post("/heartbeat", json={"agent_id": "b", "status": "healthy", "metadata": {marker: 1}})
    expect_error(response, 404, "unknown_agent")
