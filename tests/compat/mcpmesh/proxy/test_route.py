"""Calls passed on to agents: as they come, to nobody but agents, and never longer than they may take."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx2
import pytest

from registry.compat.mcpmesh.proxy import route
from registry.config.types import Secret
from tests.support.fake_agent import OK_RESPONSE, SSE_RESPONSE_HEAD, FakeAgent, ReceivedRequest, fake_agent
from tests.support.http_calls import a_registration
from tests.support.in_process_registry import in_process_registry
from tests.support.polling import async_wait_until
from tests.support.ports import free_port
from tests.support.raw_http import open_raw_connection
from tests.support.served_registry import ServedRegistry, served_registry

CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
EVENT = b'event: message\ndata: {"ok":true}\n\n'


async def registered(client: httpx2.AsyncClient, stand_in: FakeAgent, agent_id: str = "stand-in-1") -> str:
    """Register the stand-in; return where calls to it are passed on."""
    answer = await client.post("/heartbeat", json=stand_in.registration(agent_id))
    assert answer.json()["status"] == "success", answer.text
    host = f"[{stand_in.host}]" if ":" in stand_in.host else stand_in.host
    return f"/proxy/{host}:{stand_in.port}/mcp"


def refused(answer: httpx2.Response, status: int) -> str:
    """Return the sentence of a refusal in the form mesh clients know."""
    assert answer.status_code == status, answer.text
    assert answer.json().keys() == {"error", "timestamp"}
    return str(answer.json()["error"])


@pytest.fixture
async def served(redis_url: str) -> AsyncIterator[ServedRegistry]:
    """Provide a registry behind a real socket."""
    async with served_registry(redis_url) as served:
        yield served


async def test_a_call_reaches_the_agent_and_its_answer_comes_back(client: httpx2.AsyncClient) -> None:
    """By POST with its body, and by GET; below `/mcp` too."""
    async with fake_agent() as agent:
        path = await registered(client, agent)

        answers = [
            await client.post(path, json=CALL),
            await client.post(f"{path}/deeper/", json=CALL),
            await client.get(path),
        ]

    assert [answer.json() for answer in answers] == [{"ok": True}] * 3
    assert [(each.method, each.path) for each in agent.requests] == [
        ("POST", "/mcp"),
        ("POST", "/mcp/deeper/"),
        ("GET", "/mcp"),
    ]
    assert agent.requests[0].body == answers[0].request.content
    assert agent.requests[0].headers["host"] == f"127.0.0.1:{agent.port}"


@pytest.mark.parametrize("host", ["127.0.0.1", "stand-in-1", "stand-in"], ids=["host", "id", "name"])
async def test_an_agent_is_found_by_what_it_announced_by_its_id_and_by_its_name(
    client: httpx2.AsyncClient, host: str
) -> None:
    """With its own port; what is called is where it said it answers, whatever it was found by."""
    async with fake_agent() as agent:
        await registered(client, agent)

        answer = await client.post(f"/proxy/{host}:{agent.port}/mcp", json=CALL)

    assert answer.json() == {"ok": True}


async def test_an_agent_is_found_by_an_address_of_the_newer_kind(client: httpx2.AsyncClient) -> None:
    """In brackets, as in any URL."""
    async with fake_agent(host="::1") as agent:
        path = await registered(client, agent)

        assert (await client.post(path, json=CALL)).json() == {"ok": True}


async def test_of_several_with_one_name_and_port_a_healthy_one_is_called(client: httpx2.AsyncClient) -> None:
    """Replicas of an agent have the same of both where each has an address of its own."""
    async with fake_agent() as pending, fake_agent(host="127.0.0.2", port=pending.port) as healthy:
        endpoint = f"http://127.0.0.1:{pending.port}"
        await client.post("/agents", json=a_registration("twin-1", name="twin", endpoint=endpoint))
        await client.post("/heartbeat", json=healthy.registration("twin-2"))

        answer = await client.post(f"/proxy/twin:{pending.port}/mcp", json=CALL)

    assert answer.json() == {"ok": True}
    assert (len(pending.requests), len(healthy.requests)) == (0, 1)


async def test_an_agent_of_any_status_and_form_is_called(client: httpx2.AsyncClient) -> None:
    """One that was never heard may answer nevertheless; it may have said where by a whole URL."""
    async with fake_agent() as agent:
        endpoint = f"http://127.0.0.1:{agent.port}/mcp"
        await client.post("/agents", json=a_registration("Old_One", endpoint=endpoint))

        answer = await client.post(f"/proxy/Old_One:{agent.port}/mcp", json=CALL)

    assert answer.json() == {"ok": True}
    assert agent.requests[0].path == "/mcp"


@pytest.mark.parametrize(
    "target",
    [
        "",
        "x",
        "{host}",
        "{host}/mcp",
        "{host}:{port}",
        "{host}:{port}/",
        "{host}:{port}/other",
        "{host}:{port}/mcpx",
        "{host}:{port}//mcp",
        "{host}:{port}/mcp//x",
        "{host}:{port}/mcp/../admin",
        "{host}:{port}/mcp/./x",
        "{host}:{port}/mcp/..",
        "{host}:{port}/mcp%2f..%2fadmin",
        "{host}:{port}/mcp/%2e%2e/admin",
        "{host}:{port}/mcp/%252e%252e/admin",
        "{host}:{port}/mcp/x%00",
        "{host}:{port}/mcp/x;y",
        "{host}:{port}/mcp\\..\\admin",
        "{host}:{port}/mcp?to=http://elsewhere",
        "{host}:{port}%23/mcp",
        "{host}:{port}%3f/mcp",
        "{host}:0{port}/mcp",
        "{host}:0/mcp",
        "{host}:99999/mcp",
        "{host}:{port}:80/mcp",
        "user@{host}:{port}/mcp",
        "elsewhere%23@{host}:{port}/mcp",
        "http://{host}:{port}/mcp",
        "[{host}:{port}/mcp",
        "[::1%25eth0]:{port}/mcp",
        "%e1%b8%a7ost:{port}/mcp",
    ],
)
async def test_what_is_no_plain_target_is_refused(served: ServedRegistry, target: str) -> None:
    """Whatever parts of a URL it is made of, packed once, twice or not at all; nobody is called."""
    async with fake_agent() as agent, open_raw_connection(served.url) as line:
        await registered(served.client, agent)
        path = f"/proxy/{target}".format(host="127.0.0.1", port=agent.port)

        line.send_raw("POST", path, b"{}")
        answer = await line.read_response()

    assert (answer.status, agent.requests) == (400, [])
    assert "/proxy/{host}:{port}/mcp" in answer.body["error"]


@pytest.mark.parametrize(
    "target", ["localhost:{port}", "127.0.0.1:{other}", "2130706433:{port}", "[::1]:{port}", "stand-in:{other}", "x:1"]
)
async def test_who_is_no_agent_is_never_called(client: httpx2.AsyncClient, target: str) -> None:
    """Another name for the same machine, another port of it, an agent that is gone: none of them was announced."""
    async with fake_agent() as agent, fake_agent() as other:
        await registered(client, agent)
        asked = target.format(port=agent.port, other=other.port)

        sentence = refused(await client.post(f"/proxy/{asked}/mcp", json=CALL), 403)

    assert sentence == f"Target host '{asked}' is not a registered agent"
    assert (agent.requests, other.requests) == ([], [])


async def test_an_agent_that_left_is_not_called(client: httpx2.AsyncClient) -> None:
    """At once, although something may still listen there."""
    async with fake_agent() as agent:
        path = await registered(client, agent)
        await client.delete("/agents/stand-in-1")

        refused(await client.post(path, json=CALL), 403)

    assert agent.requests == []


async def test_an_agent_at_no_address_is_not_called_and_hides_no_other(client: httpx2.AsyncClient) -> None:
    """What is announced with a colon in it is taken for an address, and need not be one."""
    async with fake_agent() as agent:
        await client.post("/heartbeat", json=agent.registration("odd-1", http_host="a:b"))
        path = await registered(client, agent)

        refused(await client.post(f"/proxy/odd-1:{agent.port}/mcp", json=CALL), 403)
        assert (await client.post(path, json=CALL)).json() == {"ok": True}


async def test_an_agent_without_a_port_is_not_called(client: httpx2.AsyncClient) -> None:
    """It speaks with its parent process alone."""
    await client.post("/heartbeat", json=FakeAgent(port=0).registration())

    refused(await client.post("/proxy/stand-in-1:80/mcp", json=CALL), 403)


async def test_a_redirect_is_an_answer_and_is_not_followed(client: httpx2.AsyncClient) -> None:
    """An agent cannot send the registry anywhere. The one that this replaces follows."""
    async with fake_agent() as secret:

        async def redirect(_asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
            where = f"http://127.0.0.1:{secret.port}/mcp".encode()
            writer.write(b"HTTP/1.1 307 Elsewhere\r\nlocation: %s\r\ncontent-length: 0\r\n\r\n" % where)

        async with fake_agent(redirect) as agent:
            path = await registered(client, agent)

            answer = await client.post(path, json=CALL)

    assert (answer.status_code, secret.requests) == (307, [])


async def test_only_headers_that_are_the_calls_own_are_passed_on(client: httpx2.AsyncClient) -> None:
    """Who calls on whose behalf, traces, and what the protocol needs; neither tokens nor cookies."""
    passed = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "x-trace-id": "t",
        "x-parent-span": "s",
        "x-mesh-timeout": "5",
        "x-mesh-job-id": "j",
        "x-mesh-calling-agent": "c",
        "mcp-session-id": "m",
        "mcp-protocol-version": "2025-06-18",
    }
    dropped = {"authorization": "Bearer x", "cookie": "a=b", "x-other": "1", "x-request-id": "r", "user-agent": "me"}
    async with fake_agent() as agent:
        path = await registered(client, agent)

        await client.post(path, json=CALL, headers=passed | dropped)

    own = {"host", "content-length", "accept-encoding"}
    assert {name: value for name, value in agent.requests[0].headers.items() if name not in own} == passed
    assert agent.requests[0].headers["accept-encoding"] == "identity"


async def test_further_headers_are_passed_on_where_that_is_set(redis_url: str) -> None:
    """By name, or by how names begin; never what speaks of the connection."""
    named = ("x-request-id", "x-tenant-*", "authorization", "host", "con*", "cookie")
    sent = {"X-Request-Id": "r", "X-Tenant-Name": "n", "Authorization": "Bearer x", "cookie": "a=b", "x-other": "1"}
    async with fake_agent() as agent, in_process_registry(redis_url, propagate_headers=named) as client:
        path = await registered(client, agent)

        await client.post(path, json=CALL, headers=sent)

    seen = agent.requests[0].headers
    assert (seen["x-request-id"], seen["x-tenant-name"], seen["authorization"]) == ("r", "n", "Bearer x")
    assert not {"x-other", "cookie", "connection"} & seen.keys()
    assert seen["host"] == f"127.0.0.1:{agent.port}"


async def test_the_registrys_own_token_is_never_passed_on(redis_url: str) -> None:
    """Whoever has it may do anything here, and no agent should."""
    fields = {"propagate_headers": ("authorization",), "auth_token": Secret("s3cret")}
    async with fake_agent() as agent, in_process_registry(redis_url, **fields) as client:
        client.headers["authorization"] = "Bearer s3cret"
        path = await registered(client, agent)

        assert (await client.post(path, json=CALL)).status_code == 200
        assert (await client.post(path, json=CALL, headers={"authorization": ""})).status_code == 401

    assert ["authorization" in asked.headers for asked in agent.requests] == [False]


async def test_the_answers_headers_come_back_but_for_those_of_the_connection(client: httpx2.AsyncClient) -> None:
    """Sessions of the protocol do; cookies would be taken for the registry's."""

    async def reply(_asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 200 OK\r\nMcp-Session-Id: m\r\nX-Own: 1\r\nSet-Cookie: a=b\r\nServer: me\r\nX-Hop: 1\r\n"
        writer.write(head + b"Connection: keep-alive, x-hop\r\nX-Request-Id: theirs\r\ncontent-length: 2\r\n\r\n{}")

    async with fake_agent(reply) as agent:
        path = await registered(client, agent)

        answer = await client.post(path, json=CALL)

    assert (answer.headers["mcp-session-id"], answer.headers["x-own"]) == ("m", "1")
    assert not {"set-cookie", "server", "x-hop", "connection"} & answer.headers.keys()
    assert "theirs" not in answer.headers.get_list("x-request-id")


async def test_one_agents_cookie_is_not_sent_to_the_next(client: httpx2.AsyncClient) -> None:
    """There is no jar."""

    async def reply(_asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}")

    async with fake_agent(reply) as agent:
        path = await registered(client, agent)
        for _ in range(2):
            await client.post(path, json=CALL)

    assert all("cookie" not in asked.headers for asked in agent.requests)


async def test_events_come_back_one_by_one(served: ServedRegistry) -> None:
    """Each when the agent has sent it, not when the answer is whole."""
    more = asyncio.Event()

    async def reply(_asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_RESPONSE_HEAD + EVENT)
        await more.wait()
        writer.write(EVENT)
        await writer.drain()
        writer.close()

    async with fake_agent(reply) as agent:
        path = await registered(served.client, agent)
        async with served.client.stream("POST", path, json=CALL) as answer:
            parts = answer.aiter_raw()
            first = await anext(parts)
            more.set()
            rest = b"".join([part async for part in parts])

    assert (first, rest) == (EVENT, EVENT)
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["x-accel-buffering"] == "no"


async def test_a_body_goes_on_part_by_part_and_stays_as_it_is(served: ServedRegistry) -> None:
    """Also one of which nobody said how long it is."""

    async def parts() -> AsyncIterator[bytes]:
        for at in range(20):
            yield b"%d " % at * 10_000

    async with fake_agent() as agent:
        path = await registered(served.client, agent)

        answer = await served.client.post(path, content=parts(), headers={"content-type": "application/json"})

    assert answer.status_code == 200
    assert agent.requests[0].body == b"".join([b"%d " % at * 10_000 for at in range(20)])


@pytest.mark.parametrize("told", [True, False], ids=["told", "not told"])
async def test_a_body_that_is_too_large_is_refused(
    served: ServedRegistry, monkeypatch: pytest.MonkeyPatch, *, told: bool
) -> None:
    """Before it is sent where its length is told, else once it is over; the agent sees that it is not whole."""
    monkeypatch.setattr(route, "MAX_BODY_BYTES", 1000)

    async def parts() -> AsyncIterator[bytes]:
        yield b"x" * 600
        yield b"x" * 600

    async with fake_agent() as agent:
        path = await registered(served.client, agent)

        answer = await served.client.post(path, content=b"x" * 1200 if told else parts())

    assert (answer.status_code, answer.json()["error"]) == (413, "request_too_large")
    assert agent.requests == []


async def test_a_stream_that_takes_too_long_ends_in_a_comment(served: ServedRegistry) -> None:
    """Its reader knows that it was cut, and by whose budget."""

    async def reply(_asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_RESPONSE_HEAD + EVENT)

    async with fake_agent(reply) as agent:
        path = await registered(served.client, agent)

        answer = await served.client.post(path, json=CALL, headers={"x-mesh-timeout": "1"})

    assert answer.content == EVENT + b": mesh-proxy-timeout budget=1s\n\n"


async def test_an_event_that_is_cut_short_is_not_made_whole(served: ServedRegistry) -> None:
    """No empty line ends it, so that no reader takes it for an event."""

    async def reply(_asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_RESPONSE_HEAD + EVENT + b'data: {"ok"')

    async with fake_agent(reply) as agent:
        path = await registered(served.client, agent)

        answer = await served.client.post(path, json=CALL, headers={"x-mesh-timeout": "1"})

    assert answer.content == EVENT + b'data: {"ok"\n: mesh-proxy-timeout budget=1s\n'


async def test_an_answer_that_does_not_begin_in_time_is_a_502(client: httpx2.AsyncClient) -> None:
    """It says how long was waited."""

    async def silence(_asked: ReceivedRequest, _writer: asyncio.StreamWriter) -> None:
        pass

    async with fake_agent(silence) as agent:
        path = await registered(client, agent)

        sentence = refused(await client.post(path, json=CALL, headers={"x-mesh-timeout": "1"}), 502)

    assert sentence == "Failed to reach target agent: it did not answer within 1s"


async def test_an_agent_that_cannot_be_reached_is_a_502(client: httpx2.AsyncClient) -> None:
    """Nothing of this machine is told."""
    path = await registered(client, FakeAgent(port=free_port()))

    sentence = refused(await client.post(path, json=CALL), 502)

    assert sentence == "Failed to reach target agent: no connection could be made"


@pytest.mark.parametrize("sent", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-le"])
async def test_an_agent_that_speaks_no_http_is_a_502(client: httpx2.AsyncClient, sent: bytes) -> None:
    """Whatever it says before it hangs up."""

    async def reply(_asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        writer.close()

    async with fake_agent(reply) as agent:
        path = await registered(client, agent)

        assert refused(await client.post(path, json=CALL), 502) == "Failed to reach target agent: the connection broke"


async def test_an_answer_that_breaks_off_is_never_taken_for_whole(served: ServedRegistry) -> None:
    """The connection is dropped, as the agent dropped it."""

    async def reply(_asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n"
        )
        writer.close()

    async with fake_agent(reply) as agent:
        path = await registered(served.client, agent)

        with pytest.raises(httpx2.TransportError):
            await served.client.post(path, json=CALL)


@pytest.mark.parametrize("answering", [True, False], ids=["while it answers", "before"])
async def test_a_caller_that_leaves_takes_the_call_back(served: ServedRegistry, *, answering: bool) -> None:
    """The agent sees its connection end, and need not go on for nobody."""

    async def reply(_asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_RESPONSE_HEAD + EVENT if answering else b"")

    async with fake_agent(reply) as agent:
        path = await registered(served.client, agent)
        async with open_raw_connection(served.url) as line:
            line.send("POST", path, CALL)
            await async_wait_until(lambda: agent.requests, description="the agent is asked")

        await async_wait_until(lambda: agent.disconnects == 1, description="the agent's connection ends")


async def test_a_caller_that_leaves_in_the_middle_of_its_body_takes_the_call_back(served: ServedRegistry) -> None:
    """The agent gets no whole request."""
    async with fake_agent() as agent:
        path = await registered(served.client, agent)
        async with open_raw_connection(served.url) as line:
            line._writer.write(f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf".encode())
            await line._writer.drain()
            await async_wait_until(lambda: served.registry.proxy.active_calls == 1, description="the call is under way")

        await async_wait_until(lambda: served.registry.proxy.active_calls == 0, description="it is taken back")

    assert agent.requests == []


async def test_only_so_many_calls_are_passed_on_at_a_time(
    served: ServedRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next is told to try again, and a place is free once a call is over."""
    monkeypatch.setattr(route, "MAX_CALLS", 1)
    more = asyncio.Event()

    async def reply(_asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await more.wait()
        writer.write(OK_RESPONSE)

    async with fake_agent(reply) as agent:
        path = await registered(served.client, agent)
        first = asyncio.create_task(served.client.post(path, json=CALL))
        await async_wait_until(lambda: agent.requests, description="the agent is asked")

        second = await served.client.post(path, json=CALL)
        more.set()

        assert refused(second, 503) == "This replica passes 100 calls on already; try again"
        assert second.headers["retry-after"] == "1"
        assert (await first).json() == {"ok": True}
        assert (await served.client.post(path, json=CALL)).json() == {"ok": True}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b"", b"This replica is going down; try another one"),
        (SSE_RESPONSE_HEAD + EVENT, b": mesh-proxy-shutdown\n\n\r\n0\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", b"\r\n\r\n{"),
    ],
    ids=["nothing yet", "events", "half an answer"],
)
async def test_a_replica_that_stops_ends_the_calls_it_passes_on(
    redis_url: str, caplog: pytest.LogCaptureFixture, said: bytes, expected: bytes
) -> None:
    """After two seconds, however long the agent would take, and each caller sees what it has not got."""

    async def reply(_asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(said)

    async with fake_agent(reply) as agent, contextlib.AsyncExitStack() as callers:
        async with served_registry(redis_url) as served:
            line = await callers.enter_async_context(open_raw_connection(served.url))
            line.send("POST", await registered(served.client, agent), CALL)
            await async_wait_until(lambda: agent.requests, description="the agent is asked")

        got = await line._reader.read()
        await async_wait_until(lambda: agent.disconnects == 1, description="the agent's connection ends")

    assert expected in got
    assert caplog.records == []


async def test_a_registry_that_is_passive_says_how_to_call(redis_url: str) -> None:
    """By the setting's name."""
    async with fake_agent() as agent, in_process_registry(redis_url, proxy=False) as client:
        path = await registered(client, agent)

        sentence = refused(await client.post(path, json=CALL), 403)

    assert "REGISTRY_PROXY" in sentence
    assert agent.requests == []


@pytest.mark.parametrize("method", ["HEAD", "DELETE", "PUT"])
async def test_other_methods_are_not_passed_on(client: httpx2.AsyncClient, method: str) -> None:
    """The protocol's calls are POST and GET."""
    async with fake_agent() as agent:
        path = await registered(client, agent)

        answer = await client.request(method, path)

    assert (answer.status_code, agent.requests) == (405, [])


@pytest.mark.parametrize(
    ("asked", "seconds"), [("30", 30), ("600", 600), ("601", 600), ("99999999999", 60), ("0", 60), ("", 60), ("1s", 60)]
)
def test_a_call_says_how_long_it_may_take(asked: str, seconds: int) -> None:
    """Whole seconds, at most ten minutes; a minute where it says nothing that can be read."""
    assert route._timeout_seconds([(b"x-mesh-timeout", asked.encode())]) == seconds


async def test_who_does_not_read_is_not_waited_for(served: ServedRegistry) -> None:
    """Once its time is over the call is, too: a hundred such callers kept a replica from passing anything on."""

    async def flood(_asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_RESPONSE_HEAD)
        while True:
            writer.write(EVENT * 1000)
            await writer.drain()

    async with fake_agent(flood) as agent:
        path = await registered(served.client, agent)
        where = httpx2.URL(served.url)
        _, writer = await asyncio.open_connection(where.host, where.port, limit=1024)
        writer.write(f"POST {path} HTTP/1.1\r\nhost: x\r\nx-mesh-timeout: 1\r\ncontent-length: 0\r\n\r\n".encode())

        await async_wait_until(lambda: served.registry.proxy.active_calls == 1, description="the call is under way")
        await async_wait_until(lambda: served.registry.proxy.active_calls == 0, description="the call is over")
        writer.transport.abort()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"204 No Content\r\ncontent-length: 2\r\n\r\nhi", 204),
        (b"304 Not Modified\r\ncontent-length: 20\r\n\r\n", 304),
        (b"200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", 200),
        (b"600 Odd\r\ncontent-length: 2\r\n\r\nhi", 502),
        (b"999 Odd\r\ncontent-length: 2\r\n\r\nhi", 502),
    ],
    ids=["no content", "not modified", "two lengths", "600", "999"],
)
async def test_an_odd_answer_of_an_agent_is_no_error_of_the_registry(
    served: ServedRegistry, caplog: pytest.LogCaptureFixture, sent: bytes, status: int
) -> None:
    """A length that is another one's, a status there is none of: each ended the connection and filled the log."""

    async def reply(_asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 " + sent)

    async with fake_agent(reply) as agent:
        path = await registered(served.client, agent)

        answer = await served.client.post(path, json=CALL)

    assert (answer.status_code, answer.content if status == 200 else b"hi") == (status, b"hi")
    assert caplog.records == []


async def test_what_an_agent_answers_is_no_page_of_the_registry(client: httpx2.AsyncClient) -> None:
    """To a browser it comes from the registry: it may run nothing there, and settle nothing for its address."""
    said = (
        b"strict-transport-security: max-age=9\r\nclear-site-data: *\r\nalt-svc: h2=x\r\ncontent-security-policy: x\r\n"
    )

    async def reply(_asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n" + said + b"content-length: 2\r\n\r\nhi")

    async with fake_agent(reply) as agent:
        answer = await client.get(await registered(client, agent))

    assert answer.headers.get_list("content-security-policy") == ["sandbox"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not {"strict-transport-security", "clear-site-data", "alt-svc"} & answer.headers.keys()


async def test_an_agent_that_does_not_answer_leaves_places_for_the_others(
    served: ServedRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that hung took every place a replica has, for ten minutes each."""
    monkeypatch.setattr(route, "MAX_CALLS_PER_AGENT", 1)
    more = asyncio.Event()

    async def hang(_asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await more.wait()
        writer.write(OK_RESPONSE)

    async with fake_agent(hang) as hanging, fake_agent() as other:
        path = await registered(served.client, hanging)
        elsewhere = await registered(served.client, other, "other-1")
        first = asyncio.create_task(served.client.post(path, json=CALL))
        await async_wait_until(lambda: hanging.requests, description="the agent is asked")

        assert "passes 50 calls on to this agent already" in refused(await served.client.post(path, json=CALL), 503)
        assert (await served.client.post(elsewhere, json=CALL)).json() == {"ok": True}
        more.set()
        assert (await first).json() == {"ok": True}
        assert (await served.client.post(path, json=CALL)).json() == {"ok": True}
