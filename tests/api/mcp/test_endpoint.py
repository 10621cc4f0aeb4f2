"""POST /mcp: the tools over MCP, with the official client and as plain requests, in every protocol version."""

import asyncio
import contextlib
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, TextContent

from registry.config.value_types import Secret
from tests.support.http_calls import JSON_HEADERS, a_registration, expect_error, list_agent_ids, register
from tests.support.in_process_registry import in_process_registry
from tests.support.polling import async_wait_until
from tests.support.raw_http import open_raw_connection
from tests.support.redis_server import RedisServer
from tests.support.served_registry import served_registry

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
TOKEN = "s3cret"  # noqa: S105 - it opens nothing but these tests

# The client initializes and then sends its version with each request, or sends all its data with each request.
protocol_modes = pytest.mark.parametrize("mode", ["legacy", "auto", "2026-07-28"])


@contextlib.asynccontextmanager
async def mcp_client(client: httpx2.AsyncClient, mode: str = "auto", path: str = "/mcp") -> AsyncIterator[Client]:
    """Provide the official client over the connection of an HTTP client."""
    async with Client(streamable_http_client(f"http://localhost{path}", http_client=client), mode=mode) as session:
        yield session


def a_call(name: str = "heartbeat", arguments: Any = None, **fields: Any) -> dict[str, Any]:
    """Return a message that calls a tool."""
    params = {"name": name, "arguments": {"agent_id": "a"} if arguments is None else arguments}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params} | fields


def body_of(result: CallToolResult) -> dict[str, Any]:
    """Return the body of a result, whose text and structured content must be equal."""
    (text,) = result.content
    assert isinstance(text, TextContent)
    body: dict[str, Any] = orjson.loads(text.text)
    assert result.structured_content == body
    assert result.is_error == (body["status"] == "error")
    return body


@protocol_modes
@pytest.mark.parametrize("path", ["/mcp", "/mcp/", "/api/v1/mcp/"])
async def test_the_tools_equal_those_of_the_http_list(client: httpx2.AsyncClient, mode: str, path: str) -> None:
    """Names, descriptions, schemas and annotations are equal and in the same order."""
    async with mcp_client(client, mode, path) as session:
        tools = (await session.list_tools()).tools

    shown = [
        tool.model_dump(
            by_alias=True, exclude_none=True, include={"name", "description", "input_schema", "annotations"}
        )
        for tool in tools
    ]
    assert shown == (await client.get("/mcp/tools")).json()["tools"]


@protocol_modes
async def test_an_agent_can_use_all_tools(client: httpx2.AsyncClient, mode: str) -> None:
    """Register, heartbeat, discover, select, status, unregister."""
    async with mcp_client(client, mode) as session:
        spec = a_registration(capabilities=["sums"])
        body_of(await session.call_tool("register_agent", {"registration_data": spec}))
        body_of(await session.call_tool("heartbeat", {"agent_id": "a"}))
        found = body_of(await session.call_tool("discover_services", {"query": {"capability": "sums"}}))
        chosen = body_of(await session.call_tool("select_agent", {"capability": "sums"}))
        status = body_of(await session.call_tool("get_agent_status", {"agent_id": "a"}))
        body_of(await session.call_tool("unregister_agent", {"agent_id": "a"}))

    assert found["agents"] == [status["agent"]]
    assert chosen["agent_id"] == "a"
    assert await list_agent_ids(client) == []


ARGUMENTS: list[tuple[str, Any]] = [
    ("register_agent", {}),
    ("register_agent", {"registration_data": {"id": "a b", "endpoint": "ftp://a"}}),
    ("register_agent", {"registration_data": {"id": "a", "endpoint": "http://a:1", "resource_version": "1"}}),
    ("unregister_agent", {"agent_id": "nobody"}),
    ("discover_services", {"query": {"namspace": "x"}}),
    ("discover_services", {"query": {"version_constraint": ">="}}),
    ("discover_services", {"query": {"status": "any", "resource_version": "0"}}),
    ("discover_services", {}),
    ("heartbeat", {"agent_id": ""}),
    ("heartbeat", {"agent_id": "a", "load": -1}),
    ("heartbeat", {"agent_id": "a", "metadata": {"endpoint": "nowhere"}}),
    ("get_agent_status", {"agent_id": "a"}),
    ("get_agent_status", {"agent_id": 7}),
    ("get_agent_status", {"id": "a"}),
    ("select_agent", {"capability": "sums"}),
    ("select_agent", {"capability": "nothing", "strategy": "sticky"}),
    ("select_agent", {"capability": "nothing"}),
]


