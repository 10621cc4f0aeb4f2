"""The guide `pull_based_registry.md`: its requests are accepted unchanged, and its code runs."""

import ast
import json
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timezone
from types import SimpleNamespace
from typing import Any, NamedTuple

import aiohttp
import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.seeds.code_blocks import code_blocks, find_code_block
from tests.support.http_calls import (
    REQUEST_TIMEOUT_S,
    expect_error,
    expect_success,
    get_retried,
    list_agent_ids,
    register,
    send_heartbeat,
)
from tests.support.in_process_registry import in_process_registry
from tests.support.replica import Replica

GUIDE = "pull_based_registry.md"


class Request(NamedTuple):
    """One request of the guide, and the response that the guide shows."""

    path: str
    headers: dict[str, str]
    body: str
    response: dict[str, Any] | None


def tool_requests() -> dict[str, Request]:
    """Return the POST requests of the guide by the name of the tool."""
    found = {}
    all_blocks = code_blocks(GUIDE)
    for at, (kind, text) in enumerate(all_blocks):
        if kind == "http" and text.startswith("POST /mcp/tools/"):
            head, _, body = text.partition("\n\n")
            line, *headers = head.splitlines()
            path = line.removeprefix("POST ")
            following = all_blocks[at + 1]
            response = json.loads(following.text.replace("[...]", "[]")) if following.language == "json" else None
            found[path.rpartition("/")[2]] = Request(path, dict(each.split(": ") for each in headers), body, response)
    return found


TOOLS = tool_requests()
WORKFLOW = ("register_agent", "heartbeat", "discover_services", "get_agent_status", "unregister_agent")

# Every GET of the guide, and the expected agents of its result, among those of `OTHERS` and of the guide.
GETS = {
    "/agents?namespace=system&status=healthy&capability=read_file": ["file-agent-001"],
    "/agents?label_selector=env=production,team=platform": ["file-agent-001"],
    "/agents?fuzzy_match=true&capability=file": ["other", "file-agent-001"],
    "/agents?version_constraint=%3E%3D1.0.0": ["lint", "other", "file-agent-001"],
    "/capabilities?category=file_operations&stability=stable": ["file-agent-001"],
    "/capabilities?name=read&fuzzy_match=true": ["other", "file-agent-001"],
    "/capabilities?tags=filesystem&agent_status=healthy": ["file-agent-001"],
    "/capabilities?description_contains=file&include_deprecated=false": ["lint", "file-agent-001"],
}

OTHERS: dict[str, list[dict[str, Any]]] = {
    "other": [{"name": "read_file", "version": "1.0.0", "tags": ["filesystem"], "stability": "beta"}],
    "lint": [
        {"name": "style", "description": "Lints a FILE"},
        {"name": "old_style", "description": "Lints a file", "stability": "deprecated"},
    ],
}


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[httpx2.AsyncClient]:
    """Provide a client of a replica in this process."""
    async with in_process_registry(redis_url) as client:
        yield client


async def send(client: httpx2.AsyncClient, tool: str, prefix: str = "") -> dict[str, Any]:
    """Send the unchanged request of the guide for a tool, which must succeed."""
    request = TOOLS[tool]
    return expect_success(await client.post(prefix + request.path, content=request.body, headers=request.headers))


def assert_response_has(shown: Any, response: Any, path: str = "") -> None:
    """Assert that the response has every field of the response shown, with a value of the same kind."""
    if isinstance(shown, dict):
        assert isinstance(response, dict), path
        for name, value in shown.items():
            assert name in response, f"{path}.{name}"
            assert_response_has(value, response[name], f"{path}.{name}")
    elif isinstance(shown, list):
        assert isinstance(response, list), path
        for mine, theirs in zip(shown, response, strict=False):
            assert_response_has(mine, theirs, f"{path}[]")
    elif path.rpartition(".")[2] in ("resource_version", "timestamp", "last_heartbeat"):
        assert isinstance(response, str), path
    else:
        assert response == shown, path


