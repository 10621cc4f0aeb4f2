"""Leaders that are killed, stopped, frozen and robbed: somebody leads soon, and each death is told once."""

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Iterator

import httpx2
import pytest
import redis

from tests.support.faulty_tcp_proxy import FaultyTcpProxy
from tests.support.polling import async_wait_until, wait_until
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica
from tests.support.replica_group import (
    LEASE_S,
    HeartbeatSender,
    find_leader,
    get_health,
    log_entries_by_reason,
    register_agents,
    running_replicas,
)

LIVING = [f"living-{n}" for n in range(12)]
DYING = [f"dying-{n}" for n in range(3)]
# What the machine may add to what is promised.
SLACK = 2.0


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A store of the test's own."""
    with RedisServer() as server:
        yield server


def led(running: list[Replica]) -> Replica:
    """Return the leader, once there is one that all name."""

    def agreed() -> Replica | None:
        named = {get_health(replica)["leader"]["epoch"] for replica in running}
        return find_leader(running) if len(named) == 1 else None

    found = wait_until(agreed, description="all name one leader", timeout=10)
    assert found is not None
    return found


def test_a_killed_leader_is_followed_within_a_lease_and_nobody_is_forgiven(server: RedisServer) -> None:
    """No outage, no grace, no hold: the dead are degraded, once each, and the living stay."""
    with running_replicas(server.url, 3) as running, HeartbeatSender(running, LIVING):
        first = led(running)
        register_agents(first, LIVING)
        register_agents(first, DYING)
        epoch, outage = get_health(first)["leader"]["epoch"], get_health(first)["outage"]["until"]

        first.kill()
        killed = time.monotonic()
        others = [replica for replica in running if replica is not first]
        second = wait_until(lambda: find_leader(others), description="another leads", timeout=10)
        took = time.monotonic() - killed

        assert took <= LEASE_S + SLACK
        assert second is not None
        assert get_health(second)["leader"]["epoch"] > epoch
        wait_until(
            lambda: len(log_entries_by_reason(server.url, "degraded")) == 3,
            description="the dead are degraded",
            timeout=10,
        )
        state = get_health(second)
        assert (state["outage"]["until"], state["outage"]["grace_granted"]) == (outage, 0)
        assert (state["self_preservation"]["active"], state["self_preservation"]["activations"]) == (False, 0)
    assert sorted(agent_id for _, agent_id in log_entries_by_reason(server.url, "degraded")) == DYING


@pytest.mark.parametrize("wait", ["0s", "4s"])
def test_a_leader_that_is_told_to_stop_hands_over_before_it_has_stopped(wait: str, server: RedisServer) -> None:
    """While it waits for balancers or a request in flight, and however long the lease: nobody waits for that."""
    long = {"LEADER_ELECTION_LEASE_DURATION": "60s", "LEADER_ELECTION_RENEW_DEADLINE": "40s"}
    long["REGISTRY_SHUTDOWN_DELAY"] = wait
    with running_replicas(server.url, 2, **long) as running:
        first = led(running)
        (second,) = [replica for replica in running if replica is not first]
        host, _, port = first.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=5) as waiting:
            waiting.sendall(
                b"POST /agents HTTP/1.1\r\nHost: r\r\nContent-Type: application/json\r\n"
                b"Content-Length: 99\r\nExpect: 100-continue\r\n\r\n"
            )
            assert waiting.recv(100).startswith(b"HTTP/1.1 100 ")

            first.send_signal(signal.SIGTERM)
            wait_until(lambda: find_leader([second]), description="the other leads", timeout=SLACK)

            assert "leadership_resigned" in first.output
            assert '"event":"shutdown_completed"' not in first.output
        first.stop(timeout=10)


def test_a_leader_frozen_beyond_its_lease_steps_down_as_it_wakes(server: RedisServer) -> None:
    """Meanwhile another leads; the one that wakes knows it within a second or so, and nobody dies twice."""
    with running_replicas(server.url, 2) as running:
        first = led(running)
        (second,) = [replica for replica in running if replica is not first]
        register_agents(second, DYING)
        first.pause()
        try:
            wait_until(lambda: find_leader([second]), description="the other leads", timeout=LEASE_S + 2 + SLACK)
            wait_until(
                lambda: len(log_entries_by_reason(server.url, "degraded")) == 3,
                description="the dead are told",
                timeout=10,
            )
        finally:
            first.resume()

        wait_until(
            lambda: get_health(first)["leader"]["instance"] == get_health(second)["leader"]["instance"],
            description="the first follows",
            timeout=1 + SLACK,
        )
        assert find_leader([first]) is None
        assert "leadership_lost" in first.output
    assert sorted(agent_id for _, agent_id in log_entries_by_reason(server.url, "degraded")) == DYING


async def test_a_leader_that_alone_loses_redis_leaves_the_sweep_to_another(server: RedisServer) -> None:
    """It lives on, unready, and knows in time that it leads no more; no outage, for the other pulses."""
    async with contextlib.AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(FaultyTcpProxy(server.url))
        # Beside the loop, which the proxy needs.
        (cut,) = await asyncio.to_thread(stack.enter_context, running_replicas(proxy.url, 1))
        await async_wait_until(lambda: _health(cut, "leading"), description="the one behind the proxy leads")
        (other,) = await asyncio.to_thread(
            stack.enter_context, running_replicas(server.url, 1, REGISTRY_INSTANCE_ID="other")
        )
        await asyncio.to_thread(register_agents, other, DYING)
        before = get_health(other)["outage"]["until"]

        proxy.swallow_requests = proxy.swallow_replies = True

        await async_wait_until(lambda: _health(other, "leading"), description="the other leads", timeout=8)
        assert not await _health(cut, "leading")
        async with httpx2.AsyncClient(base_url=cut.url, timeout=3) as client:
            assert (await client.get("/ready")).status_code == 503
            assert (await client.get("/health")).json()["status"] == "degraded"
        await async_wait_until(
            lambda: len(log_entries_by_reason(server.url, "degraded")) == 3,
            description="the dead are degraded",
            timeout=10,
        )
        state = get_health(other)
        assert (state["outage"]["until"], state["outage"]["grace_granted"]) == (before, 0)

        proxy.swallow_requests = proxy.swallow_replies = False
        proxy.cut()
        await async_wait_until(lambda: _follows(cut, "other"), description="it follows", timeout=10)
    assert sorted(agent_id for _, agent_id in log_entries_by_reason(server.url, "degraded")) == DYING


async def _health(replica: Replica, field: str) -> bool:
    return bool((await asyncio.to_thread(get_health, replica))["leader"][field])


async def _follows(replica: Replica, instance: str) -> bool:
    leader = (await asyncio.to_thread(get_health, replica))["leader"]
    return not leader["leading"] and leader["instance"] == instance


def test_a_deleted_lock_leaves_one_leader(server: RedisServer) -> None:
    """By hand, or by a Redis that lost it: the holder notices at its next renewal, and the epoch rises."""
    with running_replicas(server.url, 2) as running:
        before = get_health(led(running))["leader"]["epoch"]
        with redis.Redis.from_url(server.url) as raw:
            raw.delete("{mesh}:leader")

        def settled() -> bool:
            states = [get_health(replica)["leader"] for replica in running]
            epochs = {state["epoch"] for state in states}
            return len(epochs) == 1 and None not in epochs and sum(state["leading"] for state in states) == 1

        wait_until(
            lambda: settled() and get_health(running[0])["leader"]["epoch"] > before,
            description="one leads, under a new epoch that all know",
            timeout=5,
        )