@protocol_modes
async def test_each_result_equals_the_response_of_the_http_tool(client: httpx2.AsyncClient, mode: str) -> None:
    """Errors too: they are results with all fields of the error."""
    await register(client, capabilities=["sums"])
    await client.post("/heartbeat", json={"agent_id": "a"})

    async with mcp_client(client, mode) as session:
        for name, arguments in ARGUMENTS:
            over_mcp = body_of(await session.call_tool(name, arguments))
            posted = (await client.post(f"/mcp/tools/{name}", json=arguments)).json()
            for moving in ("timestamp", "request_id"):
                assert (over_mcp.pop(moving, None) is None) == (posted.pop(moving, None) is None), (name, arguments)
            assert over_mcp == posted, (name, arguments)


@protocol_modes
async def test_an_unknown_tool_is_a_protocol_error(client: httpx2.AsyncClient, mode: str) -> None:
    """As MCP requires, since no tool was called."""
    async with mcp_client(client, mode) as session:
        with pytest.raises(MCPError, match="Unknown tool: fly") as caught:
            await session.call_tool("fly", {})

    assert caught.value.error.code == INVALID_PARAMS


async def test_an_error_has_the_id_of_its_request(client: httpx2.AsyncClient) -> None:
    """The id of the header, under which the log may have more information."""
    response = await client.post("/mcp", json=a_call(arguments={"agent_id": "b"}), headers={"x-request-id": "the-one"})

    result = response.json()["result"]
    assert result["isError"] is True
    assert result["structuredContent"]["request_id"] == response.headers["x-request-id"] == "the-one"


async def test_a_message_requires_no_initialization(client: httpx2.AsyncClient) -> None:
    """There are no sessions: each message is processed alone, with any session id."""
    await register(client)
    for headers in (
        {"mcp-session-id": "of-another-replica"},
        {"mcp-protocol-version": "2025-03-26"},
        {"accept": "application/json, text/event-stream"},
        {"accept": "application/json"},
    ):
        response = await client.post("/mcp", json=a_call(), headers=headers)

        assert response.json()["result"]["structuredContent"]["status"] == "success", headers
        assert response.headers["content-type"] == "application/json"
        assert "mcp-session-id" not in response.headers


async def test_optional_headers_may_be_omitted(redis_url: str) -> None:
    """Without Accept any type is accepted."""
    async with served_registry(redis_url) as served, open_raw_connection(served.url) as connection:
        connection.send_raw("POST", "/mcp", b"")
        assert (await connection.read_response()).body["error"]["code"] == PARSE_ERROR
        response = await connection.request("POST", "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "ping"})

    assert (response.status, response.body) == (200, {"jsonrpc": "2.0", "id": 1, "result": {}})


async def test_a_client_that_does_not_accept_json_receives_an_error(client: httpx2.AsyncClient) -> None:
    """There are no event streams as an alternative."""
    response = await client.post("/mcp", json=a_call(), headers={"accept": "text/event-stream"})

    assert response.status_code == 406
    assert response.json()["error"]["code"] == INVALID_REQUEST


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("path", ["/mcp", "/api/v1/mcp"])
async def test_streams_and_sessions_are_not_supported(client: httpx2.AsyncClient, method: str, path: str) -> None:
    """405, after which a client continues without them."""
    response = await client.request(method, path, headers={"accept": "text/event-stream"})

    expect_error(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        (b"", PARSE_ERROR, None),
        (b"{", PARSE_ERROR, None),
        (b"\xff", PARSE_ERROR, None),
        (b"[" * 100_000, PARSE_ERROR, "body"),
        (b'{"jsonrpc":"2.0","id":1e999,"method":"ping"}', PARSE_ERROR, "id"),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":NaN}}', PARSE_ERROR, None),
        (b"null", PARSE_ERROR, "body"),
        (b"[]", INVALID_REQUEST, "body"),
        (orjson.dumps([a_call(), a_call()]), INVALID_REQUEST, "body"),
        (orjson.dumps(a_call(jsonrpc="1.0")), INVALID_REQUEST, "jsonrpc"),
        (orjson.dumps(a_call(method=None)), INVALID_REQUEST, "method"),
        (orjson.dumps(a_call(params=[1])), INVALID_REQUEST, "params"),
        (orjson.dumps(a_call(id=None)), INVALID_REQUEST, "id"),
        (orjson.dumps(a_call(id=1.5)), INVALID_REQUEST, "id"),
        (orjson.dumps(a_call(id=True)), INVALID_REQUEST, "id"),
        (orjson.dumps(a_call(id=[1])), INVALID_REQUEST, "id"),
    ],
)
async def test_an_invalid_message_receives_the_reason(
    client: httpx2.AsyncClient, body: bytes, code: int, field: str | None
) -> None:
    """As a JSON-RPC error, together with ours; a request with an invalid id is not treated as a notification."""
    response = await client.post("/mcp", content=body, headers=JSON_HEADERS)

    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == code
    assert error["data"]["message"] == error["message"]
    assert [detail["field"] for detail in error["data"]["details"]] == ([] if field is None else [field])