@pytest.mark.parametrize("prefix", ["", "/api/v1"])
async def test_the_five_tools_accept_the_bodies_and_return_the_fields_of_the_guide(
    client: httpx2.AsyncClient, prefix: str
) -> None:
    """Register, heartbeat, discover, status and unregister, each exactly as in the guide."""
    assert set(TOOLS) == set(WORKFLOW)

    for tool in WORKFLOW:
        response = await send(client, tool, prefix)
        assert_response_has(TOOLS[tool].response or {"status": "success"}, response)

    assert await list_agent_ids(client) == []


async def test_the_agent_is_returned_as_it_was_registered(client: httpx2.AsyncClient) -> None:
    """Every field of the registration is returned unchanged."""
    await send(client, "register_agent")
    sent = json.loads(TOOLS["register_agent"].body)["registration_data"]

    agent = (await send(client, "get_agent_status"))["agent"]

    assert {name: agent[name] for name in sent} == sent


async def test_a_registration_is_not_discovered_as_healthy_before_its_first_heartbeat(
    client: httpx2.AsyncClient,
) -> None:
    """The agents of the guide send a heartbeat after they registered; until then they are pending."""
    await send(client, "register_agent")

    assert (await send(client, "discover_services"))["count"] == 0
    await send(client, "heartbeat")
    assert (await send(client, "discover_services"))["count"] == 1


def one_line_targets(method: str) -> list[str]:
    """Return the targets of the one-line requests of the guide."""
    text = "\n".join(text for kind, text in code_blocks(GUIDE) if kind == "http")
    return [found.split(" ")[0] for found in re.findall(rf"^{method} (\S.*)$", text, re.MULTILINE)]


def test_every_get_of_the_guide_is_in_the_table() -> None:
    """The table has no other GET."""
    assert [target for target in one_line_targets("GET") if "?" in target] == list(GETS)


@pytest.mark.parametrize(("target", "expected"), GETS.items())
async def test_the_queries_of_the_guide_find_the_agents_they_describe(
    client: httpx2.AsyncClient, target: str, expected: list[str]
) -> None:
    """Each query is sent unchanged."""
    await send(client, "register_agent")
    await send(client, "heartbeat")
    for agent_id, capabilities in OTHERS.items():
        await register(client, agent_id, capabilities=capabilities)

    response = await get_retried(client, httpx2.URL(f"http://localhost{target}"))

    assert response.status_code == 200, response.text
    body = response.json()
    found = body["agents"] if "agents" in body else body["capabilities"]
    assert [row.get("agent_id", row.get("id")) for row in found] == expected


async def test_the_health_and_monitoring_calls_exist(client: httpx2.AsyncClient) -> None:
    """Each line of that block, with the agent of the guide in the path."""
    await send(client, "register_agent")
    plain = [target for target in one_line_targets("GET") if "?" not in target]
    assert plain == ["/health/{agent_id}", "/health", "/metrics", "/metrics/prometheus"]

    for target in plain:
        assert (await get_retried(client, target.format(agent_id="file-agent-001"))).status_code == 200
    assert "/heartbeat" in one_line_targets("POST")
    await send_heartbeat(client, "file-agent-001")


