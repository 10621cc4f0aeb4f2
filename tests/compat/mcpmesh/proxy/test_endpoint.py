"""The proxy: calls are passed on unchanged, only to registered agents, and end after a timeout."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx2
import pytest

from registry.compat.mcpmesh.proxy import endpoint
from registry.config.value_types import Secret
from tests.support.fake_agent import OK_RESPONSE, SSE_RESPONSE_HEAD, FakeAgent, ReceivedRequest, fake_agent
from tests.support.http_calls import JSON_HEADERS, a_registration, expect_error
from tests.support.in_process_registry import in_process_registry
from tests.support.polling import async_wait_until
from tests.support.ports import free_port
from tests.support.raw_http import open_raw_connection
from tests.support.served_registry import ServedRegistry, served_registry

CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
UNREACHABLE = (
    "Failed to reach target agent: its address is not allowed, it refused the connection, or it did not respond in time"
)
HALF_A_CALL = "POST %s HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\nhalf"
EVENT = b'event: message\ndata: {"ok":true}\n\n'


async def register(client: httpx2.AsyncClient, fake: FakeAgent, agent_id: str = "fake-agent-1") -> str:
    """Register the agent and return the proxy path to it."""
    response = await client.post("/heartbeat", json=fake.registration(agent_id))
    assert response.json()["status"] == "success", response.text
    host = f"[{fake.host}]" if ":" in fake.host else fake.host
    return f"/proxy/{host}:{fake.port}/mcp"


def error_message(response: httpx2.Response, status: int) -> str:
    """Check the status, the code and the format of an error, and return its message."""
    code = {400: "malformed_request", 403: "forbidden", 405: "method_not_allowed", 502: "agent_unreachable"}
    return str(expect_error(response, status, code.get(status, "not_ready"))["message"])


async def test_a_call_reaches_the_agent_and_its_response_comes_back(client: httpx2.AsyncClient) -> None:
    """POST is passed on with its body, GET without one, also below `/mcp`."""
    async with fake_agent() as agent:
        path = await register(client, agent)

        responses = [
            await client.post(path, json=CALL),
            await client.post(f"{path}/deeper/", json=CALL),
            await client.get(path),
            await client.post(f"{path}/mcp", json=CALL),
        ]

    assert [response.json() for response in responses] == [{"ok": True}] * 4
    assert [(each.method, each.path) for each in agent.requests] == [
        ("POST", "/mcp"),
        ("POST", "/mcp/deeper/"),
        ("GET", "/mcp"),
        # meshctl appends /mcp to the endpoint, which has it already.
        ("POST", "/mcp"),
    ]
    assert agent.requests[0].body == responses[0].request.content
    assert agent.requests[0].headers["host"] == f"127.0.0.1:{agent.port}"


@pytest.mark.parametrize("host", ["127.0.0.1", "fake-agent-1", "fake-agent"], ids=["host", "id", "name"])
async def test_an_agent_is_found_by_its_host_its_id_and_its_name(client: httpx2.AsyncClient, host: str) -> None:
    """The port must be its own; the call always goes to the registered endpoint."""
    async with fake_agent() as agent:
        await register(client, agent)

        response = await client.post(f"/proxy/{host}:{agent.port}/mcp", json=CALL)

    assert response.json() == {"ok": True}


async def test_an_agent_is_found_by_an_ipv6_address(client: httpx2.AsyncClient) -> None:
    """The address is in brackets, as in any URL."""
    async with fake_agent(host="::1") as agent:
        path = await register(client, agent)

        assert (await client.post(path, json=CALL)).json() == {"ok": True}


async def test_a_healthy_agent_of_several_with_one_name_and_port_is_called(client: httpx2.AsyncClient) -> None:
    """Replicas of an agent, each with its own address, share name and port."""
    async with fake_agent() as pending, fake_agent(host="127.0.0.2", port=pending.port) as healthy:
        endpoint = f"http://127.0.0.1:{pending.port}"
        await client.post("/agents", json=a_registration("twin-1", name="twin", endpoint=endpoint))
        await client.post("/heartbeat", json=healthy.registration("twin-2"))

        response = await client.post(f"/proxy/twin:{pending.port}/mcp", json=CALL)

    assert response.json() == {"ok": True}
    assert (len(pending.requests), len(healthy.requests)) == (0, 1)


async def test_an_agent_of_any_status_and_format_is_called(client: httpx2.AsyncClient) -> None:
    """The agent is pending and registered its endpoint as a URL."""
    async with fake_agent() as agent:
        endpoint = f"http://127.0.0.1:{agent.port}/mcp"
        await client.post("/agents", json=a_registration("Old_One", endpoint=endpoint))

        response = await client.post(f"/proxy/Old_One:{agent.port}/mcp", json=CALL)

    assert response.json() == {"ok": True}
    assert agent.requests[0].path == "/mcp"


@pytest.mark.parametrize(
    "target",
    [
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
async def test_an_invalid_target_is_rejected(served: ServedRegistry, target: str) -> None:
    """The targets contain other parts of a URL, also percent-encoded; no agent is called."""
    async with fake_agent() as agent, open_raw_connection(served.url) as connection:
        await register(served.client, agent)
        path = f"/proxy/{target}".format(host="127.0.0.1", port=agent.port)

        connection.send_raw("POST", path, b"{}")
        response = await connection.read_response()

    assert (response.status, agent.requests) == (400, [])
    assert "/proxy/{host}:{port}/mcp" in response.body["message"]


@pytest.mark.parametrize("path", ["%6dcp", "mcp%2f..%2fadmin", "mcp/%2e%2e/admin", "mcp/%252e%252e/admin", "mcp/x%00"])
async def test_only_the_target_may_be_encoded(served: ServedRegistry, path: str) -> None:
    """Some HTTP clients encode the brackets of an IPv6 address; nothing after the target may be encoded."""
    async with fake_agent(host="::1") as agent, open_raw_connection(served.url) as connection:
        await register(served.client, agent)
        target = f"/proxy/%5B::1%5D:{agent.port}"

        connection.send_raw("POST", f"{target}/{path}", b"{}")
        assert (await connection.read_response()).status == 404
        connection.send_raw("POST", f"{target}/mcp", b"{}")
        assert (await connection.read_response()).status == 200

    assert [each.path for each in agent.requests] == ["/mcp"]


@pytest.mark.parametrize(
    "target",
    ["localhost:{port}", "127.0.0.1:{other}", "2130706433:{port}", "[::1]:{port}", "fake-agent:{other}", "x:1"],
)
async def test_an_unregistered_target_is_never_called(client: httpx2.AsyncClient, target: str) -> None:
    """The targets are other names and ports of the same machine, and an unknown agent."""
    async with fake_agent() as agent, fake_agent() as other:
        await register(client, agent)
        address = target.format(port=agent.port, other=other.port)

        message = error_message(await client.post(f"/proxy/{address}/mcp", json=CALL), 403)

    assert message == f"Target host '{address}' is not a registered agent"
    assert (agent.requests, other.requests) == ([], [])


async def test_a_deregistered_agent_is_not_called(client: httpx2.AsyncClient) -> None:
    """It is rejected at once, although a server may still listen there."""
    async with fake_agent() as agent:
        path = await register(client, agent)
        await client.delete("/agents/fake-agent-1")

        error_message(await client.post(path, json=CALL), 403)

    assert agent.requests == []


async def test_an_agent_with_an_invalid_address_is_not_called_and_hides_no_other(client: httpx2.AsyncClient) -> None:
    """A host with a colon is read as an IPv6 address, which this one is not."""
    async with fake_agent() as agent:
        await client.post("/heartbeat", json=agent.registration("odd-1", http_host="a:b"))
        path = await register(client, agent)

        error_message(await client.post(f"/proxy/odd-1:{agent.port}/mcp", json=CALL), 403)
        assert (await client.post(path, json=CALL)).json() == {"ok": True}


async def test_an_agent_without_a_port_is_not_called(client: httpx2.AsyncClient) -> None:
    """It is reachable for its parent process only."""
    await client.post("/heartbeat", json=FakeAgent(port=0).registration())

    error_message(await client.post("/proxy/fake-agent-1:80/mcp", json=CALL), 403)


async def test_a_redirect_is_returned_and_not_followed(client: httpx2.AsyncClient) -> None:
    """An agent cannot send the registry to another address; the upstream proxy follows redirects."""
    async with fake_agent() as secret:

        async def redirect(_request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
            where = f"http://127.0.0.1:{secret.port}/mcp".encode()
            writer.write(b"HTTP/1.1 307 Elsewhere\r\nlocation: %s\r\ncontent-length: 0\r\n\r\n" % where)

        async with fake_agent(redirect) as agent:
            path = await register(client, agent)

            response = await client.post(path, json=CALL)

    assert (response.status_code, secret.requests) == (307, [])


async def test_only_headers_of_the_call_are_passed_on(client: httpx2.AsyncClient) -> None:
    """They are the headers of mcp-mesh, traces and the MCP protocol, and neither tokens nor cookies."""
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
        path = await register(client, agent)

        await client.post(path, json=CALL, headers=passed | dropped)

    own = {"host", "content-length", "accept-encoding"}
    assert {name: value for name, value in agent.requests[0].headers.items() if name not in own} == passed
    assert agent.requests[0].headers["accept-encoding"] == "identity"


async def test_configured_headers_are_passed_on(redis_url: str) -> None:
    """They are named in full or by prefix; headers of the connection are never passed on."""
    named = ("x-request-id", "x-tenant-*", "authorization", "host", "con*", "cookie")
    sent = {"X-Request-Id": "r", "X-Tenant-Name": "n", "Authorization": "Bearer x", "cookie": "a=b", "x-other": "1"}
    async with fake_agent() as agent, in_process_registry(redis_url, propagate_headers=named) as client:
        path = await register(client, agent)

        await client.post(path, json=CALL, headers=sent)

    seen = agent.requests[0].headers
    assert (seen["x-request-id"], seen["x-tenant-name"], seen["authorization"]) == ("r", "n", "Bearer x")
    assert not {"x-other", "cookie", "connection"} & seen.keys()
    assert seen["host"] == f"127.0.0.1:{agent.port}"


async def test_the_token_of_the_registry_is_never_passed_on(redis_url: str) -> None:
    """It gives full access to the registry, which no agent should have."""
    fields = {"propagate_headers": ("authorization",), "auth_token": Secret("s3cret")}
    async with fake_agent() as agent, in_process_registry(redis_url, **fields) as client:
        client.headers["authorization"] = "Bearer s3cret"
        path = await register(client, agent)

        assert (await client.post(path, json=CALL)).status_code == 200
        assert (await client.post(path, json=CALL, headers={"authorization": ""})).status_code == 401

    assert ["authorization" in request.headers for request in agent.requests] == [False]


async def test_only_headers_of_the_response_itself_come_back(client: httpx2.AsyncClient) -> None:
    """T24: an agent opened the registry to every origin, asked for a password, and installed a service worker."""
    passed = {
        "content-type": "application/json",
        "content-length": "2",
        "content-encoding": "identity",
        "mcp-session-id": "m",
        "mcp-protocol-version": "2025-06-18",
        "x-mesh-job-id": "j",
        "x-accel-buffering": "no",
        "www-authenticate": 'Bearer realm="a, Basic b", scope=x',
    }
    dropped = {
        "access-control-allow-origin": "*",
        "service-worker-allowed": "/",
        "refresh": "0;url=http://elsewhere",
        "link": "<http://elsewhere>; rel=preload",
        "location": "/admin/drain",
        "set-cookie": "a=b",
        "server": "me",
        "x-own": "1",
        "x-mesh-hop": "1",
        "connection": "keep-alive, x-mesh-hop",
    }

    async def reply(_request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        headers = passed | dropped | {"cache-control": "no-store"}
        lines = "".join(f"{name.title()}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 401 Unauthorized\r\nX-Request-Id: theirs\r\n{lines}\r\n{{}}".encode())

    async with fake_agent(reply) as agent:
        response = await client.post(await register(client, agent), json=CALL)

    added = {"x-request-id", "content-security-policy", "x-content-type-options"}
    assert {name: value for name, value in response.headers.items() if name in passed} == passed
    assert response.headers.get_list("cache-control")[0] == "no-store"
    assert not dropped.keys() & response.headers.keys()
    assert added <= response.headers.keys()
    assert "theirs" not in response.headers.get_list("x-request-id")


@pytest.mark.parametrize(
    "challenge", ["Basic realm=x", "Bearer realm=x, Basic realm=y", "Negotiate", "Bearer, Basic", "Bearerx", "NTLM"]
)
async def test_an_agent_cannot_ask_a_browser_for_a_password(client: httpx2.AsyncClient, challenge: str) -> None:
    """T24: the browser would ask in the name of the registry."""

    async def reply(_request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 401 No\r\nwww-authenticate: %s\r\ncontent-length: 0\r\n\r\n" % challenge.encode())

    async with fake_agent(reply) as agent:
        response = await client.post(await register(client, agent), json=CALL)

    assert (response.status_code, "www-authenticate" in response.headers) == (401, False)


async def test_a_cookie_of_one_agent_is_not_sent_to_the_next(client: httpx2.AsyncClient) -> None:
    """The proxy stores no cookies."""

    async def reply(_request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}")

    async with fake_agent(reply) as agent:
        path = await register(client, agent)
        for _ in range(2):
            await client.post(path, json=CALL)

    assert all("cookie" not in request.headers for request in agent.requests)


async def test_events_come_back_one_by_one(served: ServedRegistry) -> None:
    """Each event comes back when the agent has sent it, before the response is complete."""
    release = asyncio.Event()

    async def reply(_request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_RESPONSE_HEAD + EVENT)
        await release.wait()
        writer.write(EVENT)
        await writer.drain()
        writer.close()

    async with fake_agent(reply) as agent:
        path = await register(served.client, agent)
        async with served.client.stream("POST", path, json=CALL) as response:
            parts = response.aiter_raw()
            first = await anext(parts)
            release.set()
            rest = b"".join([part async for part in parts])

    assert (first, rest) == (EVENT, EVENT)
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["x-accel-buffering"] == "no"


async def test_a_request_body_is_streamed_unchanged(served: ServedRegistry) -> None:
    """It has no content length."""

    async def parts() -> AsyncIterator[bytes]:
        for at in range(20):
            yield b"%d " % at * 10_000

    async with fake_agent() as agent:
        path = await register(served.client, agent)

        response = await served.client.post(path, content=parts(), headers={"content-type": "application/json"})

    assert response.status_code == 200
    assert agent.requests[0].body == b"".join([b"%d " % at * 10_000 for at in range(20)])


@pytest.mark.parametrize("with_length", [True, False], ids=["with length", "without length"])
async def test_a_body_that_is_too_large_is_rejected(
    served: ServedRegistry, monkeypatch: pytest.MonkeyPatch, *, with_length: bool
) -> None:
    """With a content length it is rejected at once, otherwise once it exceeds the limit.

    The agent receives no complete request.
    """
    monkeypatch.setattr(endpoint, "MAX_BODY_BYTES", 1000)

    async def parts() -> AsyncIterator[bytes]:
        yield b"x" * 600
        yield b"x" * 600

    async with fake_agent() as agent:
        path = await register(served.client, agent)

        response = await served.client.post(path, content=b"x" * 1200 if with_length else parts(), headers=JSON_HEADERS)

    assert (response.status_code, response.json()["error"]) == (413, "request_too_large")
    assert agent.requests == []


async def test_a_stream_that_takes_too_long_ends_in_a_comment(served: ServedRegistry) -> None:
    """The comment contains the timeout."""

    async def reply(_request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_RESPONSE_HEAD + EVENT)

    async with fake_agent(reply) as agent:
        path = await register(served.client, agent)

        response = await served.client.post(path, json=CALL, headers={"x-mesh-timeout": "1"})

    assert response.content == EVENT + b": mesh-proxy-timeout budget=1s\n\n"


async def test_an_incomplete_event_is_not_completed(served: ServedRegistry) -> None:
    """No empty line ends it, so no reader takes it for a complete event."""

    async def reply(_request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_RESPONSE_HEAD + EVENT + b'data: {"ok"')

    async with fake_agent(reply) as agent:
        path = await register(served.client, agent)

        response = await served.client.post(path, json=CALL, headers={"x-mesh-timeout": "1"})

    assert response.content == EVENT + b'data: {"ok"\n: mesh-proxy-timeout budget=1s\n'


async def test_a_response_that_does_not_start_in_time_is_a_502(client: httpx2.AsyncClient) -> None:
    """Its text is that of a closed port."""

    async def never_respond(_request: ReceivedRequest, _writer: asyncio.StreamWriter) -> None:
        pass

    async with fake_agent(never_respond) as agent:
        path = await register(client, agent)

        message = error_message(await client.post(path, json=CALL, headers={"x-mesh-timeout": "1"}), 502)

    assert message == UNREACHABLE


async def test_an_unreachable_agent_is_a_502(client: httpx2.AsyncClient) -> None:
    """The message reveals nothing about this machine."""
    path = await register(client, FakeAgent(port=free_port()))

    message = error_message(await client.post(path, json=CALL), 502)

    assert message == UNREACHABLE


@pytest.mark.parametrize("sent", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-le"])
async def test_an_agent_that_does_not_send_http_is_a_502(client: httpx2.AsyncClient, sent: bytes) -> None:
    """It sends nothing, other text or half a response, and closes the connection."""

    async def reply(_request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        writer.close()

    async with fake_agent(reply) as agent:
        path = await register(client, agent)

        assert error_message(await client.post(path, json=CALL), 502) == UNREACHABLE


async def test_an_incomplete_response_ends_in_a_dropped_connection(served: ServedRegistry) -> None:
    """The caller cannot take it for a complete response."""

    async def reply(_request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n"
        )
        writer.close()

    async with fake_agent(reply) as agent:
        path = await register(served.client, agent)

        with pytest.raises(httpx2.TransportError):
            await served.client.post(path, json=CALL)


@pytest.mark.parametrize("responding", [True, False], ids=["while it responds", "before"])
async def test_a_disconnect_of_the_caller_cancels_the_call(served: ServedRegistry, *, responding: bool) -> None:
    """The connection to the agent is closed, so the agent can stop its work."""

    async def reply(_request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_RESPONSE_HEAD + EVENT if responding else b"")

    async with fake_agent(reply) as agent:
        path = await register(served.client, agent)
        async with open_raw_connection(served.url) as connection:
            connection.send("POST", path, CALL)
            await async_wait_until(lambda: agent.requests, description="the agent is called")

        await async_wait_until(lambda: agent.disconnects == 1, description="the agent's connection ends")


async def test_a_disconnect_of_the_caller_within_its_body_cancels_the_call(served: ServedRegistry) -> None:
    """The agent receives no complete request."""
    async with fake_agent() as agent:
        path = await register(served.client, agent)
        async with open_raw_connection(served.url) as connection:
            connection._writer.write((HALF_A_CALL % path).encode())
            await connection._writer.drain()
            await async_wait_until(lambda: served.registry.proxy.active_calls == 1, description="the call has started")

        await async_wait_until(lambda: served.registry.proxy.active_calls == 0, description="the call is cancelled")

    assert agent.requests == []


async def test_the_number_of_calls_is_limited(served: ServedRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next caller is asked to retry; the end of a call frees its slot."""
    monkeypatch.setattr(endpoint, "MAX_CALLS", 1)
    release = asyncio.Event()

    async def reply(_request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(OK_RESPONSE)

    async with fake_agent(reply) as agent:
        path = await register(served.client, agent)
        first = asyncio.create_task(served.client.post(path, json=CALL))
        await async_wait_until(lambda: agent.requests, description="the agent is called")

        second = await served.client.post(path, json=CALL)
        release.set()

        assert error_message(second, 503) == "This replica already proxies 100 calls; try again"
        assert second.headers["retry-after"] == "1"
        assert (await first).json() == {"ok": True}
        assert (await served.client.post(path, json=CALL)).json() == {"ok": True}


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"", b"This replica is shutting down; try another replica"),
        (SSE_RESPONSE_HEAD + EVENT, b": mesh-proxy-shutdown\n\n\r\n0\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", b"\r\n\r\n{"),
    ],
    ids=["nothing yet", "events", "half a response"],
)
async def test_a_shutdown_ends_all_calls(
    redis_url: str, caplog: pytest.LogCaptureFixture, sent: bytes, expected: bytes
) -> None:
    """They end after two seconds at most, and each caller can see that its response is incomplete."""

    async def reply(_request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)

    async with fake_agent(reply) as agent, contextlib.AsyncExitStack() as callers:
        async with served_registry(redis_url) as served:
            connection = await callers.enter_async_context(open_raw_connection(served.url))
            connection.send("POST", await register(served.client, agent), CALL)
            await async_wait_until(lambda: agent.requests, description="the agent is called")

        got = await connection._reader.read()
        await async_wait_until(lambda: agent.disconnects == 1, description="the agent's connection ends")

    assert expected in got
    assert caplog.records == []


