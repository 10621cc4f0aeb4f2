"""Every call of the API is there, answers what stands on the wire, and is typed as it is."""

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

from tests.client.client_setup import REGISTRATION, agent_ids, expect_refusal, expect_success
from tests.support.endpoints import all_endpoints
from tests.support.served_registry import served_registry

GOLDEN = Path(__file__).parent.parent / "wire" / "golden"

# The shape of each answer on the wire; a path leads to a part of it.
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
    "batched": RegisterResult,
    "batched_agent": Agent,
    "batched_agent.capabilities.0": Capability,
    "batched_heartbeat": HeartbeatResult,
    "batched.dependencies_resolved.greet.read_file": Provider,
    "dependencies": AgentDependencies,
    "dependencies.explanation.greet.0": DependencyExplanation,
    "dependencies.explanation.greet.1": DependencyExplanation,
    "dependencies.explanation.greet.0.candidates.0": Candidate,
    "dependencies.history.0": ResolutionTrace,
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
# What an agent said of itself beyond what is known; it is kept and given back.
OWN = {"motto", "a field of its own"}


def on_the_wire(place: str) -> dict[str, Any]:
    """Return a part of a golden answer."""
    name, *steps = place.split(".")
    text = (GOLDEN / f"{name}.json").read_text(encoding="utf-8")
    value: Any = json.loads(re.sub(r"(?<!\")<(seconds|pid|version)>", "1", text))
    for step in steps:
        value = value[int(step)] if isinstance(value, list) else value[step]
    found: dict[str, Any] = value
    return found


@pytest.mark.parametrize("place", SHAPES)
def test_the_shapes_are_those_of_the_wire(place: str) -> None:
    """All that is required is there, and nothing is there that the shape does not know."""
    shape = SHAPES[place]
    fields = set(on_the_wire(place)) - OWN

    assert fields >= shape.__required_keys__  # type: ignore[attr-defined]
    assert fields <= set(get_type_hints(shape))


# Answers that other clients read.
MESHCTLS = {
    *("events", "schemas", "schema", "schema_unknown", "jobs_paused", "jobs_handed_out", "jobs_claimed"),
    *("proxy_400", "proxy_403", "proxy_502"),
}


def test_every_answer_on_the_wire_has_its_shape() -> None:
    """A new answer comes with one, but for those of the flat form, which is for other clients."""
    known = {place.partition(".")[0] for place in SHAPES}

    answers = {name.stem for name in GOLDEN.iterdir() if not name.stem.startswith("mcpmesh_")}
    assert answers - MESHCTLS <= known


# Each call of the API, and the method that makes it.
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
# What does the same as another call, which is made instead; /mcp is for the clients of MCP.
SAME = {f"POST /mcp/tools/{name}" for name in ("register_agent", "unregister_agent", "heartbeat")} | {
    "GET /select",
    "POST /mcp",
    # For meshctl and the agents it looks after.
    *("GET /events", "GET /schemas", "GET /schemas/{hash}", "POST /jobs/claim"),
    *("GET /proxy/{host}:{port}/mcp", "POST /proxy/{host}:{port}/mcp"),
    *("GET /admin/drain", "POST /admin/drain", "DELETE /admin/drain"),
}
# What is more than one call.
MORE = {"close", "register_with_fallback", "wait_for", "watch"}


def test_every_call_of_the_api_has_its_method() -> None:
    """And every tool has a method of its name."""
    assert set(METHODS) | SAME == set(all_endpoints())
    public = {name for name, _ in inspect.getmembers(RegistryClient, inspect.isfunction) if not name.startswith("_")}
    assert public == set(METHODS.values()) | MORE
    assert {call.rpartition("/")[2] for call in all_endpoints() if call.startswith("POST /mcp/tools/")} <= public