def registrations() -> Iterator[Any]:
    """Yield the registrations of the agents in the code examples."""
    me = SimpleNamespace(agent_id="my-agent-001", heartbeat_interval=30.0)
    tree = ast.parse(find_code_block(GUIDE, "class MyAgent:"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "registration_data":
            yield eval(compile(ast.Expression(node.value), GUIDE, "eval"), {"self": me})  # noqa: S307 - the guide's own code
    for name, context in (("FileAgent", "standard"), ("CommandAgent", "high_security")):
        for node in ast.walk(ast.parse(find_code_block(GUIDE, f"class {name}:"))):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "self.capabilities":
                yield {
                    "id": name,
                    "endpoint": "http://localhost:8001",
                    "namespace": "system",
                    "security_context": context,
                    "capabilities": ast.literal_eval(node.value),
                }


async def test_the_agents_of_the_code_examples_may_register(client: httpx2.AsyncClient) -> None:
    """The custom agent, the file agent, and the command agent under `high_security`."""
    sent = list(registrations())
    assert [each["id"] for each in sent] == ["my-agent-001", "FileAgent", "CommandAgent"]

    for each in sent:
        expect_success(await client.post("/agents", json=each))
    without_audit = sent[2] | {"capabilities": sent[2]["capabilities"][:-1]}
    body = expect_error(await client.post("/agents", json=without_audit), 422, "validation_failed")

    assert body["message"].endswith("requires the capabilities audit")


async def test_every_metric_of_the_guide_is_exposed_in_its_format(client: httpx2.AsyncClient) -> None:
    """With the same names, labels, types and notation, also if the value is zero."""
    shown = find_code_block(GUIDE, "# HELP mcp_registry_agents_total")
    text = (await client.get("/metrics/prometheus")).text

    samples = {line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")}
    for line in filter(None, shown.splitlines()):
        if line.startswith("# TYPE"):
            assert line in text.splitlines()
        elif not line.startswith("#"):
            assert line.rpartition(" ")[0] in samples
    expected = {family.name for family in text_string_to_metric_families(shown)}
    assert expected <= {family.name for family in text_string_to_metric_families(text)}


NAMES = {"aiohttp": aiohttp, "datetime": datetime, "timezone": timezone}


def guide_function(name: str, url: str) -> Any:
    """Return a coroutine function of the guide, for the registry at `url`."""
    code = find_code_block(GUIDE, f"async def {name}(")
    names: dict[str, Any] = dict(NAMES)
    exec(code.replace("http://localhost:8000", url), names)  # noqa: S102 - the guide's own code
    return names[name]


async def test_the_dashboard_of_the_guide_runs(redis_url: str) -> None:
    """Its unchanged code shows the agents of a replica."""
    with Replica(redis_url) as replica:
        async with httpx2.AsyncClient(base_url=replica.url, timeout=REQUEST_TIMEOUT_S) as client:
            await send(client, "register_agent")
            at = await send_heartbeat(client, "file-agent-001")
            await register(client, "pending", name="Pending", capabilities=["x", "y"])
            await list_agent_ids(client)

        dashboard = await guide_function("create_health_dashboard", replica.url)()

    assert datetime.fromisoformat(dashboard["timestamp"]).tzinfo == UTC
    assert dashboard["registry"].pop("uptime_seconds") > 0
    assert dashboard["registry"] == {
        "status": "healthy",
        "total_agents": 2,
        "healthy_agents": 1,
        "degraded_agents": 0,
        "expired_agents": 0,
    }
    pending_agent, file_agent = dashboard["agents"]
    assert 0 <= file_agent.pop("time_since_heartbeat") < 5
    assert file_agent == {
        "id": "file-agent-001",
        "name": "File Operations Agent",
        "status": "healthy",
        "last_heartbeat": at,
        "capabilities_count": 1,
    }
    assert pending_agent == {
        "id": "pending",
        "name": "Pending",
        "status": "pending",
        "last_heartbeat": None,
        "time_since_heartbeat": None,
        "capabilities_count": 2,
    }


async def test_the_health_pattern_of_the_guide_runs(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints the values of the registry, for a registered and for an unknown agent."""
    with Replica(redis_url) as replica:
        monitor = guide_function("monitor_agent_health", replica.url)
        await monitor()
        unknown_output = capsys.readouterr().out
        async with httpx2.AsyncClient(base_url=replica.url, timeout=REQUEST_TIMEOUT_S) as client:
            await send(client, "register_agent")
            at = await send_heartbeat(client, "file-agent-001")
            await list_agent_ids(client)
        await monitor()
        registered_output = capsys.readouterr().out

    assert "Registry status: healthy" in unknown_output
    assert "Agent file-agent-001 not found" in unknown_output
    for line in ("  Status: healthy", f"  Last heartbeat: {at}", "  Is expired: False", "Total agents: 1"):
        assert line in registered_output.splitlines()
    assert re.search(r"^  Time since heartbeat: [0-9.]+s$", registered_output, re.MULTILINE)
