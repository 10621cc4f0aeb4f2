"""The health of one agent: its status, its last heartbeat, and when the next one is due."""

from dataclasses import dataclass
from datetime import timedelta

from registry.duration import format_duration
from registry.model.agent import Agent
from registry.service.discovery.discovery_service import Discovery


@dataclass(frozen=True, slots=True)
class AgentHealth:
    """The health of one agent; times are in ms of the Redis server's clock, or None without a heartbeat.

    An expired agent remains for `retention`.
    """

    agent: Agent
    last_heartbeat: int | None
    elapsed_ms: int | None
    next_heartbeat: int
    retention: timedelta

    @property
    def message(self) -> str:
        """The status of the agent as a sentence, with a second sentence if the agent is draining."""
        is_late = self.elapsed_ms is not None and self.elapsed_ms > self.agent.late_after_ms
        retention = format_duration(self.retention)
        text = {
            "pending": "Registered; no heartbeat received yet",
            "healthy": "Heartbeat late; equal providers come first" if is_late else "Heartbeats arrive on time",
            "degraded": "Heartbeat overdue; the next heartbeat makes it healthy again",
            "expired": f"Expired; removed after {retention} unless a heartbeat makes it healthy again",
        }[self.agent.status]
        return f"{text}. Draining: not offered to callers" if self.agent.draining else text


class AgentHealthService:
    """Reads the status and the last heartbeat of agents."""

    def __init__(self, discovery: Discovery, retention: timedelta) -> None:
        self._discovery = discovery
        self._retention = retention

    async def health(self, agent_id: str) -> AgentHealth:
        """Return the health of one agent, with its exact last heartbeat. Raises UnknownAgent."""
        snapshot = await self._discovery.agent(agent_id)
        agent, heartbeat = snapshot.record.agent, snapshot.record.heartbeat
        return AgentHealth(
            agent=agent,
            last_heartbeat=heartbeat,
            elapsed_ms=None if heartbeat is None else max(0, snapshot.server_time_ms - heartbeat),
            next_heartbeat=(agent.created if heartbeat is None else heartbeat) + agent.heartbeat_interval_ms,
            retention=self._retention,
        )
