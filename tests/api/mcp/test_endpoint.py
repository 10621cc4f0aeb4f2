"""POST /mcp: the tools over MCP, by the official client and by hand, in every protocol version it speaks."""

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

from registry.config.types import Secret
from tests.support.http_calls import JSON_HEADERS, a_registration, expect_error, list_agent_ids, register
from tests.support.in_process_registry import in_process_registry
from tests.support.polling import async_wait_until
from tests.support.raw_http import open_raw_connection
from tests.support.redis_server import RedisServer
from tests.support.served_registry import served_registry

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
TOKEN = "s3cret"  # noqa: S105 - it opens nothing but these tests

# The client greets and then says its version in each request, or says all of it in each request.
eras = pytest.mark.parametrize("mode", ["legacy", "auto", "2026-07-28"])


@contextlib.asynccontextmanager
async def speaking(client: httpx2.AsyncClient, mode: str = "auto") -> AsyncIterator[Client]:
    """Provide the official client, over the connection of another."""
    async with Client(streamable_http_client("http://registry/mcp", http_client=client), mode=mode) as session:
        yield session


def a_call(name: str = "heartbeat", arguments: Any = None, **fields: Any) -> dict[str, Any]:
    """Return the message that calls a tool."""
    params = {"name": name, "arguments": {"agent_id": "a"} if arguments is None else arguments}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params} | fields


def told(result: CallToolResult) -> dict[str, Any]:
    """Return what a result says, which it must say in both of its forms."""
    (text,) = result.content
    assert isinstance(text, TextContent)
    body: dict[str, Any] = orjson.loads(text.text)
    assert result.structured_content == body
    assert result.is_error == (body["status"] == "error")
    return body


@eras
async def test_the_tools_are_those_of_the_list(client: httpx2.AsyncClient, mode: str) -> None:
    """Names, descriptions, schemas and annotations, word for word and in the same order."""
    async with speaking(client, mode) as session:
        tools = (await session.list_tools()).tools

    shown = [
        tool.model_dump(
            by_alias=True, exclude_none=True, include={"name", "description", "input_schema", "annotations"}
        )
        for tool in tools
    ]
    assert shown == (await client.get("/mcp/tools")).json()["tools"]


@eras
async def test_the_workflow_of_an_agent(client: httpx2.AsyncClient, mode: str) -> None:
    """Register, beat, discover, select, status, unregister."""
    async with speaking(client, mode) as session:
        spec = a_registration(capabilities=["sums"])
        told(await session.call_tool("register_agent", {"registration_data": spec}))
        told(await session.call_tool("heartbeat", {"agent_id": "a"}))
        found = told(await session.call_tool("discover_services", {"query": {"capability": "sums"}}))
        chosen = told(await session.call_tool("select_agent", {"capability": "sums"}))
        status = told(await session.call_tool("get_agent_status", {"agent_id": "a"}))
        told(await session.call_tool("unregister_agent", {"agent_id": "a"}))

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


@eras
async def test_every_answer_is_the_one_of_the_tool(client: httpx2.AsyncClient, mode: str) -> None:
    """What is refused, too: it is a result that says so, with all that the error says."""
    await register(client, capabilities=["sums"])
    await client.post("/heartbeat", json={"agent_id": "a"})

    async with speaking(client, mode) as session:
        for name, arguments in ARGUMENTS:
            over_mcp = told(await session.call_tool(name, arguments))
            posted = (await client.post(f"/mcp/tools/{name}", json=arguments)).json()
            for moving in ("timestamp", "request_id"):
                assert (over_mcp.pop(moving, None) is None) == (posted.pop(moving, None) is None), (name, arguments)
            assert over_mcp == posted, (name, arguments)


@eras
async def test_an_unknown_tool_is_an_error_of_the_protocol(client: httpx2.AsyncClient, mode: str) -> None:
    """As MCP has it: no tool has answered."""
    async with speaking(client, mode) as session:
        with pytest.raises(MCPError, match="Unknown tool: fly") as caught:
            await session.call_tool("fly", {})

    assert caught.value.error.code == INVALID_PARAMS


async def test_an_error_has_the_id_of_its_request(client: httpx2.AsyncClient) -> None:
    """The one in the header, under which the log may have more."""
    answer = await client.post("/mcp", json=a_call(arguments={"agent_id": "b"}), headers={"x-request-id": "the-one"})

    result = answer.json()["result"]
    assert result["isError"] is True
    assert result["structuredContent"]["request_id"] == answer.headers["x-request-id"] == "the-one"


