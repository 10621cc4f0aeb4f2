"""Five hundred agents cut off at once: held, told, and moved on at last."""

import threading
from collections.abc import Iterator

import httpx2
import pytest
import redis

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
    """A store of the test's own."""
    with RedisServer() as server:
        yield server


@pytest.mark.fault(28, "500 agents are disconnected at once")
def test_five_hundred_agents_that_are_cut_off_at_once_are_held(server: RedisServer) -> None:
    """Their last heartbeats are spread, so those up to the share go one by one; the rest stay until the hold ends."""
    with running_replicas(server.url, 2, REGISTRY_SELF_PRESERVATION_DURATION="4s") as running:
        register_agents(running[0], MANY, timeout_threshold=3, eviction_threshold=600)
        spread = threading.Event()
        with httpx2.Client(base_url=running[0].url) as client:
            for phase in range(PHASES):
                send_heartbeats(client, MANY[phase::PHASES])
                spread.wait(0.1)

        wait_until(
            lambda: get_health(running[1])["self_preservation"]["active"], description="the hold is shown", timeout=10
        )
        hold = get_health(running[1])["self_preservation"]
        assert hold["healthy"] == 500
        assert 250 < hold["overdue_at_start"] <= 300
        wait_until(
            lambda: len(log_entries_by_reason(server.url, "degraded")) == 500,
            description="all went at last",
            timeout=15,
        )
        wait_until(
            lambda: not any(get_health(replica)["self_preservation"]["active"] for replica in running),
            description="both show the end",
        )

        with redis.Redis.from_url(server.url, decode_responses=True) as raw:
            since, until = (int(text or 0) for text in raw.hmget("{mesh}:self_preservation", "since", "until"))
        went = log_entries_by_reason(server.url, "degraded")
        assert 4000 <= until - since <= 4010
        assert 200 <= sum(at <= since for at, _ in went) <= 250
        assert [at for at, _ in went if since + 100 < at < until] == []
        assert sorted(agent_id for _, agent_id in went) == MANY
        assert get_health(running[0])["self_preservation"]["activations"] == 1
        for replica in running:
            assert "self_preservation_started" in replica.output
            assert "self_preservation_ended" in replica.output
