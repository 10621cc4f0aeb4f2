"""The health report of one agent."""

from datetime import timedelta
from typing import Any, cast

import pytest

from registry.cache.view import Record
from registry.model.agent import Status
from registry.service.discovery.discovery_service import AgentSnapshot, Discovery
from registry.service.liveness.agent_health import AgentHealthService
from tests.support.builders import an_agent


class FakeDiscovery:
    """A discovery that returns one agent."""

    def __init__(self, snapshot: AgentSnapshot) -> None:
        self._snapshot = snapshot

    async def agent(self, _agent_id: str) -> AgentSnapshot:
        """Return the agent."""
        return self._snapshot


RETENTION = timedelta(hours=1)
HEALTH: list[tuple[Status, int | None, dict[str, Any], int | None, int]] = [
    ("pending", None, {}, None, 30_000),
    ("pending", None, {"health_interval": 7.5}, None, 7_500),
    ("healthy", 5_000, {}, 95_000, 35_000),
    ("healthy", 5_000, {"health_interval": 1}, 95_000, 6_000),
    ("degraded", 99_999, {}, 1, 129_999),
    ("expired", 200_000, {}, 0, 230_000),
]


@pytest.mark.parametrize(("status", "heartbeat", "fields", "elapsed", "expected"), HEALTH)
async def test_health_uses_the_clock_of_redis(
    status: Status, heartbeat: int | None, fields: dict[str, Any], elapsed: int | None, expected: int
) -> None:
    """The time is 100 s and the timeout 60 s; no elapsed time before the first heartbeat, and none below 0."""
    record = Record(an_agent("a", status=status, **fields), heartbeat, 0.0)
    discovery = FakeDiscovery(AgentSnapshot(record, 100_000, None))

    health = await AgentHealthService(cast(Discovery, discovery), RETENTION).health("a")

    assert (health.agent.status, health.last_heartbeat, health.elapsed_ms, health.next_heartbeat) == (
        status,
        heartbeat,
        elapsed,
        expected,
    )
    assert health.message


MESSAGES: list[tuple[Status, int | None, str]] = [
    ("pending", None, "Registered; no heartbeat received yet"),
    ("healthy", 55_000, "Heartbeats arrive on time"),
    ("healthy", 54_999, "Heartbeat late; equal providers come first"),
    ("degraded", 30_000, "Heartbeat overdue; the next heartbeat makes it healthy again"),
    ("expired", 1_000, "Expired; removed after 1h unless a heartbeat makes it healthy again"),
]


@pytest.mark.parametrize(("status", "heartbeat", "message"), MESSAGES)
async def test_the_message_states_a_late_heartbeat_and_the_retention(
    status: Status, heartbeat: int | None, message: str
) -> None:
    """A healthy agent is late after one and a half of its 30 s; an agent that has just expired remains for an hour."""
    record = Record(an_agent("a", status=status, health_interval=30), heartbeat, 0.0)
    discovery = FakeDiscovery(AgentSnapshot(record, 100_000, None))

    health = await AgentHealthService(cast(Discovery, discovery), RETENTION).health("a")

    assert health.message == message
