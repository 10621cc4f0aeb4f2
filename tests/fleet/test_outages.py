"""Outages of Redis and steps of its clock: agents are not degraded for the outage, and dead ones still are."""

import re
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx2
import pytest
import redis

from tests.support.blocked_event_loop import BLOCKABLE_ENV, block_event_loop
from tests.support.clock_stepped_redis import ClockSteppedRedis, clock_stepping_unavailable_reason
from tests.support.http_calls import REQUEST_TIMEOUT_S
from tests.support.polling import wait_until
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica
from tests.support.replica_group import (
    AGENT_TIMEOUT_S,
    HeartbeatSender,
    get_health,
    log_entries_by_reason,
    register_agents,
    running_replicas,
)
from tests.support.server_time import server_time_ms

# Milliseconds; longer than a pause of Redis that is ignored, and longer than the timeout of the agents.
AGENT_TIMEOUT_MS = round(AGENT_TIMEOUT_S * 1000)
OUTAGE_MS = 2 * AGENT_TIMEOUT_MS + 500
FLEET = [f"agent-{n}" for n in range(30)]
HOUR_S = 3600


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """Provide a Redis server for one test."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def stepping() -> Iterator[ClockSteppedRedis]:
    """Provide a Redis server whose clock can be stepped."""
    reason = clock_stepping_unavailable_reason()
    if reason is not None:
        pytest.skip(reason)
    with ClockSteppedRedis() as server:
        yield server


def monotonic_ms() -> int:
    """Return the monotonic time of the machine, which continues while a server is paused."""
    return int(time.monotonic() * 1000)


def wait_ms(duration_ms: int) -> None:
    """Wait for a number of milliseconds."""
    until = monotonic_ms() + duration_ms
    wait_until(lambda: monotonic_ms() >= until, description="the time has passed")


def last_outage(replica: Replica) -> dict[str, Any]:
    """Return the last outage that a replica reports."""
    found: dict[str, Any] = get_health(replica)["outage"]
    return found


@pytest.mark.fault(10, "Redis is frozen for longer than an agent's timeout")
def test_agents_that_send_heartbeats_after_a_freeze_of_redis_stay_healthy(server: RedisServer) -> None:
    """The replica stays alive; an agent that does not return is degraded one timeout after the outage."""
    with running_replicas(server.url, 1) as (replica,), HeartbeatSender([replica], FLEET):
        register_agents(replica, [*FLEET, "dead"])
        before = last_outage(replica)["until"]

        server.pause()
        wait_ms(OUTAGE_MS)
        assert httpx2.get(f"{replica.url}/health", timeout=REQUEST_TIMEOUT_S).json()["status"] == "degraded"
        server.resume()

        wait_until(lambda: last_outage(replica)["until"] != before, description="the outage is reported")
        shown = last_outage(replica)
        assert shown["cause"] == "no_probe"
        wait_until(lambda: log_entries_by_reason(server.url, "degraded"), description="the dead agent is degraded")
        ((at, agent_id),) = log_entries_by_reason(server.url, "degraded")
        with redis.Redis.from_url(server.url, decode_responses=True) as redis_client:
            ended = int(str(redis_client.get("{mesh}:outage")).split()[0])
        assert agent_id == "dead"
        assert at - ended >= AGENT_TIMEOUT_MS
        assert not get_health(replica)["self_preservation"]["activations"]
        assert "redis_unreachable" in replica.output
        assert "outage_ended" in replica.output
        assert "outage_grace_granted" in replica.output
        wait_until(
            lambda: "outage_grace_period_ended" in replica.output,
            description="the end of the grace period is logged",
        )


def test_delayed_replicas_keep_no_dead_agent_healthy(server: RedisServer) -> None:
    """Attack T10: requests that block all replicas for seconds gave each dead agent its whole timeout, here 600 s."""
    with running_replicas(server.url, 2, **{**BLOCKABLE_ENV, "BLOCK_SECONDS": "8"}) as running:
        register_agents(running[0], ["dead"], timeout_threshold=600, eviction_threshold=6000)
        with redis.Redis.from_url(server.url, decode_responses=True) as redis_client:
            now = server_time_ms(redis_client)
            redis_client.zadd("{mesh}:heartbeats", {"dead": now - 599_000})
            redis_client.zadd("{mesh}:deadlines", {"dead": now + 1000})
            redis_client.delete("{mesh}:outage")  # that before the first replica

            for replica in running:
                block_event_loop(replica)

            wait_until(lambda: log_entries_by_reason(server.url, "degraded"), description="the agent is degraded")
            length = int(str(redis_client.lindex("{mesh}:lags", 0)).split()[2])
        ((at, _),) = log_entries_by_reason(server.url, "degraded")
        assert length > 5000
        assert at >= now + 1000 + length
        for replica in running:
            assert last_outage(replica)["cause"] == "lag"
            metrics = httpx2.get(f"{replica.url}/metrics/prometheus", timeout=REQUEST_TIMEOUT_S).text
            (lag,) = re.findall(r"^mcp_registry_loop_lag_seconds (\S+)$", metrics, re.MULTILINE)
            assert float(lag) > 5


def test_agents_are_not_degraded_for_the_time_without_a_replica(server: RedisServer) -> None:
    """All replicas stop for longer than a timeout; after the restart, agents that send heartbeats stay healthy."""
    with running_replicas(server.url, 1) as (replica,):
        register_agents(replica, FLEET)
        replica.stop()
    wait_ms(OUTAGE_MS)

    with running_replicas(server.url, 2) as running, HeartbeatSender(running, FLEET):
        with redis.Redis.from_url(server.url) as redis_client:
            began = server_time_ms(redis_client)
            wait_until(
                lambda: server_time_ms(redis_client) > began + AGENT_TIMEOUT_MS + 1000,
                description="more than a timeout has passed",
            )
        assert last_outage(running[0])["cause"] == "no_probe"
        assert log_entries_by_reason(server.url, "degraded") == []


@pytest.mark.fault(27, "The clock of Redis is set forward or back")
@pytest.mark.parametrize("seconds", [-2 * HOUR_S, HOUR_S], ids=["back", "ahead"])
def test_a_clock_step_of_redis_degrades_only_dead_agents(stepping: ClockSteppedRedis, seconds: int) -> None:
    """Long before the step has passed; no stored time is in the future, and the leader stays the same."""
    with running_replicas(stepping.url, 2) as running, HeartbeatSender(running, FLEET) as sender:
        register_agents(running[0], [*FLEET, "dead"])
        leading = get_health(running[0])["leader"]["epoch"]

        stepping.set_clock_offset(seconds)

        wait_until(
            lambda: log_entries_by_reason(stepping.url, "degraded"),
            description="the dead agent is degraded",
        )
        assert [agent_id for _, agent_id in log_entries_by_reason(stepping.url, "degraded")] == ["dead"]
        state = get_health(running[1])
        assert state["outage"]["cause"] == ("clock_rollback" if seconds < 0 else "no_probe")
        assert not state["outage"]["repairing_clock_rollback"]
        assert state["leader"]["epoch"] == leading
        assert not state["self_preservation"]["activations"]
        assert not sender.unknown_agents
        with redis.Redis.from_url(stepping.url) as redis_client:
            heartbeats: Any = redis_client.zrange("{mesh}:heartbeats", 0, -1, withscores=True)
            deadlines: Any = redis_client.zrange("{mesh}:deadlines", 0, -1, withscores=True)
            # Read after the times, since live agents send heartbeats all the time.
            now = server_time_ms(redis_client)
            assert max(at for _, at in heartbeats) <= now + 2000
            assert max(at for _, at in deadlines) <= now + 4 * AGENT_TIMEOUT_MS
            for replica in running:
                for agent_id in ("dead", FLEET[0]):
                    shown = httpx2.get(f"{replica.url}/health/{agent_id}", timeout=REQUEST_TIMEOUT_S).json()
                    last_heartbeat_ms = datetime.fromisoformat(shown["last_heartbeat"]).timestamp() * 1000
                    assert last_heartbeat_ms <= server_time_ms(redis_client) + 2000
                    assert shown["time_since_heartbeat"] <= AGENT_TIMEOUT_S or agent_id == "dead"