async def test_a_message_needs_no_greeting_before_it(client: httpx2.AsyncClient) -> None:
    """There are no sessions: each is answered by itself, with any Host, whatever session a client thinks it has."""
    await register(client)
    for headers in (
        {"host": "registry.example:8443", "origin": "http://elsewhere.example"},
        {"mcp-session-id": "of-another-replica"},
        {"mcp-protocol-version": "2025-03-26"},
        {"accept": "application/json, text/event-stream"},
        {"accept": "application/json"},
    ):
        answer = await client.post("/mcp", json=a_call(), headers=headers)

        assert answer.json()["result"]["structuredContent"]["status"] == "success", headers
        assert answer.headers["content-type"] == "application/json"
        assert "mcp-session-id" not in answer.headers


async def test_headers_that_may_be_left_out_may_be_left_out(redis_url: str) -> None:
    """No Accept means anything will do, no Content-Type means JSON, as everywhere here."""
    async with served_registry(redis_url) as served, open_raw_connection(served.url) as line:
        line.send_raw("POST", "/mcp", b"")
        assert (await line.read_response()).body["error"]["code"] == PARSE_ERROR
        answer = await line.request("POST", "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "ping"})

    assert (answer.status, answer.body) == (200, {"jsonrpc": "2.0", "id": 1, "result": {}})


async def test_a_client_that_takes_no_json_is_told(client: httpx2.AsyncClient) -> None:
    """There are no streams to give it instead."""
    answer = await client.post("/mcp", json=a_call(), headers={"accept": "text/event-stream"})

    assert answer.status_code == 406
    assert answer.json()["error"]["code"] == INVALID_REQUEST


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("path", ["/mcp", "/api/v1/mcp"])
async def test_there_is_no_stream_and_no_session_to_end(client: httpx2.AsyncClient, method: str, path: str) -> None:
    """405, which tells a client to do without."""
    answer = await client.request(method, path, headers={"accept": "text/event-stream"})

    expect_error(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


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
async def test_what_is_no_message_is_told_why(
    client: httpx2.AsyncClient, body: bytes, code: int, field: str | None
) -> None:
    """As an error of JSON-RPC, with our own beside it; a request with a bad id is not taken for a notification."""
    answer = await client.post("/mcp", content=body, headers=JSON_HEADERS)

    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == code
    assert error["data"]["message"] == error["message"]
    assert [detail["field"] for detail in error["data"]["details"]] == ([] if field is None else [field])


async def test_the_id_of_a_bad_message_is_given_back(client: httpx2.AsyncClient) -> None:
    """Where it can be one, so that the caller knows which of its messages it was."""
    for given_id, shown in (("seven", "seven"), (7, 7), (2**63, 2**63), ({}, None)):
        answer = await client.post("/mcp", json=a_call(id=given_id, method=5))
        assert answer.json()["id"] == shown


@pytest.mark.parametrize(
    ("method", "code"),
    [("nope", METHOD_NOT_FOUND), ("resources/list", METHOD_NOT_FOUND), ("tools/call", INVALID_PARAMS)],
)
async def test_a_request_that_cannot_be_served_is_an_error(client: httpx2.AsyncClient, method: str, code: int) -> None:
    """Under its own id."""
    answer = await client.post("/mcp", json={"jsonrpc": "2.0", "id": "x", "method": method})

    assert answer.json()["id"] == "x"
    assert answer.json()["error"]["code"] == code


@pytest.mark.parametrize("method", ["notifications/initialized", "notifications/cancelled", "notifications/nope"])
async def test_a_notification_is_taken(client: httpx2.AsyncClient, method: str) -> None:
    """202 and no body: nothing here depends on one."""
    answer = await client.post("/mcp", json={"jsonrpc": "2.0", "method": method, "params": {"requestId": 1}})

    assert (answer.status_code, answer.content) == (202, b"")


async def test_a_body_is_bounded_and_called_json(client: httpx2.AsyncClient) -> None:
    """As everywhere; a query string is refused, too."""
    expect_error(await client.post("/mcp", content=b"x" * 2**20 + b"x"), 413, "request_too_large")
    expect_error(
        await client.post("/mcp", content=b"{}", headers={"content-type": "text/plain"}), 415, "unsupported_media_type"
    )
    expect_error(await client.post("/mcp?session=1", json=a_call()), 400, "malformed_request")


async def test_without_the_token_nothing_is_said(redis_url: str) -> None:
    """With it, in the client's own headers, everything works."""
    async with in_process_registry(redis_url, auth_token=Secret(TOKEN)) as client:
        expect_error(await client.post("/mcp", json=a_call()), 401, "unauthorized")
        client.headers["authorization"] = f"Bearer {TOKEN}"
        async with speaking(client) as session:
            assert told(await session.call_tool("discover_services"))["count"] == 0


async def test_an_answer_that_is_too_long_says_how_to_get_a_shorter_one(client: httpx2.AsyncClient) -> None:
    """To write some megabytes takes the SDK so long that nobody else would be answered; no model reads them either."""
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


async def test_the_largest_agent_there_can_be_is_shown(client: httpx2.AsyncClient) -> None:
    """A registration of all the bytes a body may have."""
    spec = a_registration(metadata={"text": "\x01" * 170_000}, capabilities=[f"c{n}" for n in range(1000)])
    assert (await client.post("/agents", json=spec)).status_code == 200

    result = (await client.post("/mcp", json=a_call("get_agent_status"))).json()["result"]

    assert result["isError"] is False
    assert len(result["structuredContent"]["agent"]["capabilities"]) == 1000


async def test_an_answer_from_memory_says_how_old_it_is(dedicated_redis: RedisServer) -> None:
    """Beside the answer, as there is no header that an MCP client would show."""
    async with in_process_registry(dedicated_redis.url) as client:
        await register(client)
        call = a_call("discover_services", {"query": {"status": "any", "resource_version": "0"}})

        async def stale() -> Any:
            result = (await client.post("/mcp", json=call)).json()["result"]
            assert result["structuredContent"]["count"] == 1
            return result.get("_meta", {}).get("mcp-mesh-registry/stale-seconds")

        async def fresh() -> bool:
            return await stale() is None

        await async_wait_until(fresh, description="the answer says nothing of its age")
        dedicated_redis.pause()
        try:
            assert await async_wait_until(stale, description="the answer says that it is old") > 0
        finally:
            dedicated_redis.resume()


CALL = orjson.dumps(a_call())


@pytest.mark.parametrize(("bound", "most"), [("_MAX_CALLS", 3), ("_MAX_BUFFERED_BYTES", 3 * len(CALL))])
async def test_more_calls_than_it_can_take_are_turned_away(
    dedicated_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, bound: str, most: int
) -> None:
    """503 with Retry-After, nothing done; those before are answered, and room is there again."""
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
        for answer in await asyncio.gather(*waiting):
            assert answer.status_code == 200
        assert (await client.post("/mcp", content=CALL, headers=JSON_HEADERS)).status_code == 200


def test_the_sdk_is_imported_at_the_first_call_and_not_before() -> None:
    """It would make each start a second longer, and 30 MB larger."""
    code = "import sys, registry.main; print(sorted({'mcp', 'mcp_types', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


async def test_who_hangs_up_leaves_nothing_behind(dedicated_redis: RedisServer) -> None:
    """No task lives on when the call is over, for many callers that left in the middle."""
    async with served_registry(dedicated_redis.url) as served:
        await register(served.client)
        await served.client.post("/mcp", json=a_call())
        tasks = len(asyncio.all_tasks())
        dedicated_redis.pause()
        try:
            for _ in range(20):
                async with open_raw_connection(served.url) as line:
                    line.send("POST", "/mcp", a_call())
        finally:
            dedicated_redis.resume()

        await async_wait_until(lambda: len(asyncio.all_tasks()) <= tasks, description="all calls are over")
        assert (await served.client.post("/mcp", json=a_call())).json()["result"]["isError"] is False


async def test_a_bug_in_a_tool_is_told_without_its_text(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a result that is an error; the log holds the trace under the request id."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret details")

    monkeypatch.setattr("registry.api.mcp.tools.parse_discover_query", broken)

    answer = await client.post("/mcp", json=a_call("discover_services", {}), headers={"x-request-id": "the-one"})

    body = answer.json()["result"]["structuredContent"]
    assert (body["error"], body["request_id"]) == ("internal_error", "the-one")
    assert "secret" not in answer.text
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
def test_whatever_is_sent_is_answered_and_never_with_5xx(
    fuzzed: "Fuzzed", message: Any, version: str | None, accept: str | None, *, named: bool
) -> None:
    """Any JSON that is nearly a message, under any version: an answer, an error or 202, and nothing in the log."""
    headers = {"mcp-protocol-version": version, "accept": accept}
    if named and isinstance(message, dict) and isinstance(method := message.get("method"), str):
        headers["mcp-method"] = method.encode("ascii", "replace").decode()
    answer = fuzzed.post(message, {name: value for name, value in headers.items() if value is not None})

    assert answer.status_code in {200, 202, 400, 404, 406}, answer.text
    if answer.content:
        body = answer.json()
        assert body["jsonrpc"] == "2.0"
        assert ("result" in body) != ("error" in body)
        assert body.get("error", {}).get("code") != -32603, answer.text


class Fuzzed:
    """A registry that is spoken to from outside its event loop, as hypothesis knows no other."""

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
def fuzzed(redis_url: str, caplog: pytest.LogCaptureFixture) -> Any:
    """Provide a registry to send nonsense to, which must not be worth a line in the log."""
    logging.getLogger("mcp").setLevel(logging.ERROR)
    with asyncio.Runner() as runner:
        registry = Fuzzed(redis_url, runner)
        yield registry
        registry.close()
    assert [record for record in caplog.records if record.name.startswith("mcp")] == []
