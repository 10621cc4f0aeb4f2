"""The client has a method for each call of the API, with the response and the type of the API."""

import inspect
import json
import re
from pathlib import Path
from typing import Any, assert_type, get_type_hints

import pytest
from mcp_mesh_client import (
    Agent,
    AgentDependencies,
    AgentDependents,
    AgentHealth,
    AgentList,
    AgentStatus,
    AgentStatusResponse,
    Candidate,
    Capability,
    CapabilityList,
    CapabilityRow,
    DependencyEdge,
    DependencyExplanation,
    DependencyGraph,
    Dependent,
    DiscoverResult,
    DrainResult,
    DrainResults,
    ErrorDetail,
    ErrorResponse,
    Health,
    HeartbeatResult,
    HeartbeatResults,
    Leader,
    Metrics,
    Outage,
    Provider,
    Readiness,
    RegisterResult,
    RegisterResults,
    RegistryClient,
    ResolutionTrace,
    SelectResult,
    SelfPreservation,
    ServiceDescription,
    Tool,
    UnregisterResult,
)

from tests.client.client_setup import REGISTRATION, agent_ids, expect_error, expect_success
from tests.support.endpoints import all_endpoints
from tests.support.served_registry import served_registry

GOLDEN = Path(__file__).parent.parent / "golden" / "responses"

# The type of each golden response; a path selects a part of it.
SHAPES: dict[str, type] = {
    "registered": RegisterResult,
    "unregistered": UnregisterResult,
    "heartbeat": HeartbeatResult,
    "heartbeats": HeartbeatResults,
    "batch": RegisterResults,
    "agent": Agent,
    "agent_pending": Agent,
    "agents": AgentList,
    "agents_none": AgentList,
    "agent_status": AgentStatus,
    "agent_health": AgentHealth,
    "agent_health_pending": AgentHealth,
    "capabilities": CapabilityList,
    "discovered": DiscoverResult,
    "status_tool": AgentStatusResponse,
    "health": Health,
    "ready": Readiness,
    "metrics": Metrics,
    "root": ServiceDescription,
    "agents.agents.0": Agent,
    "agent.capabilities.0": Capability,
    "capabilities.capabilities.0": CapabilityRow,
    "batch.results.0": RegisterResult,
    "batch.results.1": ErrorResponse,
    "heartbeats.results.file-agent-001": HeartbeatResult,
    "health.leader": Leader,
    "tools_format": RegisterResult,
    "tools_format_agent": Agent,
    "tools_format_agent.capabilities.0": Capability,
    "tools_format_heartbeat": HeartbeatResult,
    "tools_format.dependencies_resolved.greet.read_file": Provider,
    "dependencies": AgentDependencies,
    "dependencies.explanation.greet.0": DependencyExplanation,
    "dependencies.explanation.greet.1": DependencyExplanation,
    "dependencies.explanation.greet.0.candidates.0": Candidate,
    "dependencies.recent_resolutions.0": ResolutionTrace,
    "dependents": AgentDependents,
    "dependents.dependents.0": Dependent,
    "graph": DependencyGraph,
    "graph.dependencies.0": DependencyEdge,
    "graph.dependencies.1": DependencyEdge,
    "selected": SelectResult,
    "selected_by_tool": SelectResult,
    "health.outage": Outage,
    "health.self_preservation": SelfPreservation,
    "drained": DrainResult,
    "drained_many": DrainResults,
    "drained_many.results.file-agent-001": DrainResult,
    "error_422.details.0": ErrorDetail,
    **{name.stem: ErrorResponse for name in GOLDEN.glob("error_*.json")},
}
# Fields outside the schema that the agent registered; the registry stores and returns them.
OWN_FIELDS = {"motto", "a field of its own"}


def golden_part(path: str) -> dict[str, Any]:
    """Return a part of a golden response."""
    name, *steps = path.split(".")
    text = (GOLDEN / f"{name}.json").read_text(encoding="utf-8")
    value: Any = json.loads(re.sub(r"(?<!\")<(seconds|pid|version)>", "1", text))
    for step in steps:
        value = value[int(step)] if isinstance(value, list) else value[step]
    found: dict[str, Any] = value
    return found


