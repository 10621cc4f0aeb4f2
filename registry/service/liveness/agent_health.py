"""Who is alive: heartbeats in, health out."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from registry.errors import StoreUnavailable, UnknownAgent
from registry.model.agent import Agent, Status
from registry.service.discovery.discovery import Discovery
from registry.store.agents import Agents, HeartbeatResult

# Heartbeats are gathered, so the ids of one request go to the store a few calls' worth at a time.
_HEARTBEATS_PER_BATCH = 200


@dataclass(frozen=True, slots=True)
class AgentHealth:
    """How one agent is. Times are Redis-server milliseconds, durations milliseconds; None before a first heartbeat."""

    agent: Agent
    status: Status
    last_heartbeat: int | None
    elapsed_ms: int | None
    next_heartbeat: int

    @property
    def message(self) -> str:
        """What this means, in a sentence, or two for one that drains."""
        means = {
            "pending": "Registered; no heartbeat has come yet",
            "healthy": "Sends its heartbeats in time",
            "degraded": "Has missed its heartbeat; one heartbeat makes it healthy again",
            "expired": "Has been silent for too long and will be removed; one heartbeat makes it healthy again",
        }[self.status]
        return f"{means}. It drains: nobody is sent to it" if self.agent.draining else means


class HeartbeatRecorder:
    """Takes heartbeats and tells how agents are."""

    def __init__(self, agents: Agents, discovery: Discovery) -> None:
        self._agents = agents
        self._discovery = discovery

    async def record(self, agent_id: str, *, load: str = "", response_digest: str = "") -> int:
        """Prolong one agent's life; return the Redis server's time of it. Raises UnknownAgent.

        `load` is a number it tells of itself, `response_digest` the digest of what it is told, '' for neither.
        """
        return _heartbeat_time(
            agent_id, await self._agents.heartbeat(agent_id, load=load, response_digest=response_digest)
        )

    async def record_many(self, agent_ids: Sequence[str]) -> list[int | UnknownAgent | StoreUnavailable]:
        """Prolong many; each succeeds or fails alone, in the order given."""
        results: list[int | UnknownAgent | StoreUnavailable] = []
        for at in range(0, len(agent_ids), _HEARTBEATS_PER_BATCH):
            some = agent_ids[at : at + _HEARTBEATS_PER_BATCH]
            taken = await asyncio.gather(*map(self.record, some), return_exceptions=True)
            results.extend(_result_or_raise(beat) for beat in taken)
        return results

    async def health(self, agent_id: str) -> AgentHealth:
        """Tell how one agent is, exactly. Raises UnknownAgent."""
        sight = await self._discovery.agent(agent_id)
        agent, heartbeat = sight.record.agent, sight.record.heartbeat
        interval = orjson.loads(agent.spec).get("health_interval")
        step = round(interval * 1000) if interval else agent.timeout // 2
        return AgentHealth(
            agent=agent,
            status=agent.status,
            last_heartbeat=heartbeat,
            elapsed_ms=None if heartbeat is None else max(0, sight.server_time_ms - heartbeat),
            next_heartbeat=(agent.created if heartbeat is None else heartbeat) + step,
        )


def _heartbeat_time(agent_id: str, result: HeartbeatResult) -> int:
    if result.outcome == "unknown_agent":
        raise UnknownAgent(agent_id)
    if result.outcome == "bad_record":
        raise StoreUnavailable.damaged_record(agent_id)
    return result.now


def _result_or_raise(result: int | BaseException) -> int | UnknownAgent | StoreUnavailable:
    if isinstance(result, BaseException) and not isinstance(result, UnknownAgent | StoreUnavailable):
        raise result
    return result
