"""The responses byte for byte, compared with `golden/`; values that change from run to run are masked.

`requests/` contains the requests of mcp-mesh clients as their SDK writes them.

Clients depend on these files, so a change of a file is a change of the API. To write the files again, run pytest with
`GOLDEN=write` and read the diff.
"""

import json
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from registry import __version__
from tests.support.http_calls import JSON_HEADERS, a_registration, register, send_heartbeat
from tests.support.in_process_registry import in_process_registry
from tests.support.polling import async_wait_until

GOLDEN = Path(__file__).parent / "responses"
REQUESTS = Path(__file__).parent / "requests"
FILE_AGENT: dict[str, Any] = {
    "id": "file-agent-001",
    "name": "File Operations Agent",
    "namespace": "system",
    "agent_type": "file_agent",
    "endpoint": "http://localhost:8001/mcp",
    "capabilities": [
        {
            "name": "read_file",
            "description": "Read file contents",
            "category": "file_operations",
            "version": "1.2.0",
            "tags": ["io", "filesystem"],
            "input_schema": {"type": "object", "properties": {"file_path": {"type": "string"}}},
            "a field of its own": [1, 2.5, None, {"kept": True}],
        },
        "write_file",
    ],
    "labels": {"env": "production", "team": "platform"},
    "dependencies": ["auth"],
    "health_interval": 30.0,
    "motto": "Größe ☃",
}

TOOLS_AGENT: dict[str, Any] = {
    "agent_id": "myservice-abc12345",
    "timestamp": "2026-01-01T00:00:00Z",
    "metadata": {
        "endpoint": "http://localhost:8889",
        "team": "demo",
        "tools": [
            {
                "function_name": "greet",
                "capability": "greeting",
                "version": "1.0.0",
                "tags": ["demo"],
                "dependencies": [
                    {"capability": "read_file", "version": ">=1.0.0", "tags": ["io", "-slow"], "namespace": "*"},
                    "weather",
                ],
            },
            {"function_name": "farewell", "capability": "goodbye"},
        ],
    },
}

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
MCPMESH_AGENT: dict[str, Any] = {
    "agent_id": "sky-1",
    "name": "sky",
    "agent_type": "mcp_agent",
    "runtime": "python",
    "http_host": "127.0.0.1",
    "http_port": 9,
    "tools": [
        {
            "function_name": "look",
            "capability": "sky",
            "version": "1.0.0",
            "inputSchemaHash": "sha256:1",
            "inputSchemaCanonical": SCHEMA,
            "dependencies": [
                {"capability": "read_file", "tags": [["io", "net"], "+fast", "-slow"], "version": ">=1.0.0"},
                {"capability": "write_file", "tags": ["safe"], "namespace": "system"},
            ],
        }
    ],
}

# Values that change from run to run, and their placeholders in a file.
MASKS = (
    (re.compile(rb'"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"'), b'"<time>"'),
    (re.compile(rb"\b1[789]\d{11}\b"), b"<version>"),
    (re.compile(rb"[0-9a-f]{8}-[0-9a-f]+(?=\")"), b"<request id>"),
    (re.compile(rb'("(?:uptime_seconds|time_since_heartbeat)":)[\d.]+'), rb"\1<seconds>"),
    (re.compile(rb'("timeline":)"[0-9a-f]{16}"'), rb'\1"<timeline>"'),
    (re.compile(rb'("host":)"[^"]+"'), rb'\1"<host>"'),
    (re.compile(rb'("pid":)\d+'), rb"\1<pid>"),
    (re.compile(rb'("change_notifications":)"(?:keyspace|disconnected)"'), rb'\1"<mode>"'),
    (re.compile(b'(?<="version":")%s(?=")' % re.escape(__version__).encode()), b"<release>"),
    (re.compile(rb'("warnings":)\[.*?\]'), rb"\1[]"),
)

Call = Callable[[httpx2.AsyncClient], Awaitable[httpx2.Response]]