@pytest.mark.parametrize("path", SHAPES)
def test_the_types_match_the_golden_responses(path: str) -> None:
    """A response has all required keys, and no key that is missing in the type."""
    shape = SHAPES[path]
    fields = set(golden_part(path)) - OWN_FIELDS

    assert fields >= shape.__required_keys__  # type: ignore[attr-defined]
    assert fields <= set(get_type_hints(shape))


# Responses for other clients.
OTHER_CLIENTS = {
    *(
        "events",
        "events_of_changes",
        "schemas",
        "schema",
        "schema_unknown",
        "jobs_paused",
        "jobs_handed_out",
        "jobs_claimed",
    ),
    *("proxy_400", "proxy_403", "proxy_502"),
}


def test_every_golden_response_has_a_type() -> None:
    """A new golden response needs a type, except for the mcp-mesh format, which other clients read."""
    typed = {path.partition(".")[0] for path in SHAPES}

    golden = {name.stem for name in GOLDEN.iterdir() if not name.stem.startswith("mcpmesh_")}
    assert golden - OTHER_CLIENTS <= typed


# The method for each call of the API.
METHODS = {
    "GET /": "describe",
    "GET /agents": "agents",
    "POST /agents": "register_agent",
    "POST /agents/batch": "register_many",
    "GET /agents/{agent_id}": "agent",
    "DELETE /agents/{agent_id}": "unregister_agent",
    "GET /agents/{agent_id}/status": "agent_status",
    "POST /agents/{agent_id}/drain": "drain",
    "POST /agents/{agent_id}/undrain": "undrain",
    "POST /agents/drain": "drain_many",
    "POST /agents/undrain": "undrain_many",
    "POST /admin/self-preservation/end": "end_self_preservation",
    "GET /agents/{agent_id}/dependencies": "dependencies",
    "GET /agents/{agent_id}/dependents": "dependents",
    "GET /dependencies": "dependency_graph",
    "POST /mcp/tools/select_agent": "select_agent",
    "GET /capabilities": "capabilities",
    "POST /heartbeat": "heartbeat",
    "POST /heartbeats": "heartbeats",
    "GET /health": "health",
    "GET /health/{agent_id}": "agent_health",
    "GET /ready": "ready",
    "GET /metrics": "metrics",
    "GET /metrics/prometheus": "metrics_text",
    "GET /mcp/tools": "tools",
    "POST /mcp/tools/discover_services": "discover_services",
    "POST /mcp/tools/get_agent_status": "get_agent_status",
    "GET /openapi.json": "openapi",
}
# Calls without a method: another call does the same, or an MCP client makes them.
WITHOUT_METHOD = {f"POST /mcp/tools/{name}" for name in ("register_agent", "unregister_agent", "heartbeat")} | {
    "GET /select",
    "POST /mcp",
    # For meshctl and the agents that it starts.
    *("GET /events", "GET /schemas", "GET /schemas/{hash}", "POST /jobs/claim"),
    *("GET /jobs", "GET /jobs/{job_id}", "GET /a2a/agents"),
    *("GET /proxy/{host}:{port}/mcp", "POST /proxy/{host}:{port}/mcp"),
    *("GET /admin/drain", "POST /admin/drain", "DELETE /admin/drain"),
}
# Methods that are not exactly one call.
HELPERS = {"close", "keep_alive", "register_with_fallback", "wait_for", "watch"}


def test_every_call_of_the_api_has_a_method() -> None:
    """Every tool also has a method of the same name."""
    assert set(METHODS) | WITHOUT_METHOD == set(all_endpoints())
    public = {name for name, _ in inspect.getmembers(RegistryClient, inspect.isfunction) if not name.startswith("_")}
    assert public == set(METHODS.values()) | HELPERS
    assert {call.rpartition("/")[2] for call in all_endpoints() if call.startswith("POST /mcp/tools/")} <= public