async def test_every_call_answers_as_the_api_does(redis_url: str) -> None:
    """The very answers that HTTP gives, but for the moment they are given."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        expect_success(await client.register_agent(REGISTRATION))
        many: Any = await client.register_many(
            [REGISTRATION | {"id": "b"}, REGISTRATION | {"id": "c", "endpoint": "x"}]
        )
        expect_success(await client.heartbeat("a", {"load": 1}))
        beats: Any = await client.heartbeats(["a", "nobody"])

        assert [result["status"] for result in many["results"]] == ["success", "error"]
        assert [beats["results"][name]["status"] for name in ("a", "nobody")] == ["success", "error"]
        for path, answer in (
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
            assert at_any_time(answer) == at_any_time((await served.client.get(path)).json()), path
        assert "mcp_registry_agents_total 2.0" in str(await client.metrics_text())
        shown: Any = await client.get_agent_status("a")
        assert shown["agent"] == await client.agent("a")
        assert agent_ids(await client.discover_services()) == ["a"]
        assert agent_ids(await client.discover_services({"capabilities": ["greeting"], "status": "any"})) == ["a", "b"]
        assert expect_success(await client.unregister_agent("a"))["agent_id"] == "a"
        assert agent_ids(await client.agents()) == ["b"]


def at_any_time(answer: Any) -> dict[str, Any]:
    """Return an answer without what moves by itself; in lists a heartbeat may be a second late."""
    moves = {"timestamp", "uptime_seconds", "time_since_heartbeat", "staleness_seconds", "continue", "last_heartbeat"}
    found = {name: value for name, value in answer.items() if name not in moves}
    if "agents" in found:
        found["agents"] = [at_any_time(agent) for agent in found["agents"]]
    return found


async def test_agents_are_taken_out_of_service_and_put_back(redis_url: str) -> None:
    """One, or all that match; who waits for a capability is not given one that drains."""
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


async def test_dependencies_are_told_chosen_and_explained(redis_url: str) -> None:
    """In the answers to registrations and heartbeats, from both ends, and as a whole."""
    tool = {"function_name": "greet", "capability": "welcome", "dependencies": ["greeting", "weather"]}
    async with served_registry(redis_url) as served, RegistryClient(served.url, cache_ttl=60) as client:
        expect_success(await client.register_agent(REGISTRATION))
        expect_success(await client.heartbeat("a", load=0.5))
        batched = {"agent_id": "b", "metadata": {"endpoint": "http://b:1", "tools": [tool]}}
        registered = expect_success(await client.register_agent(batched))
        provider = {"agent_id": "a", "endpoint": "http://a:1", "tool_name": "greeting"}
        version = registered["dependencies_version"]
        same = expect_success(await client.heartbeat("b", dependencies_version=version))
        moved = expect_success(await client.heartbeat("a", {"endpoint": "http://a:2"}))
        told = expect_success(await client.heartbeat("b", dependencies_version=version))

        assert registered["dependencies_resolved"] == {"greet": {"greeting": provider, "weather": None}}
        assert "dependencies_resolved" not in same
        assert "dependencies_resolved" not in moved
        assert told["dependencies_resolved"]["greet"]["greeting"]["endpoint"] == "http://a:2"
        chosen = expect_success(await client.select_agent("greeting", tags=[], strategy="round_robin"))
        assert (chosen["agent_id"], chosen["endpoint"]) == ("a", "http://a:2")
        assert (
            expect_refusal(await client.select_agent("greeting", tags=[["none", "of these"]]))["error"] == "no_provider"
        )
        explained: Any = await client.dependencies("b", explain=True)
        assert explained["explanation"]["greet"][0]["chosen"]["agent_id"] == "a"
        assert "explanation" not in await client.dependencies("b")
        dependents: Any = await client.dependents("a")
        assert [each["agent_id"] for each in dependents["dependents"]] == ["b"]
        graph: Any = await client.dependency_graph()
        assert [edge["capability"] for edge in graph["unresolved"]] == ["weather"]
        assert (await client.dependency_graph(namespace="nowhere"))["count"] == 0  # type: ignore[typeddict-item]


async def test_each_choice_is_another_one_whatever_is_kept(redis_url: str) -> None:
    """In turn means in turn."""
    async with served_registry(redis_url) as served, RegistryClient(served.url, cache_ttl=60) as client:
        await client.register_many([REGISTRATION | {"id": name} for name in "abc"])
        await client.heartbeats(list("abc"))

        chosen = [
            expect_success(await client.select_agent("greeting", strategy="round_robin"))["agent_id"] for _ in range(6)
        ]

        assert sorted(chosen) == list("aabbcc")


async def test_a_long_list_is_read_page_by_page(redis_url: str) -> None:
    """`continue` is a word of Python: `continue_`, or in a dict."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        await client.register_many([REGISTRATION | {"id": name} for name in "abc"])
        first: Any = await client.agents(limit=2)
        second: Any = await client.agents(limit=2, continue_=first["continue"])
        token: Any = {"continue": first["continue"]}

        assert agent_ids(first) + agent_ids(second) == ["a", "b", "c"]
        assert agent_ids(await client.agents(limit=2, **token)) == ["c"]