async def test_the_id_of_an_invalid_message_is_returned(client: httpx2.AsyncClient) -> None:
    """If it is a valid id, so that the caller can identify the message."""
    for given_id, shown in (("seven", "seven"), (7, 7), (2**63, 2**63), ({}, None)):
        response = await client.post("/mcp", json=a_call(id=given_id, method=5))
        assert response.json()["id"] == shown


@pytest.mark.parametrize(
    ("method", "code"),
    [("nope", METHOD_NOT_FOUND), ("resources/list", METHOD_NOT_FOUND), ("tools/call", INVALID_PARAMS)],
)
async def test_an_unsupported_request_is_an_error(client: httpx2.AsyncClient, method: str, code: int) -> None:
    """With the id of the request."""
    response = await client.post("/mcp", json={"jsonrpc": "2.0", "id": "x", "method": method})

    assert response.json()["id"] == "x"
    assert response.json()["error"]["code"] == code


@pytest.mark.parametrize("method", ["notifications/initialized", "notifications/cancelled", "notifications/nope"])
async def test_a_notification_is_accepted(client: httpx2.AsyncClient, method: str) -> None:
    """202 without a body; notifications have no effect."""
    response = await client.post("/mcp", json={"jsonrpc": "2.0", "method": method, "params": {"requestId": 1}})

    assert (response.status_code, response.content) == (202, b"")


async def test_a_body_is_limited_and_must_be_json(client: httpx2.AsyncClient) -> None:
    """As everywhere; a query string is rejected too."""
    expect_error(await client.post("/mcp", content=b"x" * 2**20 + b"x", headers=JSON_HEADERS), 413, "request_too_large")
    expect_error(
        await client.post("/mcp", content=b"{}", headers={"content-type": "text/plain"}), 415, "unsupported_media_type"
    )
    expect_error(await client.post("/mcp?session=1", json=a_call()), 400, "malformed_request")


async def test_the_token_is_required(redis_url: str) -> None:
    """With it, in the headers of the client, everything works."""
    async with in_process_registry(redis_url, auth_token=Secret(TOKEN)) as client:
        expect_error(await client.post("/mcp", json=a_call()), 401, "unauthorized")
        client.headers["authorization"] = f"Bearer {TOKEN}"
        async with mcp_client(client) as session:
            assert body_of(await session.call_tool("discover_services"))["count"] == 0