async def test_every_method_returns_the_response_of_the_api(redis_url: str) -> None:
    """The responses are equal to those over HTTP, except for values that depend on the time."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        expect_success(await client.register_agent(REGISTRATION))
        registered: Any = await client.register_many(
            [REGISTRATION | {"id": "b"}, REGISTRATION | {"id": "c", "endpoint": "x"}]
        )
        expect_success(await client.heartbeat("a", {"load": 1}))
        heartbeats: Any = await client.heartbeats(["a", "nobody"])

        assert [result["status"] for result in registered["results"]] == ["success", "error"]
        assert [heartbeats["results"][name]["status"] for name in ("a", "nobody")] == ["success", "error"]
        for path, response in (
            (
                "/agents?capability=greeting&status=healthy",
                await client.agents(capability="greeting", status="healthy"),
            ),
            ("/agents?limit=1", await client.agents(limit=1)),
            ("/agents/a", await client.agent("a")),
            ("/agents/a/status", await client.agent_status("a")),
            ("/capabilities?name=greeting", await client.capabilities(name="greeting")),
            ("/health/a", await client.agent_health("a")),
            ("/health", await client.health()),
            ("/ready", await client.ready()),
            ("/metrics", await client.metrics()),
            ("/mcp/tools", await client.tools()),
            ("/openapi.json", await client.openapi()),
            ("/", await client.describe()),
        ):
            assert without_times(response) == without_times((await served.client.get(path)).json()), path
        assert "mcp_registry_agents_total 2.0" in str(await client.metrics_text())
        shown_agent: Any = await client.get_agent_status("a")
        assert shown_agent["agent"] == await client.agent("a")
        assert agent_ids(await client.discover_services()) == ["a"]
        assert agent_ids(await client.discover_services({"capabilities": ["greeting"], "status": "any"})) == ["a", "b"]
        assert expect_success(await client.unregister_agent("a"))["agent_id"] == "a"
        assert agent_ids(await client.agents()) == ["b"]


def without_times(response: Any) -> dict[str, Any]:
    """Return a response without the values that change by themselves; list rows may have an older heartbeat."""
    changing = {
        "timestamp",
        "uptime_seconds",
        "time_since_heartbeat",
        "staleness_seconds",
        "continue",
        "last_heartbeat",
    }
    found = {name: value for name, value in response.items() if name not in changing}
    if "agents" in found:
        found["agents"] = [without_times(agent) for agent in found["agents"]]
    return found


async def test_agents_are_drained_and_undrained(redis_url: str) -> None:
    """One agent, or all that match; `wait_for` does not return a draining agent."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        await client.register_many([REGISTRATION | {"id": name, "labels": {"host": "h"}} for name in "ab"])
        await client.heartbeats(["a", "b"])

        assert expect_success(await client.drain("a"))["changed"]
        assert not expect_success(await client.drain("a"))["changed"]
        assert agent_ids(await client.agents(draining=True)) == ["a"]
        assert [agent["id"] for agent in await client.wait_for("greeting", timeout=5)] == ["b"]
        assert expect_success(await client.drain_many(label_selector="host=h"))["changed"] == 1
        with pytest.raises(TimeoutError):
            await client.wait_for("greeting", timeout=0.3)
        assert len(await client.wait_for("greeting", timeout=5, draining=True)) == 2
        assert expect_success(await client.undrain("b"))["draining"] is False
        assert set(expect_success(await client.undrain_many(namespace="default"))["results"]) == {"a", "b"}
        assert agent_ids(await client.discover_services()) == ["a", "b"]
        with pytest.raises(ValueError, match=r"^Missing required field: label_selector, namespace or both$"):
            await client.drain_many()
        assert expect_success(await client.end_self_preservation())["ended"] is False


