"""Leaders that are killed, stopped, frozen or lose their lock: another replica leads, and sweeps once."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator

import httpx2
import pytest
import redis

from tests.support.faulty_tcp_proxy import FaultyTcpProxy
from tests.support.http_calls import REQUEST_TIMEOUT_S
from tests.support.polling import async_wait_until, wait_until
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica
from tests.support.replica_group import (
    HeartbeatSender,
    find_leader,
    get_health,
    log_entries_by_reason,
    register_agents,
    running_replicas,
)

LIVING = [f"living-{n}" for n in range(12)]
DYING = [f"dying-{n}" for n in range(3)]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """Provide a Redis server for one test."""
    with RedisServer() as server:
        yield server


def wait_for_one_leader(running: list[Replica]) -> Replica:
    """Wait until all replicas report the same leader, and return it."""

    def leader_if_agreed() -> Replica | None:
        epochs = {get_health(replica)["leader"]["epoch"] for replica in running}
        return find_leader(running) if len(epochs) == 1 else None

    found = wait_until(leader_if_agreed, description="all replicas report one leader")
    assert found is not None
    return found


def test_a_killed_leader_is_replaced(server: RedisServer) -> None:
    """No outage is assumed and no grace period granted: dead agents are degraded once, live ones stay healthy."""
    with running_replicas(server.url, 3) as running, HeartbeatSender(running, LIVING):
        first = wait_for_one_leader(running)
        register_agents(first, LIVING)
        register_agents(first, DYING)
        epoch, outage = get_health(first)["leader"]["epoch"], get_health(first)["outage"]["until"]

        first.kill()
        others = [replica for replica in running if replica is not first]
        second = wait_until(lambda: find_leader(others), description="another replica leads")

        assert second is not None
        assert get_health(second)["leader"]["epoch"] > epoch
        wait_until(
            lambda: len(log_entries_by_reason(server.url, "degraded")) == 3,
            description="the dead agents are degraded",
        )
        state = get_health(second)
        assert (state["outage"]["until"], state["outage"]["grace_granted"]) == (outage, 0)
        assert (state["self_preservation"]["active"], state["self_preservation"]["activations"]) == (False, 0)
    assert sorted(agent_id for _, agent_id in log_entries_by_reason(server.url, "degraded")) == DYING


@pytest.mark.parametrize("wait", ["0s", "4s"])
def test_a_stopping_leader_resigns_before_it_exits(wait: str, server: RedisServer) -> None:
    """Another replica leads while the first waits for balancers or for a request, however long the lease is."""
    long = {"LEADER_ELECTION_LEASE_DURATION": "60s", "LEADER_ELECTION_RENEW_DEADLINE": "40s"}
    long["REGISTRY_SHUTDOWN_DELAY"] = wait
    with running_replicas(server.url, 2, **long) as running:
        first = wait_for_one_leader(running)
        (second,) = [replica for replica in running if replica is not first]
        host, _, port = first.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=REQUEST_TIMEOUT_S) as waiting:
            waiting.sendall(
                b"POST /agents HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 99\r\nExpect: 100-continue\r\n\r\n"
            )
            assert waiting.recv(100).startswith(b"HTTP/1.1 100 ")

            first.send_signal(signal.SIGTERM)
            wait_until(lambda: find_leader([second]), description="the other replica leads")

            assert "leadership_resigned" in first.output
            assert '"event":"shutdown_completed"' not in first.output
        first.stop()


def test_a_leader_frozen_beyond_its_lease_steps_down_when_it_resumes(server: RedisServer) -> None:
    """Another replica leads by then; the first follows it, and degrades no agent again."""
    with running_replicas(server.url, 2) as running:
        first = wait_for_one_leader(running)
        (second,) = [replica for replica in running if replica is not first]
        register_agents(second, DYING)
        first.pause()
        try:
            wait_until(lambda: find_leader([second]), description="the other replica leads")
            wait_until(
                lambda: len(log_entries_by_reason(server.url, "degraded")) == 3,
                description="the dead agents are degraded",
            )
        finally:
            first.resume()

        wait_until(
            lambda: get_health(first)["leader"]["instance"] == get_health(second)["leader"]["instance"],
            description="the first replica follows",
        )
        assert find_leader([first]) is None
        assert "leadership_lost" in first.output
    assert sorted(agent_id for _, agent_id in log_entries_by_reason(server.url, "degraded")) == DYING


async def test_a_leader_that_alone_loses_redis_is_replaced(server: RedisServer) -> None:
    """It is alive, not ready, and stops leading; store probes of the other replica prevent an outage."""
    async with contextlib.AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(FaultyTcpProxy(server.url))
        # In a thread, since the proxy needs the event loop.
        (cut,) = await asyncio.to_thread(stack.enter_context, running_replicas(proxy.url, 1))
        await async_wait_until(lambda: _leader_flag(cut, "leading"), description="the replica behind the proxy leads")
        (other,) = await asyncio.to_thread(
            stack.enter_context, running_replicas(server.url, 1, REGISTRY_INSTANCE_ID="other")
        )
        await asyncio.to_thread(register_agents, other, DYING)
        before = get_health(other)["outage"]["until"]

        proxy.swallow_requests = proxy.swallow_replies = True

        await async_wait_until(lambda: _leader_flag(other, "leading"), description="the other replica leads")
        await async_wait_until(lambda: _steps_down(cut), description="the first replica does not lead")
        async with httpx2.AsyncClient(base_url=cut.url, timeout=REQUEST_TIMEOUT_S) as client:
            assert (await client.get("/ready")).status_code == 503
            assert (await client.get("/health")).json()["status"] == "degraded"
        await async_wait_until(
            lambda: len(log_entries_by_reason(server.url, "degraded")) == 3,
            description="the dead agents are degraded",
        )
        state = get_health(other)
        assert (state["outage"]["until"], state["outage"]["grace_granted"]) == (before, 0)

        proxy.swallow_requests = proxy.swallow_replies = False
        proxy.cut()
        await async_wait_until(lambda: _follows(cut, "other"), description="the first replica follows")
    assert sorted(agent_id for _, agent_id in log_entries_by_reason(server.url, "degraded")) == DYING


async def _leader_flag(replica: Replica, field: str) -> bool:
    return bool((await asyncio.to_thread(get_health, replica))["leader"][field])


async def _steps_down(replica: Replica) -> bool:
    return not await _leader_flag(replica, "leading")


async def _follows(replica: Replica, instance: str) -> bool:
    leader = (await asyncio.to_thread(get_health, replica))["leader"]
    return not leader["leading"] and leader["instance"] == instance


def test_a_deleted_lock_leaves_one_leader(server: RedisServer) -> None:
    """Deleted by hand or lost by Redis: the holder detects that at its next renewal, and the epoch rises."""
    with running_replicas(server.url, 2) as running:
        before = get_health(wait_for_one_leader(running))["leader"]["epoch"]
        with redis.Redis.from_url(server.url) as redis_client:
            redis_client.delete("{mesh}:leader")

        def settled() -> bool:
            states = [get_health(replica)["leader"] for replica in running]
            epochs = {state["epoch"] for state in states}
            return len(epochs) == 1 and None not in epochs and sum(state["leading"] for state in states) == 1

        wait_until(
            lambda: settled() and get_health(running[0])["leader"]["epoch"] > before,
            description="one replica leads in a new epoch that all report",
        )
