"""The API describes itself, and the description is true."""

import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from registry import __version__
from tests.support.http_calls import a_registration

CALLS = {
    "GET /",
    "GET /agents",
    "POST /agents",
    "POST /agents/batch",
    "POST /agents/drain",
    "POST /agents/undrain",
    "POST /agents/{agent_id}/drain",
    "POST /agents/{agent_id}/undrain",
    "GET /agents/{agent_id}",
    "DELETE /agents/{agent_id}",
    "GET /agents/{agent_id}/status",
    "GET /agents/{agent_id}/dependencies",
    "GET /agents/{agent_id}/dependents",
    "GET /dependencies",
    "GET /select",
    "GET /capabilities",
    "POST /heartbeat",
    "POST /heartbeats",
    "GET /health",
    "GET /health/{agent_id}",
    "GET /ready",
    "POST /admin/self-preservation/end",
    "GET /admin/drain",
    "POST /admin/drain",
    "DELETE /admin/drain",
    "GET /events",
    "POST /jobs/claim",
    "GET /proxy/{host}:{port}/mcp",
    "POST /proxy/{host}:{port}/mcp",
    "GET /schemas",
    "GET /schemas/{hash}",
    "GET /metrics",
    "GET /metrics/prometheus",
    "GET /openapi.json",
    "POST /mcp",
    "GET /mcp/tools",
    "POST /mcp/tools/register_agent",
    "POST /mcp/tools/unregister_agent",
    "POST /mcp/tools/discover_services",
    "POST /mcp/tools/heartbeat",
    "POST /mcp/tools/get_agent_status",
    "POST /mcp/tools/select_agent",
}


@pytest.fixture
async def document(client: httpx2.AsyncClient) -> Any:
    """Provide the OpenAPI document."""
    return (await client.get("/openapi.json")).json()


async def test_the_root_says_what_this_is_and_lists_every_call(client: httpx2.AsyncClient) -> None:
    """Service, version, endpoints."""
    root = (await client.get("/")).json()

    assert root.keys() == {"service", "version", "endpoints"}
    assert (root["service"], root["version"]) == ("mcp-mesh-registry", __version__)
    assert set(root["endpoints"]) == CALLS
    assert len(root["endpoints"]) == len(CALLS)


async def test_every_call_that_is_listed_is_there(client: httpx2.AsyncClient) -> None:
    """None of them is a path or a method that does not exist."""
    for call in CALLS:
        method, path = call.split()
        answer = await client.request(method, re.sub(r"{\w+}", "1", path))
        assert answer.status_code in (200, 400, 403, 404, 422), call
        if answer.status_code == 404:
            assert answer.json()["error"] in ("unknown_agent", "schema not found: 1"), call


def references(value: Any) -> Iterator[str]:
    """Yield every $ref in a document."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


async def test_the_document_is_openapi(document: dict[str, Any]) -> None:
    """What the specification requires of the parts that are there."""
    assert re.fullmatch(r"3\.1\.\d", document["openapi"])
    assert document["info"].keys() >= {"title", "version"}
    described = {f"{method.upper()} {path}" for path, operations in document["paths"].items() for method in operations}
    assert described == CALLS
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["responses"]
            for answer in operation["responses"].values():
                assert answer["description"]
            parameters = operation.get("parameters", [])
            assert len({(each["name"], each["in"]) for each in parameters}) == len(parameters)
            in_path = {each["name"] for each in parameters if each["in"] == "path"}
            assert in_path == set(re.findall(r"{(\w+)}", path))
            assert all(each["required"] for each in parameters if each["in"] == "path")
            assert all("schema" in each for each in parameters)
            if "requestBody" in operation:
                assert operation["requestBody"]["content"]["application/json"]["schema"]


async def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    """A reference is resolved from the document's root."""
    for reference in references(document):
        target: Any = document
        for step in reference.removeprefix("#/").split("/"):
            assert step in target, reference
            target = target[step]


async def test_every_call_that_takes_a_body_says_which(document: dict[str, Any]) -> None:
    """POST and nothing else; what is done to the one agent of the path needs none."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            bodiless = "{agent_id}" in path or path.startswith("/admin/")
            assert ("requestBody" in operation) == (method == "post" and not bodiless), path


async def test_parameters_that_are_described_are_taken(client: httpx2.AsyncClient, document: dict[str, Any]) -> None:
    """Each query parameter is known to the call, and every call knows no other."""
    capable = {"name": "a", "tags": ["a"]}
    await client.post("/agents", json=a_registration("a", namespace="a", capabilities=[capable]))
    await client.post("/heartbeat", json={"agent_id": "a"})
    samples: dict[str, dict[str, str]] = {
        **{name: {name: "any"} for name in ("status", "agent_status", "match")},
        **{
            name: {name: "false"}
            for name in ("agent_draining", "draining", "fuzzy_match", "include_deprecated", "watch")
        },
        "explain": {"explain": "true"},
        "strategy": {"strategy": "best"},
        "label_selector": {"label_selector": "a in (b, c)"},
        "version_constraint": {"version_constraint": "^1"},
        "resource_version": {"resource_version": "0"},
        "resource_version_match": {"resource_version": "0", "resource_version_match": "NotOlderThan"},
        "limit": {"limit": "1"},
        "wait": {"wait": "1s"},
        "timeout": {"watch": "true", "timeout": "0.1s"},
        "send_initial": {"watch": "true", "send_initial": "true", "timeout": "0.1s"},
    }
    await client.post("/agents", json=a_registration("b"))
    page = (await client.get("/agents", params={"limit": "1"})).json()
    always = {"/select": {"capability": "a"}, "/events": {"agent_id": "a"}}
    samples["continue"] = {"limit": "1", "continue": page["continue"]}
    for path, operations in document["paths"].items():
        for parameter in operations.get("get", {}).get("parameters", []):
            if parameter["in"] == "query":
                name = parameter["name"]
                params = samples.get(name, {name: "a"}) | always.get(path, {})
                answer = await client.get(path.replace("{agent_id}", "a"), params=params)
                assert answer.status_code == 200, (path, name, answer.text)


async def test_the_tools_have_schemas_of_their_own(client: httpx2.AsyncClient) -> None:
    """An MCP tool's input schema is an object, whole in itself; each tool is where it must be called."""
    tools = (await client.get("/mcp/tools")).json()["tools"]

    assert [tool["name"] for tool in tools] == [
        "register_agent",
        "unregister_agent",
        "discover_services",
        "heartbeat",
        "get_agent_status",
        "select_agent",
    ]
    for tool in tools:
        assert tool.keys() == {"name", "description", "inputSchema", "annotations"}
        assert tool["description"]
        schema = tool["inputSchema"]
        assert schema["type"] == "object", tool["name"]
        assert set(schema.get("required", [])) <= schema["properties"].keys()
        assert not list(references(schema)), tool["name"]
        assert f"POST /mcp/tools/{tool['name']}" in CALLS


async def test_what_is_required_is_what_is_missed(client: httpx2.AsyncClient) -> None:
    """An empty call of each tool is told exactly the arguments its schema requires."""
    for tool in (await client.get("/mcp/tools")).json()["tools"]:
        schema = tool["inputSchema"]
        required = schema.get("required", [])
        answer = await client.post(f"/mcp/tools/{tool['name']}", json={})
        if required:
            assert [detail["field"] for detail in answer.json()["details"]] == required
        else:
            assert answer.status_code == 200