async def test_dependencies_are_resolved_selected_and_explained(redis_url: str) -> None:
    """Responses to registrations and heartbeats, dependencies and dependents of an agent, and the graph."""
    tool = {"function_name": "greet", "capability": "welcome", "dependencies": ["greeting", "weather"]}
    async with served_registry(redis_url) as served, RegistryClient(served.url, cache_ttl=60) as client:
        expect_success(await client.register_agent(REGISTRATION))
        expect_success(await client.heartbeat("a", load=0.5))
        consumer = {"agent_id": "b", "metadata": {"endpoint": "http://b:1", "tools": [tool]}}
        registered = expect_success(await client.register_agent(consumer))
        provider = {"agent_id": "a", "endpoint": "http://a:1", "tool_name": "greeting"}
        version = registered["dependencies_version"]
        same = expect_success(await client.heartbeat("b", dependencies_version=version))
        moved = expect_success(await client.heartbeat("a", {"endpoint": "http://a:2"}))
        after_move = expect_success(await client.heartbeat("b", dependencies_version=version))

        assert registered["dependencies_resolved"] == {"greet": {"greeting": provider, "weather": None}}
        assert "dependencies_resolved" not in same
        assert "dependencies_resolved" not in moved
        assert after_move["dependencies_resolved"]["greet"]["greeting"]["endpoint"] == "http://a:2"
        selected = expect_success(await client.select_agent("greeting", tags=[], strategy="round_robin"))
        assert (selected["agent_id"], selected["endpoint"]) == ("a", "http://a:2")
        assert (
            expect_error(await client.select_agent("greeting", tags=[["none", "of these"]]))["error"] == "no_provider"
        )
        explained: Any = await client.dependencies("b", explain=True)
        assert explained["explanation"]["greet"][0]["chosen"]["agent_id"] == "a"
        assert "explanation" not in await client.dependencies("b")
        dependents: Any = await client.dependents("a")
        assert [each["agent_id"] for each in dependents["dependents"]] == ["b"]
        graph: Any = await client.dependency_graph()
        assert [edge["capability"] for edge in graph["unresolved"]] == ["weather"]
        assert (await client.dependency_graph(namespace="nowhere"))["count"] == 0  # type: ignore[typeddict-item]


async def test_each_selection_is_a_new_one_in_spite_of_the_cache(redis_url: str) -> None:
    """Round robin selects each agent equally often."""
    async with served_registry(redis_url) as served, RegistryClient(served.url, cache_ttl=60) as client:
        await client.register_many([REGISTRATION | {"id": name} for name in "abc"])
        await client.heartbeats(list("abc"))

        selected = [
            expect_success(await client.select_agent("greeting", strategy="round_robin"))["agent_id"] for _ in range(6)
        ]

        assert sorted(selected) == list("aabbcc")


async def test_a_long_list_is_read_page_by_page(redis_url: str) -> None:
    """`continue` is a Python keyword, so the parameter is `continue_`, or `continue` in a dict."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        await client.register_many([REGISTRATION | {"id": name} for name in "abc"])
        first: Any = await client.agents(limit=2)
        second: Any = await client.agents(limit=2, continue_=first["continue"])
        token: Any = {"continue": first["continue"]}

        assert agent_ids(first) + agent_ids(second) == ["a", "b", "c"]
        assert agent_ids(await client.agents(limit=2, **token)) == ["c"]


async def test_a_long_poll_may_last_longer_than_the_timeout_of_a_call(redis_url: str) -> None:
    """The wait of a long poll is added to the timeouts."""
    async with (
        served_registry(redis_url) as served,
        RegistryClient(served.url, timeout=1.0, attempt_timeout=0.8) as client,
    ):
        before: Any = await client.agents()
        after = await client.agents(wait=1.5, resource_version=before["resource_version"])

        assert agent_ids(after) == []


REJECTED_CALLS = {
    "register_agent": lambda client: client.register_agent(REGISTRATION | {"endpoint": "x"}),
    "register_many": lambda client: client._session.write(RegisterResults, "POST", "/agents/batch", {"agents": 1}),
    "unregister_agent": lambda client: client.unregister_agent("nobody"),
    "heartbeat": lambda client: client.heartbeat("nobody"),
    "agent": lambda client: client.agent("nobody"),
    "agent_status": lambda client: client.agent_status("nobody"),
    "agent_health": lambda client: client.agent_health("nobody"),
    "get_agent_status": lambda client: client.get_agent_status("nobody"),
    "agents": lambda client: client.agents(label_selector="=="),
    "capabilities": lambda client: client.capabilities(version_constraint="nonsense"),
    "discover_services": lambda client: client.discover_services({"capabilty": "x"}),
    "unknown filter": lambda client: client.agents(capabilty="x"),
}


@pytest.mark.parametrize("call", REJECTED_CALLS.values(), ids=REJECTED_CALLS)
async def test_an_error_response_is_returned_unchanged(redis_url: str, call: Any) -> None:
    """It is `{"status": "error", ...}` with a code and a message."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        response = expect_error(await call(client))

        assert response["error"] in ("unknown_agent", "malformed_request", "validation_failed")
        assert response["message"]


