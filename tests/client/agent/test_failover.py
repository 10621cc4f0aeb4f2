"""Calls when a provider cannot be reached: another provider, or one error; never a second execution."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.server import MCPServer
from mcp_mesh_client import DependencyUnavailable, mesh_agent
from mcp_mesh_client.agent import dependency_caller, suspect_providers
from mcp_mesh_client.agent.agent_process import AgentProcess as LocalProcess
from mcp_mesh_client.agent.dependency_caller import select_options
from mcp_mesh_client.agent.http_server import AgentHttpServer
from mcp_mesh_client.event_loop_thread import EventLoopThread

from tests.support.agent_process import AgentProcess, wait_until_registered
from tests.support.in_process_agent import in_process_agent
from tests.support.polling import wait_until
from tests.support.ports import free_port
from tests.support.replica import Replica

ME = "http://127.0.0.1:9"
# A provider whose tools print each execution. Annotations are in place of {hints}.
PROVIDER = """
import asyncio, os
from mcp.server import MCPServer
from mcp_mesh_client import mesh_agent, serve
from mcp_types import ToolAnnotations
server = MCPServer("weather", log_level="WARNING")

@server.tool(annotations=ToolAnnotations({hints}))
@mesh_agent(capability="weather", health_interval=5)
async def get_weather(seconds: float = 0) -> str:
    print("executes", flush=True)
    await asyncio.sleep(seconds)
    return os.environ["WEATHER"]

serve(server)
"""
CONSUMER = """
from mcp.server import MCPServer
from mcp_mesh_client import mesh_agent, serve
server = MCPServer("travel")

@server.tool()
@mesh_agent(dependencies=["weather"])
def plan_trip(weather=None) -> str:
    return weather() if weather else "unknown"