async def test_an_error_for_a_long_result_describes_how_to_shorten_it(client: httpx2.AsyncClient) -> None:
    """The SDK needs so long to write some megabytes that other callers would wait, and no model reads them."""
    many = [a_registration(f"a{n}", metadata={"text": "x" * 20_000}) for n in range(120)]
    for at in range(0, len(many), 40):
        await client.post("/agents/batch", json={"agents": many[at : at + 40]})
    call = a_call("discover_services", {"query": {"status": "any"}})

    result = (await client.post("/mcp", json=call)).json()["result"]

    assert result["isError"] is True
    assert result["structuredContent"]["details"][0]["field"] == "query"
    assert "narrow the query" in result["structuredContent"]["message"]
    call["params"]["arguments"]["query"]["agent_id"] = "a7"
    assert (await client.post("/mcp", json=call)).json()["result"]["structuredContent"]["count"] == 1


async def test_the_largest_possible_agent_is_returned(client: httpx2.AsyncClient) -> None:
    """Its registration has the maximum size of a body."""
    spec = a_registration(metadata={"text": "\x01" * 170_000}, capabilities=[f"c{n}" for n in range(1000)])
    assert (await client.post("/agents", json=spec)).status_code == 200

    result = (await client.post("/mcp", json=a_call("get_agent_status"))).json()["result"]

    assert result["isError"] is False
    assert len(result["structuredContent"]["agent"]["capabilities"]) == 1000


async def test_a_stale_result_has_its_age(dedicated_redis: RedisServer) -> None:
    """In the metadata of the result, since MCP clients show no header."""
    async with in_process_registry(dedicated_redis.url) as client:
        await register(client)
        # A fresh read, so that the cache contains the agent.
        assert (await client.get("/agents")).json()["count"] == 1
        call = a_call("discover_services", {"query": {"status": "any", "resource_version": "0"}})

        async def stale_seconds() -> Any:
            result = (await client.post("/mcp", json=call)).json()["result"]
            assert result["structuredContent"]["count"] == 1
            return result.get("_meta", {}).get("mcp-mesh-registry/stale-seconds")

        async def is_fresh() -> bool:
            return await stale_seconds() is None

        await async_wait_until(is_fresh, description="the result is fresh")
        dedicated_redis.pause()
        try:
            assert await async_wait_until(stale_seconds, description="the result has its age") > 0
        finally:
            dedicated_redis.resume()


CALL = orjson.dumps(a_call())


@pytest.mark.parametrize(("bound", "most"), [("_MAX_CALLS", 3), ("_MAX_BUFFERED_BYTES", 3 * len(CALL))])
async def test_calls_beyond_the_limit_are_rejected(
    dedicated_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, bound: str, most: int
) -> None:
    """503 with Retry-After and without effect; earlier calls are served, and later ones accepted again."""
    monkeypatch.setattr(f"registry.api.mcp.endpoint.{bound}", most)
    async with in_process_registry(dedicated_redis.url) as client:
        await register(client)
        await client.post("/mcp", content=CALL, headers=JSON_HEADERS)
        dedicated_redis.pause()
        try:
            calls = [asyncio.create_task(client.post("/mcp", content=CALL, headers=JSON_HEADERS)) for _ in range(4)]
            (turned_away,), waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            body = expect_error(turned_away.result(), 503, "store_unavailable")
            assert (body["reason"], body["outcome"]) == ("queue_full", "not_sent")
            assert turned_away.result().headers["retry-after"] == "1"
        finally:
            dedicated_redis.resume()
        for response in await asyncio.gather(*waiting):
            assert response.status_code == 200
        assert (await client.post("/mcp", content=CALL, headers=JSON_HEADERS)).status_code == 200


def test_the_sdk_is_imported_at_the_first_call() -> None:
    """It would make each start a second slower and each process 30 MB larger."""
    code = "import sys, registry.main; print(sorted({'mcp', 'mcp_types', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


async def test_disconnected_callers_leave_no_task(dedicated_redis: RedisServer) -> None:
    """No task remains after many callers disconnected during a call."""
    async with served_registry(dedicated_redis.url) as served:
        await register(served.client)
        await served.client.post("/mcp", json=a_call())
        tasks = len(asyncio.all_tasks())
        dedicated_redis.pause()
        try:
            for _ in range(20):
                async with open_raw_connection(served.url) as connection:
                    connection.send("POST", "/mcp", a_call())
        finally:
            dedicated_redis.resume()

        await async_wait_until(lambda: len(asyncio.all_tasks()) <= tasks, description="all calls are over")
        assert (await served.client.post("/mcp", json=a_call())).json()["result"]["isError"] is False