async def test_a_registration_with_an_old_version_changes_nothing(redis_url: str) -> None:
    """The client returns the 409 response with the current version."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        version = expect_success(await client.register_agent(REGISTRATION))["resource_version"]
        response = expect_error(
            await client.register_agent(REGISTRATION | {"resource_version": "0", "labels": {"k": "v"}})
        )

        assert (response["error"], response["resource_version"]) == ("stale_version", version)
        expect_success(await client.register_agent(REGISTRATION | {"resource_version": version, "labels": {"k": "v"}}))


@pytest.mark.parametrize("agent_id", ["a:b", "a..b", "-", "batch"])
async def test_any_id_finds_its_agent(redis_url: str, agent_id: str) -> None:
    """Ids that have a meaning in a path are encoded."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        expect_success(await client.register_agent(REGISTRATION | {"id": agent_id}))

        shown_agent: Any = await client.agent(agent_id)
        assert shown_agent["id"] == agent_id
        assert (await client.agent_status(agent_id))["status"] == "pending"
        assert (await client.agent_health(agent_id))["status"] == "pending"
        expect_success(await client.unregister_agent(agent_id))
        for dots in (".", ".."):
            assert expect_error(await client.agent(dots))["error"] == "unknown_agent"


async def test_readiness_is_read_from_a_ready_replica(redis_url: str) -> None:
    """A replica that shuts down is not ready, and the client calls the next one."""
    async with (
        served_registry(redis_url) as stopping,
        served_registry(redis_url) as ready,
        RegistryClient(stopping.url) as client,
    ):
        stopping.registry.status.shutting_down = True

        assert await client.ready() == {"status": "not_ready"}
        async with RegistryClient([stopping.url, ready.url]) as both:
            assert await both.ready() == {"status": "ready"}


async def test_the_warnings_of_a_registration_are_returned_and_logged(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """In a single call and in a batch call, each with the path in its request."""
    agent = {"id": "a", "endpoint": "http://0.0.0.0:1", "capabilites": ["w"]}
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        alone = expect_success(await client.register_agent(agent))
        await client.register_many([agent])

    assert [each["field"] for each in alone["warnings"]] == ["capabilites", "endpoint"]
    logged = [record.message for record in caplog.records if record.message.startswith("registration_warning")]
    assert [line.partition(" problem=")[0] for line in logged] == [
        f"registration_warning id=a field={prefix}{field}"
        for prefix in ("", "agents[0].")
        for field in ("capabilites", "endpoint")
    ]
    assert logged[0].endswith('" did_you_mean=capabilities')


async def types_of(client: RegistryClient) -> None:
    """Never run, only read by mypy: a key distinguishes a response from an error."""
    found = await client.agents()
    if "error" in found:
        assert_type(found, ErrorResponse)
        return
    assert_type(found, AgentList)
    registered = await client.register_agent({})
    if registered["status"] == "success":
        assert_type(registered, RegisterResult)
    shown_agent = await client.agent("a")
    if shown_agent["status"] != "error":
        assert_type(shown_agent, Agent)
    heartbeat = await client.heartbeat("a")
    assert_type(heartbeat, HeartbeatResult | ErrorResponse)


def test_the_type_of_a_tool_has_the_keys_of_the_api() -> None:
    """Name, description, schema and annotations, and no other key."""
    assert set(get_type_hints(Tool)) == {"name", "description", "inputSchema", "annotations"}