serve(server)
"""


@pytest.fixture
def replica(redis_url: str) -> Iterator[Replica]:
    """Start a replica as a process, because these tests block."""
    with Replica(redis_url) as replica:
        yield replica


@pytest.fixture
def consumer(replica: Replica) -> Iterator[LocalProcess]:
    """Make this process an agent that depends on `weather`."""
    with in_process_agent(replica.url, MCP_MESH_ENDPOINT=ME) as found:
        yield found


def provider_process(replica: Replica, name: str, hints: str = "") -> AgentProcess:
    """Return a provider as a process; its name is the weather that it returns."""
    return AgentProcess(PROVIDER.replace("{hints}", hints), replica.url, name=name, WEATHER=name)


def declare() -> Callable[..., Any]:
    """Declare a function that calls its dependency, or returns None without one."""

    @mesh_agent(dependencies=["weather"])
    def plan(seconds: float = 0, weather: Any = None) -> Any:
        return weather(seconds=seconds) if weather else None

    return plan


def register_unreachable_provider(replica: Replica) -> None:
    """Register the agent `broken`, whose endpoint refuses connections."""
    registration = {"id": "broken", "endpoint": f"http://127.0.0.1:{free_port()}/mcp", "capabilities": ["weather"]}
    httpx2.post(f"{replica.url}/agents", json=registration).raise_for_status()
    httpx2.post(f"{replica.url}/heartbeat", json={"agent_id": "broken"}).raise_for_status()


def resolved_id(consumer: LocalProcess) -> str:
    """Return the id of the agent that the registry resolved, empty if there is none."""
    provider = consumer.agent.functions["plan"].dependencies["weather"].resolved
    return "" if provider is None else provider["agent_id"]


def test_a_killed_provider_is_replaced_without_a_failed_call(replica: Replica, consumer: LocalProcess) -> None:
    """In sync and async functions; the registry still resolves the killed provider."""
    plan = declare()

    @mesh_agent(dependencies=["weather"])
    async def plan_async(weather: Any = None) -> Any:
        return await weather() if weather else None

    with provider_process(replica, "sunny"):
        wait_until_registered(replica.url, "sunny")
        with provider_process(replica, "rainy") as killed:
            # Of equal providers, the one that registered last is resolved.
            wait_until(lambda: resolved_id(consumer).startswith("rainy"), description="it is resolved")
            assert plan() == "rainy"
            killed.kill()

            results = [plan() for _ in range(10)] + [asyncio.run(plan_async()) for _ in range(3)]

            assert results == ["sunny"] * 13


def test_the_only_provider_is_killed(
    replica: Replica, consumer: LocalProcess, caplog: pytest.LogCaptureFixture
) -> None:
    """One call fails with the capability, the provider and the cause; later calls have no provider, until the end."""
    plan = declare()
    with provider_process(replica, "sunny") as provider:
        wait_until(plan, description="the dependency is resolved")
        agent_id = resolved_id(consumer)
        provider.kill()
        with pytest.raises(DependencyUnavailable) as failed:
            plan()
        assert str(failed.value).startswith(f"weather: get_weather on {agent_id} at http://127.0.0.1:")
        assert str(failed.value).endswith("/mcp: All connection attempts failed; no other provider is available")
        assert failed.value.outcome == "not_sent"

        # The suspicion is extended while the provider cannot be reached, so no other call fails.
        wait_until(lambda: plan() is None and not resolved_id(consumer), description="it is expired")

    suspicions = [record.message for record in caplog.records if record.message.startswith("provider_suspect")]
    assert len(suspicions) == 1


@pytest.mark.usefixtures("consumer")
def test_a_restarted_provider_costs_one_failed_call(replica: Replica) -> None:
    """With a new id, it is found by the search for other providers or by the next heartbeat of the consumer."""
    plan = declare()
    with provider_process(replica, "sunny") as provider:
        wait_until(plan, description="the dependency is resolved")
        provider.kill()
        with pytest.raises(DependencyUnavailable):
            plan()
        provider.start()

        assert wait_until(plan, description="the new process is called") == "sunny"


def test_a_stable_id_replaces_its_own_registration(replica: Replica, consumer: LocalProcess) -> None:
    """The suspicion is about the old endpoint of the restarted provider."""
    plan = declare()
    with AgentProcess(PROVIDER.replace("{hints}", ""), replica.url, MCP_MESH_AGENT_ID="w", WEATHER="sunny") as provider:
        wait_until(plan, description="the dependency is resolved")
        assert resolved_id(consumer) == "w"
        provider.kill()
        with pytest.raises(DependencyUnavailable):
            plan()
        provider.start()

        assert wait_until(plan, description="the new process is called") == "sunny"
        assert [agent["id"] for agent in httpx2.get(f"{replica.url}/agents?capability=weather").json()["agents"]] == [
            "w"
        ]


@pytest.mark.parametrize(("hints", "repeats"), [("", 0), ("read_only_hint=True", 1), ("idempotent_hint=True", 1)])
@pytest.mark.usefixtures("consumer")
def test_a_call_in_progress_is_repeated_only_if_its_tool_allows_it(replica: Replica, hints: str, repeats: int) -> None:
    """The killed provider may have executed it."""
    plan = declare()
    with provider_process(replica, "sunny", hints) as one, provider_process(replica, "rainy", hints) as other:
        for name in ("sunny", "rainy"):
            wait_until_registered(replica.url, name)
        wait_until(plan, description="the dependency is resolved")
        before = {process: process.output.count("executes") for process in (one, other)}
        thread = EventLoopThread()
        call = thread.submit(asyncio.to_thread(plan, 3))
        executing = wait_until(
            lambda: [each for each in before if each.output.count("executes") > before[each]],
            description="the tool executes",
        )
        left = other if executing == [one] else one
        executing[0].kill()

        if repeats:
            assert call.result(30) == left.env["WEATHER"]
        else:
            with pytest.raises(DependencyUnavailable) as failed:
                call.result(30)
            assert failed.value.outcome == "unknown"
        assert left.output.count("executes") == before[left] + repeats
        thread.stop()


def test_a_heartbeat_ends_the_suspicion(replica: Replica, consumer: LocalProcess) -> None:
    """Then the provider is called again, which starts a new suspicion if it still cannot be reached."""
    plan = declare()
    register_unreachable_provider(replica)

    def is_called() -> bool:
        httpx2.post(f"{replica.url}/heartbeat", json={"agent_id": "broken"}).raise_for_status()
        try:
            return plan() is not None
        except DependencyUnavailable:
            return True

    for _ in range(2):
        wait_until(is_called, description="it is called")
        assert consumer.agent.functions["plan"].dependencies["weather"].provider is None


def test_a_reachable_provider_is_called_again_without_a_heartbeat(
    replica: Replica, consumer: LocalProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it cannot be reached, the suspicion is extended by each failed connection."""
    monkeypatch.setattr(suspect_providers, "SUSPICION_S", 0.2)
    monkeypatch.setattr(dependency_caller, "_CHECK_INTERVAL_S", 0.05)
    plan = declare()
    port = free_port()
    tool = {"function_name": "get_weather", "capability": "weather"}
    provider = {"agent_id": "slow", "metadata": {"endpoint": f"http://127.0.0.1:{port}/mcp", "tools": [tool]}}
    httpx2.post(f"{replica.url}/agents", json=provider).raise_for_status()
    binding = consumer.agent.functions["plan"].dependencies["weather"]
    wait_until(lambda: binding.resolved, description="the dependency is resolved")
    with pytest.raises(DependencyUnavailable):
        plan()
    (suspicion,) = consumer.agent.caller.suspects.active()
    first_end = suspicion.ends_at
    wait_until(lambda: suspicion.ends_at > first_end + 1, description="the suspicion is extended")
    assert plan() is None

    server = MCPServer("slow", log_level="ERROR")
    server.add_tool(lambda seconds: f"cloudy for {seconds:g}", name="get_weather")
    http_server, thread = AgentHttpServer(server, "127.0.0.1", port, quiet=True), EventLoopThread()
    ended = thread.submit(http_server.serve())
    try:
        assert wait_until(plan, description="it is called again") == "cloudy for 0"
    finally:
        http_server.should_exit = True
        ended.result(10)
        thread.stop()