async def test_a_bug_in_a_tool_is_reported_without_its_text(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As an error result; the log has the traceback with the request id."""

    def raise_error(*_: object) -> None:
        raise ZeroDivisionError("secret details")

    monkeypatch.setattr("registry.api.mcp.tools.parse_discover_query", raise_error)

    response = await client.post("/mcp", json=a_call("discover_services", {}), headers={"x-request-id": "the-one"})

    body = response.json()["result"]["structuredContent"]
    assert (body["error"], body["request_id"]) == ("internal_error", "the-one")
    assert "secret" not in response.text
    log = "".join(capsys.readouterr())
    assert "secret details" in log
    assert "the-one" in log


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
methods = st.sampled_from(
    ["initialize", "ping", "tools/list", "tools/call", "server/discover", "subscriptions/listen", "notifications/x", ""]
)
params = json_values | st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["heartbeat", "discover_services", "register_agent", "fly"]) | json_values,
        "arguments": json_values | st.fixed_dictionaries({}, optional={"query": json_values, "agent_id": json_values}),
        "cursor": json_values,
        "protocolVersion": st.sampled_from(["2025-11-25", "2026-07-28", "x"]) | json_values,
        "_meta": json_values
        | st.fixed_dictionaries(
            {
                "io.modelcontextprotocol/protocolVersion": st.just("2026-07-28") | json_values,
                "io.modelcontextprotocol/clientCapabilities": st.just({}) | json_values,
            }
        ),
    },
)
messages = json_values | st.fixed_dictionaries(
    {},
    optional={"jsonrpc": st.just("2.0") | json_values, "id": st.just(1) | json_values, "method": methods | json_values}
    | {"params": params, "result": json_values, "error": json_values},
)
versions = st.sampled_from([None, "", "2025-03-26", "2025-11-25", "2026-07-28", "2030-01-01", "x"])
accepts = st.sampled_from(
    [None, "", "application/json", "text/event-stream", "*/*", "application/json, text/event-stream"]
)


@settings(max_examples=300)
@given(message=messages, version=versions, accept=accepts, named=st.booleans())
def test_any_message_is_answered_without_5xx(
    synchronous_registry: "SynchronousRegistry", message: Any, version: str | None, accept: str | None, *, named: bool
) -> None:
    """JSON that is nearly a message, of any protocol version: a result, an error or 202, and no log event."""
    headers = {"mcp-protocol-version": version, "accept": accept}
    if named and isinstance(message, dict) and isinstance(method := message.get("method"), str):
        headers["mcp-method"] = method.encode("ascii", "replace").decode()
    response = synchronous_registry.post(message, {name: value for name, value in headers.items() if value is not None})

    assert response.status_code in {200, 202, 400, 404, 406}, response.text
    if response.content:
        body = response.json()
        assert body["jsonrpc"] == "2.0"
        assert ("result" in body) != ("error" in body)
        assert body.get("error", {}).get("code") != -32603, response.text


class SynchronousRegistry:
    """A registry in an event loop of its own, which hypothesis can call synchronously."""

    def __init__(self, url: str, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._stack = contextlib.AsyncExitStack()
        self._client = runner.run(self._stack.enter_async_context(in_process_registry(url)))

    def post(self, message: Any, headers: dict[str, str]) -> httpx2.Response:
        """Send one message."""
        try:
            content = orjson.dumps(message)
        except orjson.JSONEncodeError:
            content = repr(message).encode(errors="surrogatepass")
        return self._runner.run(self._client.post("/mcp", content=content, headers=JSON_HEADERS | headers))

    def close(self) -> None:
        """Stop the registry."""
        self._runner.run(self._stack.aclose())


@pytest.fixture
def synchronous_registry(redis_url: str, caplog: pytest.LogCaptureFixture) -> Any:
    """Provide a registry that receives random messages, and must log no event for them."""
    logging.getLogger("mcp").setLevel(logging.ERROR)
    with asyncio.Runner() as runner:
        registry = SynchronousRegistry(redis_url, runner)
        yield registry
        registry.close()
    assert [record for record in caplog.records if record.name.startswith("mcp")] == []
