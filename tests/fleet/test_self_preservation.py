"""500 agents lose their connection at once: self-preservation suspends their expiry, then ends."""

import threading
from collections.abc import Iterator

import httpx2
import pytest
import redis

from tests.support.http_calls import REQUEST_TIMEOUT_S
from tests.support.machine_speed import scaled
from tests.support.polling import wait_until
from tests.support.redis_server import RedisServer
from tests.support.replica_group import (
    get_health,
    log_entries_by_reason,
    register_agents,
    running_replicas,
    send_heartbeats,
)

MANY = [f"agent-{n:03}" for n in range(500)]
PHASES = 20


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """Provide a Redis server for one test."""
    with RedisServer() as server:
        yield server


@pytest.mark.fault(28, "500 agents are disconnected at once")
def test_self_preservation_suspends_expiry_of_disconnected_agents(server: RedisServer) -> None:
    """Their last heartbeats are spread: agents up to the share are degraded one by one, the others at its end."""
    with running_replicas(server.url, 2, REGISTRY_SELF_PRESERVATION_DURATION="4s") as running:
        register_agents(running[0], MANY, timeout_threshold=scaled(3), eviction_threshold=600)
        spread = threading.Event()
        with httpx2.Client(base_url=running[0].url, timeout=REQUEST_TIMEOUT_S) as client:
            for phase in range(PHASES):
                send_heartbeats(client, MANY[phase::PHASES])
                spread.wait(0.1)

        wait_until(
            lambda: get_health(running[1])["self_preservation"]["active"],
            description="self-preservation is reported",
        )
        state = get_health(running[1])["self_preservation"]
        assert state["healthy"] == 500
        assert state["overdue_at_start"] > 250
        wait_until(
            lambda: len(log_entries_by_reason(server.url, "degraded")) == 500,
            description="all agents are degraded",
        )
        wait_until(
            lambda: not any(get_health(replica)["self_preservation"]["active"] for replica in running),
            description="both replicas report the end",
        )

        with redis.Redis.from_url(server.url, decode_responses=True) as redis_client:
            period = str(redis_client.hget("{mesh}:self_preservation", "default"))
        since, until = map(int, period.split(" ")[:2])
        degraded = log_entries_by_reason(server.url, "degraded")
        assert 4000 <= until - since <= 4010
        # A late sweep finds more than the share overdue at once, and degrades fewer before.
        assert sum(at <= since for at, _ in degraded) <= 250
        assert [at for at, _ in degraded if since + 100 < at < until] == []
        assert sorted(agent_id for _, agent_id in degraded) == MANY
        assert get_health(running[0])["self_preservation"]["activations"] == 1
        for replica in running:
            assert "self_preservation_started" in replica.output
            assert "self_preservation_ended" in replica.output