def test_an_error_of_a_check_does_not_end_the_others(
    replica: Replica, consumer: LocalProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A suspicion that was checked with an error is checked again, and its provider stays suspect."""
    monkeypatch.setattr(dependency_caller, "_CHECK_INTERVAL_S", 0.05)
    caller, checked = consumer.agent.caller, list[str]()

    async def check(suspicion: suspect_providers.Suspicion, _registry: object) -> None:
        checked.append(suspicion.provider["agent_id"])
        raise RuntimeError("a defect")

    monkeypatch.setattr(caller, "_check", check)
    plan = declare()
    register_unreachable_provider(replica)
    binding = consumer.agent.functions["plan"].dependencies["weather"]
    wait_until(lambda: binding.resolved, description="the dependency is resolved")
    with pytest.raises(DependencyUnavailable):
        plan()
    wait_until(lambda: len(checked) >= 2, description="it is checked twice")
    assert set(checked) == {"broken"}
    assert plan() is None


async def test_the_far_caller_receives_the_cause_and_the_log_one_line(replica: Replica) -> None:
    """The tool of the consumer fails with the capability and the cause; the log contains no traceback."""
    register_unreachable_provider(replica)
    with AgentProcess(CONSUMER, replica.url, name="travel") as process:
        endpoint = (await asyncio.to_thread(wait_until_registered, replica.url, "travel"))["endpoint"]
        await asyncio.to_thread(process.wait_for_output, "dependency_resolved")

        text = await failed_text(endpoint)

        assert "Error executing tool plan_trip: weather: weather on broken at http://127.0.0.1:" in text
        assert text.endswith("All connection attempts failed; no other provider is available")
        await asyncio.to_thread(process.wait_for_output, "Tool 'plan_trip' failed")
        assert process.output.count("Tool 'plan_trip' failed") == 1
        assert "Traceback" not in process.output
        assert "HTTP Request" not in process.output


async def failed_text(endpoint: str) -> str:
    """Return the text of the error of the tool `plan_trip`."""
    async with Client(endpoint) as client:
        result = await client.call_tool("plan_trip", {})
    assert result.is_error
    return str(result.content[0].text)  # type: ignore[union-attr]


def test_the_needs_of_a_dependency_are_those_of_the_selection() -> None:
    """The namespace, the key and the zone are those of the consumer, unless the dependency names others."""
    assert select_options("weather", "me", "home", None) == {"namespace": "home", "key": "me"}
    spec = {"capability": "weather", "version": ">=1", "tags": ["a"], "namespace": "*", "strategy": "local", "key": "k"}
    needs = {"version_constraint": ">=1", "tags": ["a"], "namespace": "*", "key": "k"}
    assert select_options(spec, "me", "home", None) == needs
    assert select_options(spec, "me", "home", "z") == needs | {"strategy": "local", "zone": "z"}
