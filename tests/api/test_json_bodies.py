"""JSON bodies as people read them in a terminal: a final newline, and indentation with `?pretty=true`."""

import json
from typing import Any

import httpx2
import pytest

from tests.support.http_calls import JSON_HEADERS, a_registration, error_fields, expect_error, expect_success, register
from tests.support.served_registry import served_registry

READS = ["/", "/agents", "/agents?limit=1", "/agents?fields=id", "/agents/a", "/agents/a/status", "/agents/nobody"]
READS += ["/capabilities", "/dependencies", "/health", "/health/a", "/ready", "/metrics", "/openapi.json", "/mcp/tools"]
READS += ["/select?capability=c", "/select?capability=x", "/agents?x=1", "/nothing", "/events?agent_id=a", "/schemas"]
WRITES: dict[str, Any] = {
    "/agents": a_registration("b"),
    "/agents/batch": {"agents": [a_registration("b")]},
    "/agents/a/undrain": {},
    "/heartbeat": {"agent_id": "a"},
    "/heartbeats": {"agent_ids": ["a"]},
    "/mcp": {"jsonrpc": "2.0", "id": 1, "method": "tools/list"},
    "/mcp/tools/heartbeat": {"agent_id": "a"},
    "/mcp/tools/discover_services": {},
    "/mcp/tools/get_agent_status": {"agent_id": "a"},
    "/proxy/a:1/mcp": {},
    "/jobs/claim": {"capability": "x"},
}
MCP_HEADERS = JSON_HEADERS | {"accept": "application/json, text/event-stream"}


async def responses(client: httpx2.AsyncClient, query: str = "") -> dict[str, httpx2.Response]:
    """Return a response of each kind, with more query parameters."""
    await register(client, capabilities=["c"])
    await register(client, "b")
    await client.post("/heartbeat", json={"agent_id": "a"})
    found = {path: await client.get(f"{path}{'&' if '?' in path else '?'}{query}") for path in READS}
    for path, body in WRITES.items():
        found[f"POST {path}"] = await client.post(f"{path}?{query}", json=body, headers=MCP_HEADERS)
    return found | {"PUT": await client.put(f"/agents?{query}"), "invalid": await client.post("/mcp", content=b"{")}


async def test_every_json_body_ends_with_one_newline(client: httpx2.AsyncClient) -> None:
    """So the prompt of a terminal begins a new line."""
    for name, response in (await responses(client)).items():
        assert response.headers["content-type"] == "application/json", name
        assert response.content.endswith(b"}\n"), name
        assert int(response.headers["content-length"]) == len(response.content), name
        assert response.content.count(b"\n") == 1, name


async def test_pretty_indents_every_json_body(client: httpx2.AsyncClient) -> None:
    """The data is the same, also of errors."""
    plain = await responses(client)
    for name, response in (await responses(client, "pretty=true")).items():
        if name != "invalid":
            body = response.json()
            assert response.text == json.dumps(body, indent=2, ensure_ascii=False) + "\n", name
            assert int(response.headers["content-length"]) == len(response.content), name
            assert (response.status_code, body.keys()) == (plain[name].status_code, plain[name].json().keys()), name


@pytest.mark.parametrize("value", ["true", "1", "", "false", "0"])
async def test_the_values_of_pretty(client: httpx2.AsyncClient, value: str) -> None:
    """Other parameters keep their effect."""
    await register(client)
    for path in (f"/agents?pretty={value}&fields=id", f"/agents?fields=id&pretty={value}"):
        response = await client.get(path)

        assert response.json()["agents"] == [{"id": "a"}]
        assert response.text.startswith('{\n  "agents": [\n    {\n      "id": "a"') == (value not in {"false", "0"})


async def test_an_invalid_value_of_pretty_is_rejected(client: httpx2.AsyncClient) -> None:
    """As of every boolean parameter; a similar name is unknown."""
    for query in ("pretty=yes", "pretty=true&pretty=false", "prettyy=true"):
        assert error_fields(expect_error(await client.get(f"/agents?{query}"), 400, "malformed_request")) == [
            query.partition("=")[0]
        ]


async def test_pretty_has_no_effect_on_other_bodies(redis_url: str) -> None:
    """Watch streams, Prometheus text, responses without a body, and JSON above 2 MiB, which takes too long."""
    async with served_registry(redis_url) as served:
        client = served.client
        await register(client)
        stream = await client.get("/agents?watch=true&send_initial=true&timeout=0.1s&pretty=true")
        assert [json.loads(line)["type"] for line in stream.text.splitlines()] == ["ADDED", "BOOKMARK", "BOOKMARK"]
        assert (await client.get("/metrics/prometheus?pretty=true")).text.startswith("# HELP")
        etag = (await client.get("/agents")).headers["etag"]
        assert (await client.get("/agents?pretty=true", headers={"if-none-match": etag})).status_code == 304
        assert (await client.head("/agents?pretty=true")).content == b""
        for number in range(4):
            fields = {"metadata": {"text": "x" * 600_000}}
            expect_success(await client.post("/agents", json=a_registration(f"a{number}", **fields)))
        listed = await client.get("/agents?pretty=true")
        assert (len(listed.content) > 2_000_000, listed.content.count(b"\n")) == (True, 1)


async def test_pretty_text_is_not_compressed(client: httpx2.AsyncClient) -> None:
    """A long list is, without `pretty`."""
    for number in range(100):
        await register(client, f"a{number}")
    assert (await client.get("/agents")).headers["content-encoding"] == "gzip"

    response = await client.get("/agents?pretty=true")

    assert "content-encoding" not in response.headers
    assert response.text.startswith('{\n  "agents"')


async def test_the_text_of_an_mcp_tool_ends_without_a_newline(client: httpx2.AsyncClient) -> None:
    """The newline belongs to the HTTP response."""
    params = {"name": "get_agent_status", "arguments": {"agent_id": "nobody"}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}

    response = await client.post("/mcp", json=message, headers=MCP_HEADERS)

    assert response.json()["result"]["content"][0]["text"].endswith("}")