def post(path: str, body: Any) -> Call:
    """Return a POST call."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda client: client.post(path, content=content, headers=JSON_HEADERS)


def get(path: str) -> Call:
    """Return a GET call."""
    return lambda client: client.get(path)


def in_order(first: Call, then: Call) -> Call:
    """Return both calls as one; it returns the response of the second."""

    async def call(client: httpx2.AsyncClient) -> httpx2.Response:
        assert (await first(client)).status_code == 200
        return await then(client)

    return call


def mcpmesh_heartbeat(name: str) -> Call:
    """Return a heartbeat with a registration in the mcp-mesh format."""
    return post("/heartbeat", (REQUESTS / f"{name}.json").read_bytes())


PROVIDER = mcpmesh_heartbeat("mcpmesh_provider")
CYCLIC_TOOL: dict[str, Any] = {
    "function_name": "f",
    "capability": "date_service",
    "dependencies": [{"capability": "strict_greeting", "required": True}],
}

CALLS: dict[str, Call] = {
    "mcpmesh_registered": in_order(PROVIDER, mcpmesh_heartbeat("mcpmesh_consumer")),
    "mcpmesh_updated": in_order(
        mcpmesh_heartbeat("mcpmesh_consumer"), in_order(PROVIDER, mcpmesh_heartbeat("mcpmesh_consumer"))
    ),
    "mcpmesh_unresolved": mcpmesh_heartbeat("mcpmesh_consumer"),
    "mcpmesh_provider": PROVIDER,
    "mcpmesh_llm": in_order(PROVIDER, mcpmesh_heartbeat("mcpmesh_llm")),
    "mcpmesh_llm_alone": mcpmesh_heartbeat("mcpmesh_llm"),
    "mcpmesh_route": in_order(PROVIDER, mcpmesh_heartbeat("mcpmesh_route")),
    "mcpmesh_cut": post("/heartbeat", {"agent_id": "a-1", "description": "d" * 300, "tools": None}),
    "mcpmesh_cycle": in_order(
        mcpmesh_heartbeat("mcpmesh_consumer"), post("/heartbeat", {"agent_id": "a-1", "tools": [CYCLIC_TOOL]})
    ),
    "mcpmesh_rejected": post("/heartbeat", {"agent_id": "A_1", "name": "", "runtime": "cobol", "tools": []}),
    "mcpmesh_400": post("/heartbeat", {"name": "a", "tools": []}),
    "mcpmesh_400_type": post("/heartbeat", {"agent_id": "a-1", "http_port": "80"}),
    "mcpmesh_agent": in_order(PROVIDER, get("/agents/sdk-provider-2ef6a763")),
    "registered": post("/agents", a_registration("new")),
    "agent": get("/agents/file-agent-001"),
    "agent_pending": get("/agents/small"),
    "agent_status": get("/agents/file-agent-001/status"),
    "agent_health": get("/health/file-agent-001"),
    "agent_health_pending": get("/health/small"),
    "agents": get("/agents?namespace=default"),
    "agents_none": get("/agents?namespace=nowhere"),
    "capabilities": get("/capabilities"),
    "discovered": post("/mcp/tools/discover_services", {"query": {"capabilities": ["write_file"]}}),
    "status_tool": post("/mcp/tools/get_agent_status", {"agent_id": "small"}),
    "heartbeat": post("/heartbeat", {"agent_id": "file-agent-001"}),
    "heartbeats": post("/heartbeats", {"agent_ids": ["file-agent-001", "nobody"]}),
    "batch": post("/agents/batch", {"agents": [a_registration("b"), {"id": "c"}]}),
    "drained": lambda client: client.post("/agents/small/drain"),
    "drained_many": post("/agents/drain", {"label_selector": "env=production"}),
    "unregistered": lambda client: client.delete("/agents/small"),
    "tools_format": post("/agents", TOOLS_AGENT),
    "tools_format_agent": in_order(post("/agents", TOOLS_AGENT), get("/agents/myservice-abc12345")),
    "tools_format_heartbeat": in_order(
        post("/agents", TOOLS_AGENT), post("/heartbeat", {"agent_id": "myservice-abc12345"})
    ),
    "dependencies": in_order(post("/agents", TOOLS_AGENT), get("/agents/myservice-abc12345/dependencies?explain=true")),
    "dependents": in_order(post("/agents", TOOLS_AGENT), get("/agents/file-agent-001/dependents")),
    "graph": in_order(post("/agents", TOOLS_AGENT), get("/dependencies")),
    "selected": get("/select?capability=read_file"),
    "selected_by_tool": post("/mcp/tools/select_agent", {"capability": "read_file", "tags": [["io", "x"]]}),
    "error_404_provider": get("/select?capability=x"),
    # One type each: the time of a change can be some milliseconds ahead of that of a resolution.
    "events": in_order(
        post("/heartbeat", MCPMESH_AGENT), get("/events?agent_id=sky-1&type=dependency_unresolved&limit=40")
    ),
    "events_of_changes": in_order(post("/heartbeat", MCPMESH_AGENT), get("/events?agent_id=sky-1&type=register")),
    "schemas": in_order(post("/heartbeat", MCPMESH_AGENT), get("/schemas?limit=100")),
    "schema": in_order(post("/heartbeat", MCPMESH_AGENT), get("/schemas/sha256:1")),
    "schema_unknown": get("/schemas/sha256:1"),
    "jobs_paused": lambda client: client.post("/admin/drain"),
    "jobs_handed_out": get("/admin/drain"),
    "jobs_claimed": post("/jobs/claim", {"capability": "sky", "instance_id": "sky-1"}),
    "proxy_400": post("/proxy/sky-1/mcp", {}),
    "proxy_403": post("/proxy/sky-1:80/mcp", {}),
    "proxy_502": in_order(post("/heartbeat", MCPMESH_AGENT), post("/proxy/sky-1:9/mcp", {})),
    "health": get("/health"),
    "ready": get("/ready"),
    "metrics": get("/metrics"),
    "root": get("/"),
    "error_400": post("/agents", b""),
    "error_400_parameter": get("/agents?capabilty=x"),
    "error_404_agent": get("/agents/nobody"),
    "error_404_path": get("/nothing"),
    "error_405": lambda client: client.put("/agents"),
    "error_409": post("/agents", a_registration("small", resource_version="1")),
    "error_413": post("/agents", b" " * 2_000_000),
    "error_415": lambda client: client.post("/agents", content=b"x", headers={"content-type": "text/plain"}),
    "error_422": post("/agents", {"id": "a b", "capabilities": [{"name": "x", "version": "1.x"}, {}]}),
    "error_503": get("/agents?resource_version=1999999999999"),
}


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[httpx2.AsyncClient]:
    """Provide a client of a mesh with two agents: one has sent a heartbeat, the other never has."""
    async with in_process_registry(redis_url, instance_id="golden") as client:
        await client.post("/agents", json=FILE_AGENT)
        await send_heartbeat(client, "file-agent-001")
        await register(client, "small", capabilities=["x"])
        await async_wait_until(lambda: _leads(client), description="the only replica is the leader")
        yield client


async def _leads(client: httpx2.AsyncClient) -> bool:
    return bool((await client.get("/health")).json()["leader"]["leading"])


def mask(content: bytes) -> bytes:
    """Return a response body with the changing values replaced."""
    for pattern, placeholder in MASKS:
        content = pattern.sub(placeholder, content)
    return content


@pytest.mark.parametrize("name", CALLS)
async def test_a_response_equals_its_golden_file(client: httpx2.AsyncClient, name: str) -> None:
    """Fields, their order, their types and their texts are the same."""
    await client.get("/agents")

    body = mask((await CALLS[name](client)).content)

    file = GOLDEN / f"{name}.json"
    if os.environ.get("GOLDEN") == "write":
        file.write_bytes(body)
    assert body == file.read_bytes()


def test_every_golden_file_has_its_call() -> None:
    """No file is left of a removed call."""
    assert {file.stem for file in GOLDEN.iterdir()} == CALLS.keys()
