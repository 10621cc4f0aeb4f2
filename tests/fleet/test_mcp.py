"""/mcp through a balancer: any replica serves any call of the official client, also after another one died."""

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

from tests.support.http_calls import REQUEST_TIMEOUT_S
from tests.support.load_balancers import round_robin_balancer
from tests.support.polling import async_wait_until
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica
from tests.support.replica_group import running_replicas

CALLERS, CALLS = 6, 30

_SERVED = re.compile(r'^mcp_registry_requests_total\{method="POST",route="/mcp",status="200"\} (\d+)', re.MULTILINE)


def served_mcp_calls(replica: Replica) -> int:
    """Return how many MCP calls a replica has served."""
    found = _SERVED.search(httpx2.get(f"{replica.url}/metrics/prometheus", timeout=REQUEST_TIMEOUT_S).text)
    return 0 if found is None else int(found[1])


@asynccontextmanager
async def mcp_client(url: str, mode: str = "auto") -> AsyncIterator[Client]:
    """Provide the official client, with a new connection for each request, so that each goes to another replica."""
    limits = httpx2.Limits(max_keepalive_connections=0)
    async with (
        httpx2.AsyncClient(limits=limits, timeout=REQUEST_TIMEOUT_S) as client,
        Client(streamable_http_client(f"{url}/mcp", http_client=client), mode=mode) as session,
    ):
        yield session


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_any_replica_serves_any_call(redis_url: str, tmp_path: Path, mode: str) -> None:
    """Each replica returns the writes of the others, within one session of the client."""
    with running_replicas(redis_url, 3) as running:
        async with (
            round_robin_balancer([each.url for each in running], tmp_path) as url,
            mcp_client(url, mode) as session,
        ):
            for number in range(9):
                agent = {"id": f"a{number}", "endpoint": "http://a:1", "capabilities": ["sums"]}
                await session.call_tool("register_agent", {"registration_data": agent})
                await session.call_tool("heartbeat", {"agent_id": f"a{number}"})
                found = await session.call_tool("discover_services", {"query": {"capability": "sums"}})
                assert found.structured_content["count"] == number + 1
        assert all(served_mcp_calls(each) >= 6 for each in running)


async def test_a_killed_replica_fails_only_calls_in_flight(redis_url: str, tmp_path: Path) -> None:
    """Calls fail until the next health check of the balancer; each ends the session of its client, not the next one."""
    with running_replicas(redis_url, 3) as running:
        async with round_robin_balancer([each.url for each in running], tmp_path) as url:
            done = failed = succeeded_in_a_row = 0

            async def caller() -> None:
                nonlocal done, failed, succeeded_in_a_row
                left = CALLS
                while left:
                    try:
                        async with mcp_client(url) as session:
                            while left:
                                assert (await session.call_tool("discover_services", {})).is_error is False
                                left, done, succeeded_in_a_row = left - 1, done + 1, succeeded_in_a_row + 1
                    except* (MCPError, httpx2.TransportError, BrokenResourceError, ClosedResourceError):
                        failed, succeeded_in_a_row = failed + 1, 0

            async with asyncio.TaskGroup() as group:
                for _ in range(CALLERS):
                    group.create_task(caller())
                await async_wait_until(
                    lambda: done >= CALLERS * CALLS // 4, description="a quarter of the calls are done"
                )
                await asyncio.to_thread(running[1].kill)
                succeeded_in_a_row = 0
                await async_wait_until(lambda: succeeded_in_a_row >= 3 * CALLERS, description="calls succeed again")
                failed_before = failed

        assert (done, failed) == (CALLERS * CALLS, failed_before)


async def test_a_replica_stops_with_a_call_in_flight(dedicated_redis: RedisServer) -> None:
    """The call is answered, and MCP does not delay the shutdown."""
    with Replica(dedicated_redis.url) as replica:
        async with httpx2.AsyncClient(base_url=replica.url, timeout=REQUEST_TIMEOUT_S) as client:
            call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "discover_services"}}
            assert (await client.post("/mcp", json=call)).status_code == 200
            dedicated_redis.pause()
            try:
                waiting = asyncio.create_task(client.post("/mcp", json=call))
                await asyncio.wait([waiting], timeout=0.2)
                assert not waiting.done()
                await asyncio.to_thread(replica.stop)
                result = (await waiting).json()
                assert result.get("error") == "not_ready" or result["result"]["isError"] is True
            finally:
                dedicated_redis.resume()