async def test_a_disabled_proxy_rejects_calls_with_the_name_of_the_setting(redis_url: str) -> None:
    """The agent is not called."""
    async with fake_agent() as agent, in_process_registry(redis_url, proxy=False) as client:
        path = await register(client, agent)

        message = error_message(await client.post(path, json=CALL), 403)

    assert "REGISTRY_PROXY" in message
    assert agent.requests == []


@pytest.mark.parametrize("method", ["HEAD", "DELETE", "PUT"])
async def test_other_methods_are_not_passed_on(client: httpx2.AsyncClient, method: str) -> None:
    """The MCP protocol uses POST and GET."""
    async with fake_agent() as agent:
        path = await register(client, agent)

        response = await client.request(method, path)

    assert (response.status_code, agent.requests) == (405, [])


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("30", 30), ("600", 600), ("601", 600), ("99999999999", 60), ("0", 60), ("", 60), ("1s", 60)],
)
def test_a_header_sets_the_timeout_of_a_call(header: str, seconds: int) -> None:
    """It has whole seconds, at most ten minutes; an invalid value counts as one minute."""
    assert endpoint._timeout_seconds([(b"x-mesh-timeout", header.encode())]) == seconds


async def test_a_caller_that_does_not_read_is_disconnected_after_the_timeout(served: ServedRegistry) -> None:
    """A hundred such callers blocked all calls through a replica."""

    async def flood(_request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_RESPONSE_HEAD)
        while True:
            writer.write(EVENT * 1000)
            await writer.drain()

    async with fake_agent(flood) as agent:
        path = await register(served.client, agent)
        where = httpx2.URL(served.url)
        _, writer = await asyncio.open_connection(where.host, where.port, limit=1024)
        writer.write(
            f"POST {path} HTTP/1.1\r\nhost: localhost\r\nx-mesh-timeout: 1\r\ncontent-length: 0\r\n\r\n".encode()
        )

        await async_wait_until(lambda: served.registry.proxy.active_calls == 1, description="the call has started")
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
async def test_an_invalid_response_of_an_agent_is_not_an_error_of_the_registry(
    served: ServedRegistry, caplog: pytest.LogCaptureFixture, sent: bytes, status: int
) -> None:
    """A wrong length or an unknown status once ended the connection and filled the log."""

    async def reply(_request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 " + sent)

    async with fake_agent(reply) as agent:
        path = await register(served.client, agent)

        response = await served.client.post(path, json=CALL)

    assert (response.status_code, response.content if status == 200 else b"hi") == (status, b"hi")
    assert caplog.records == []


async def test_a_response_of_an_agent_is_sandboxed_in_a_browser(client: httpx2.AsyncClient) -> None:
    """A browser attributes it to the registry: it may run no script and set no policy for the address."""
    sent = (
        b"strict-transport-security: max-age=9\r\nclear-site-data: *\r\nalt-svc: h2=x\r\ncontent-security-policy: x\r\n"
    )

    async def reply(_request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n" + sent + b"content-length: 2\r\n\r\nhi")

    async with fake_agent(reply) as agent:
        response = await client.get(await register(client, agent))

    assert response.headers.get_list("content-security-policy") == [
        "sandbox",
        "default-src 'none'; frame-ancestors 'none'",
    ]
    assert response.headers.get_list("x-content-type-options") == ["nosniff"]
    assert not {"strict-transport-security", "clear-site-data", "alt-svc"} & response.headers.keys()


async def test_a_hanging_agent_does_not_use_all_slots(served: ServedRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """One such agent once blocked all calls through a replica for ten minutes."""
    monkeypatch.setattr(endpoint, "MAX_CALLS_PER_AGENT", 1)
    release = asyncio.Event()

    async def hang(_request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(OK_RESPONSE)

    async with fake_agent(hang) as hanging, fake_agent() as other:
        path = await register(served.client, hanging)
        elsewhere = await register(served.client, other, "other-1")
        first = asyncio.create_task(served.client.post(path, json=CALL))
        await async_wait_until(lambda: hanging.requests, description="the agent is called")

        assert "already proxies 50 calls to this agent" in error_message(await served.client.post(path, json=CALL), 503)
        assert (await served.client.post(elsewhere, json=CALL)).json() == {"ok": True}
        release.set()
        assert (await first).json() == {"ok": True}
        assert (await served.client.post(path, json=CALL)).json() == {"ok": True}