async def test_waiting_for_a_change_lasts_as_long_as_it_takes(redis_url: str) -> None:
    """A long poll is no silence, however short a call may be else."""
    async with (
        served_registry(redis_url) as served,
        RegistryClient(served.url, timeout=1.0, attempt_timeout=0.8) as client,
    ):
        before: Any = await client.agents()
        after = await client.agents(wait=1.5, resource_version=before["resource_version"])

        assert agent_ids(after) == []


REFUSED = {
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


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
async def test_a_refusal_is_returned_as_the_registry_says_it(redis_url: str, call: Any) -> None:
    """`{"status": "error", ...}` with a code, and what to do."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        answer = expect_refusal(await call(client))

        assert answer["error"] in ("unknown_agent", "malformed_request", "validation_failed")
        assert answer["message"]


async def test_a_stale_registration_changes_nothing(redis_url: str) -> None:
    """409 with the version there is, as an answer."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        version = expect_success(await client.register_agent(REGISTRATION))["resource_version"]
        answer = expect_refusal(
            await client.register_agent(REGISTRATION | {"resource_version": "0", "labels": {"k": "v"}})
        )

        assert (answer["error"], answer["resource_version"]) == ("stale_version", version)
        expect_success(await client.register_agent(REGISTRATION | {"resource_version": version, "labels": {"k": "v"}}))


@pytest.mark.parametrize("agent_id", ["a:b", "a..b", "-", "batch"])
async def test_any_id_finds_its_agent(redis_url: str, agent_id: str) -> None:
    """Whatever it would mean in a path."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        expect_success(await client.register_agent(REGISTRATION | {"id": agent_id}))

        shown: Any = await client.agent(agent_id)
        assert shown["id"] == agent_id
        assert (await client.agent_status(agent_id))["status"] == "pending"
        assert (await client.agent_health(agent_id))["status"] == "pending"
        expect_success(await client.unregister_agent(agent_id))
        for way_up in (".", ".."):
            assert expect_refusal(await client.agent(way_up))["error"] == "unknown_agent"


async def test_readiness_is_told_of_whoever_is_ready(redis_url: str) -> None:
    """A replica that goes down says so, and another one is asked."""
    async with served_registry(redis_url) as one, served_registry(redis_url) as two, RegistryClient(one.url) as client:
        one.registry.status.shutting_down = True

        assert await client.ready() == {"status": "not_ready"}
        async with RegistryClient([one.url, two.url]) as both:
            assert await both.ready() == {"status": "ready"}


async def types_of(client: RegistryClient) -> None:
    """Never run: mypy reads it. An answer is told from a refusal by what is in it."""
    found = await client.agents()
    if "error" in found:
        assert_type(found, ErrorResponse)
        return
    assert_type(found, AgentList)
    registered = await client.register_agent({})
    if registered["status"] == "success":
        assert_type(registered, RegisterResult)
    shown = await client.agent("a")
    if shown["status"] != "error":
        assert_type(shown, Agent)
    beat = await client.heartbeat("a")
    assert_type(beat, HeartbeatResult | ErrorResponse)


def test_the_tools_of_the_wire_have_their_shape() -> None:
    """Name, description and schema, and no more."""
    assert set(get_type_hints(Tool)) == {"name", "description", "inputSchema", "annotations"}
