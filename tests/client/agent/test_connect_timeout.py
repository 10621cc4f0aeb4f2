"""Calls to a provider whose host drops packets: connecting uses a part of the timeout, another provider the rest."""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from mcp.server import MCPServer
from mcp_mesh_client import DependencyUnavailable, mesh_agent
from mcp_mesh_client.agent import provider_sessions
from mcp_mesh_client.agent.agent_process import AgentProcess as LocalProcess
from mcp_mesh_client.agent.http_server import AgentHttpServer
from mcp_mesh_client.agent.provider_sessions import McpSessions
from mcp_mesh_client.event_loop_thread import EventLoopThread
from mcp_mesh_client.types.dependencies import Provider

from tests.support.faulty_tcp_proxy import FaultyTcpProxy
from tests.support.in_process_agent import in_process_agent
from tests.support.polling import wait_until
from tests.support.ports import free_port
from tests.support.replica import Replica

# Below the 3 s that connecting may take in a call with a long timeout.
TIMEOUT_S = 2.9


@pytest.fixture(autouse=True)
def short_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let connecting take a tenth of the timeout, so that a busy machine has time for the rest."""
    monkeypatch.setattr(provider_sessions, "_CONNECT_SHARE", 0.1)


@contextlib.contextmanager
def dropping(port: int = 0) -> Iterator[int]:
    """Provide a port at which the kernel drops requests to connect, because the queue of the listener is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(0)
        for _ in range(8):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@contextlib.contextmanager
def serving(port: int = 0) -> Iterator[int]:
    """Serve the tool `get_weather` in a thread; provide the port."""
    server: MCPServer[Any] = MCPServer("weather", log_level="ERROR")
    server.add_tool(lambda: "sunny", name="get_weather")
    http_server, thread = AgentHttpServer(server, "127.0.0.1", port, quiet=True), EventLoopThread()
    ended = thread.submit(http_server.serve())
    try:
        yield httpx2.URL(http_server.url).port or 0
    finally:
        http_server.should_exit = True
        ended.result()
        thread.stop()


def weather_at(port: int) -> Provider:
    """Return a provider at a port of this host."""
    return {"agent_id": "w", "endpoint": f"http://127.0.0.1:{port}/mcp", "tool_name": "get_weather"}


async def test_a_short_timeout_leaves_time_for_another_provider() -> None:
    """The first call opens a session; nothing was sent, so the call can be made elsewhere."""
    with dropping() as port, pytest.raises(DependencyUnavailable) as failed:
        await McpSessions().call("weather", weather_at(port), {}, TIMEOUT_S)

    assert failed.value.outcome == "not_sent"


async def test_an_open_session_connects_again_within_a_part_of_the_timeout() -> None:
    """The provider was replaced by a host that drops packets, or its network broke."""
    port, sessions = free_port(), McpSessions()
    with serving(port):
        assert await sessions.call("weather", weather_at(port), {}, 30) == "sunny"

    with dropping(port), pytest.raises(DependencyUnavailable) as failed:
        await sessions.call("weather", weather_at(port), {}, TIMEOUT_S)

    assert failed.value.outcome == "not_sent"
    await sessions.close()


async def test_a_slow_provider_that_accepts_connections_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only connecting has the shorter limit: the session opens after it."""
    monkeypatch.setattr(provider_sessions, "_CONNECT_SHARE", 0.01)
    sessions = McpSessions()
    with serving() as port:
        async with FaultyTcpProxy(f"redis://127.0.0.1:{port}") as slow:
            slow.delay_s = 0.35

            assert await sessions.call("weather", weather_at(slow.port), {}, 60) == "sunny"
            await sessions.close()


def test_a_provider_that_drops_packets_is_replaced_within_a_short_timeout(redis_url: str) -> None:
    """The call succeeds at the other provider; later calls go there at once."""
    with (
        Replica(redis_url) as replica,
        in_process_agent(replica.url, MCP_MESH_ENDPOINT="http://127.0.0.1:9") as consumer,
        serving() as port,
        dropping() as dropping_port,
    ):

        @mesh_agent(dependencies=["weather"])
        def plan(weather: Any = None) -> Any:
            return weather.with_timeout(TIMEOUT_S)() if weather else None

        register(replica, "living", port)
        assert wait_until(plan, description="the dependency is resolved") == "sunny"
        register(replica, "dropping", dropping_port)
        # Of equal providers, the one that registered last is resolved.
        wait_until(lambda: resolved_id(consumer) == "dropping", description="it is resolved")

        assert plan() == "sunny"

        assert [each.provider["agent_id"] for each in consumer.agent.caller.suspects.active()] == ["dropping"]


def register(replica: Replica, agent_id: str, port: int) -> None:
    """Register a provider of `weather` at a port of this host, with a heartbeat."""
    tool = {"function_name": "get_weather", "capability": "weather"}
    sent = {"agent_id": agent_id, "metadata": {"endpoint": f"http://127.0.0.1:{port}/mcp", "tools": [tool]}}
    httpx2.post(f"{replica.url}/agents", json=sent).raise_for_status()


def resolved_id(consumer: LocalProcess) -> str:
    """Return the id of the agent that the registry resolved, empty if there is none."""
    provider = consumer.agent.functions["plan"].dependencies["weather"].resolved
    return "" if provider is None else provider["agent_id"]
