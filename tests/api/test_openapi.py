"""The OpenAPI document and the tool schemas describe the calls correctly."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx2
import pytest

from registry import __version__
from tests.support.http_calls import a_registration
from tests.support.load_balancers import NGINX_PATH, nginx
from tests.support.served_registry import served_registry

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
    "GET /a2a/agents",
    "GET /events",
    "GET /jobs",
    "GET /jobs/{job_id}",
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


async def test_the_root_describes_the_service_and_lists_every_call(client: httpx2.AsyncClient) -> None:
    """Service, version, endpoints."""
    root = (await client.get("/")).json()

    assert root.keys() == {"service", "version", "endpoints"}
    assert (root["service"], root["version"]) == ("mcp-mesh-registry", __version__)
    assert set(root["endpoints"]) == CALLS
    assert root["endpoints"]["POST /heartbeat"] == "Send a heartbeat"
    assert all(root["endpoints"].values())


async def test_every_listed_call_exists(client: httpx2.AsyncClient) -> None:
    """No entry has an unknown path or method."""
    for call in CALLS:
        method, path = call.split()
        response = await client.request(method, re.sub(r"{\w+}", "1", path))
        assert response.status_code in (200, 400, 403, 404, 422), call
        if response.status_code == 404:
            assert response.json()["error"] in ("unknown_agent", "schema not found: 1", "job not found: 1"), call


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
    """The document has the fields that the specification requires."""
    assert re.fullmatch(r"3\.1\.\d", document["openapi"])
    assert document["info"].keys() >= {"title", "version"}
    described = {f"{method.upper()} {path}" for path, operations in document["paths"].items() for method in operations}
    assert described == CALLS
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["responses"]
            for response in operation["responses"].values():
                assert response["description"]
            parameters = operation.get("parameters", [])
            assert len({(each["name"], each["in"]) for each in parameters}) == len(parameters)
            in_path = {each["name"] for each in parameters if each["in"] == "path"}
            assert in_path == set(re.findall(r"{(\w+)}", path))
            assert all(each["required"] for each in parameters if each["in"] == "path")
            assert all("schema" in each for each in parameters)
            if "requestBody" in operation:
                assert operation["requestBody"]["content"]["application/json"]["schema"]


@pytest.mark.parametrize("prefix", ["", "/registry", "/registry/api/v1"])
async def test_the_paths_are_below_the_document(document: dict[str, Any], prefix: str) -> None:
    """The server is relative, so a generated client keeps the path prefix of a reverse proxy."""
    (server,) = document["servers"]

    url = urljoin(f"http://host{prefix}/openapi.json", server["url"])

    assert url.rstrip("/") == f"http://host{prefix}"


@pytest.mark.skipif(NGINX_PATH is None, reason="nginx is not installed; apt-get install nginx")
async def test_a_generated_client_stays_below_the_prefix_of_a_reverse_proxy(redis_url: str, tmp_path: Path) -> None:
    """An nginx that removes the prefix; the other clients work there as well."""
    options = "rewrite ^/registry(/.*)$ $1 break;"
    async with (
        served_registry(redis_url) as served,
        nginx([served.url], tmp_path, options) as url,
        httpx2.AsyncClient(timeout=30) as client,
    ):
        document_url = f"{url}/registry/openapi.json"
        server = urljoin(document_url, (await client.get(document_url)).json()["servers"][0]["url"])
        assert server == f"{url}/registry/"
        for path in ("agents", "/agents", "mcp/tools", "api/v1/agents/"):
            assert (await client.get(f"{server}{path}")).status_code == 200, path


async def test_every_reference_has_a_target(document: dict[str, Any]) -> None:
    """References are resolved from the root of the document."""
    for reference in references(document):
        target: Any = document
        for step in reference.removeprefix("#/").split("/"):
            assert step in target, reference
            target = target[step]


async def test_every_call_with_a_body_describes_it(document: dict[str, Any]) -> None:
    """Only POST has one; calls about the agent of the path need none."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            bodiless = "{agent_id}" in path or path.startswith("/admin/")
            assert ("requestBody" in operation) == (method == "post" and not bodiless), path


async def test_described_parameters_are_accepted(client: httpx2.AsyncClient, document: dict[str, Any]) -> None:
    """Each call accepts the query parameters of its description, and no others."""
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
        "exclude": {"exclude": "b"},
        "wait": {"wait": "1s"},
        "timeout": {"watch": "true", "timeout": "0.1s"},
        "send_initial": {"watch": "true", "send_initial": "true", "timeout": "0.1s"},
    }
    await client.post("/agents", json=a_registration("b"))
    page = (await client.get("/agents", params={"limit": "1"})).json()
    always = {"/select": {"capability": "a"}, "/events": {"agent_id": "a"}}
    samples["type"] = {"type": "register"}
    samples["continue"] = {"limit": "1", "continue": page["continue"]}
    for path, operations in document["paths"].items():
        for parameter in operations.get("get", {}).get("parameters", []):
            if parameter["in"] == "query":
                name = parameter["name"]
                params = samples.get(name, {name: "a"}) | always.get(path, {})
                response = await client.get(path.replace("{agent_id}", "a"), params=params)
                assert response.status_code == 200, (path, name, response.text)


async def test_each_tool_has_its_own_schema(client: httpx2.AsyncClient) -> None:
    """Each input schema is a complete object without references, and each tool has the path of its call."""
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


async def test_required_arguments_are_those_an_empty_call_misses(client: httpx2.AsyncClient) -> None:
    """The error of an empty call names exactly the arguments that the schema of the tool requires."""
    for tool in (await client.get("/mcp/tools")).json()["tools"]:
        schema = tool["inputSchema"]
        required = schema.get("required", [])
        response = await client.post(f"/mcp/tools/{tool['name']}", json={})
        if required:
            assert [detail["field"] for detail in response.json()["details"]] == required
        else:
            assert response.status_code == 200


def test_the_response_to_a_registration_is_described(document: Any) -> None:
    """With its warnings."""
    schema = document["paths"]["/agents"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]

    assert set(schema["required"]) == {"status", "agent_id", "resource_version", "message"}
    assert set(schema["properties"]["warnings"]["items"]["properties"]) == {"field", "problem", "did_you_mean"}
