"""/mcp through a balancer: any replica answers any call of the official client; one that dies takes little along."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from anyio import BrokenResourceError, ClosedResourceError
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from tests.support.load_balancers import round_robin_balancer
from tests.support.polling import async_wait_until
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica
from tests.support.replica_group import running_replicas

CALLERS, CALLS = 6, 30
# Those on their way to a replica that dies, and those sent there until the balancer looks again.
MOST_FAILED = 3 * CALLERS

_ANSWERED = re.compile(r'^mcp_registry_requests_total\{method="POST",route="/mcp",status="200"\} (\d+)', re.MULTILINE)


def answered(replica: Replica) -> int:
    """Return how many MCP calls a replica has answered."""
    found = _ANSWERED.search(httpx2.get(f"{replica.url}/metrics/prometheus").text)
    return 0 if found is None else int(found[1])


@asynccontextmanager
async def speaking(url: str, mode: str = "auto") -> AsyncIterator[Client]:
    """Provide the official client, each of whose requests goes over a connection of its own, so to another replica."""
    limits = httpx2.Limits(max_keepalive_connections=0)
    async with (
        httpx2.AsyncClient(limits=limits, timeout=10) as client,
        Client(streamable_http_client(f"{url}/mcp", http_client=client), mode=mode) as session,
    ):
        yield session


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_any_replica_answers_any_call(redis_url: str, tmp_path: Path, mode: str) -> None:
    """What one replica has written, the next one reads, in the middle of what the client takes for one conversation."""
    with running_replicas(redis_url, 3) as running:
        async with (
            round_robin_balancer([each.url for each in running], tmp_path) as url,
            speaking(url, mode) as session,
        ):
            for number in range(9):
                agent = {"id": f"a{number}", "endpoint": "http://a:1", "capabilities": ["sums"]}
                await session.call_tool("register_agent", {"registration_data": agent})
                await session.call_tool("heartbeat", {"agent_id": f"a{number}"})
                found = await session.call_tool("discover_services", {"query": {"capability": "sums"}})
                assert found.structured_content["count"] == number + 1
        assert all(answered(each) >= 6 for each in running)


async def test_a_replica_is_killed_under_calls(redis_url: str, tmp_path: Path) -> None:
    """Only calls on their way there fail, which end their client's session; the next one is served by the others."""
    with running_replicas(redis_url, 3) as running:
        async with round_robin_balancer([each.url for each in running], tmp_path) as url:
            done = failed = 0

            async def caller() -> None:
                nonlocal done, failed
                left = CALLS
                while left:
                    try:
                        async with speaking(url) as session:
                            while left:
                                assert (await session.call_tool("discover_services", {})).is_error is False
                                left, done = left - 1, done + 1
                    except* (MCPError, httpx2.TransportError, BrokenResourceError, ClosedResourceError):
                        failed += 1
                        assert failed <= MOST_FAILED

            async with asyncio.timeout(45), asyncio.TaskGroup() as group:
                for _ in range(CALLERS):
                    group.create_task(caller())
                await async_wait_until(
                    lambda: done >= CALLERS * CALLS // 4, description="a quarter is done", timeout=30
                )
                await asyncio.to_thread(running[1].kill)

        assert done == CALLERS * CALLS


async def test_a_replica_told_to_stop_ends_in_time_with_a_call_in_flight(own_server: RedisServer) -> None:
    """The call is answered all the same: nothing of MCP holds a replica up."""
    with Replica(own_server.url) as replica:
        async with httpx2.AsyncClient(base_url=replica.url, timeout=10) as client:
            call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "discover_services"}}
            assert (await client.post("/mcp", json=call)).status_code == 200
            own_server.pause()
            try:
                waiting = asyncio.create_task(client.post("/mcp", json=call))
                await asyncio.wait([waiting], timeout=0.2)
                assert not waiting.done()
                await asyncio.to_thread(replica.stop)
                result = (await waiting).json()
                assert result.get("error") == "not_ready" or result["result"]["isError"] is True
            finally:
                own_server.resume()
