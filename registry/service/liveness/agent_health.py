"""Who is alive: heartbeats in, health out."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from registry.errors import StoreUnavailable, UnknownAgent
from registry.model.agent import Agent, Status
from registry.service.discovery.discovery import Discovery
from registry.store.agents import Agents, Beat

# Heartbeats are gathered, so the ids of one request go to the store a few calls' worth at a time.
_TOGETHER = 200


@dataclass(frozen=True, slots=True)
class Health:
    """How one agent is. Times are Redis-server milliseconds, durations milliseconds; None before a first heartbeat."""

    agent: Agent
    status: Status
    last_heartbeat: int | None
    since: int | None
    next_expected: int

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


class Liveness:
    """Takes heartbeats and tells how agents are."""

    def __init__(self, agents: Agents, discovery: Discovery) -> None:
        self._agents = agents
        self._discovery = discovery

    async def beat(self, agent_id: str, *, load: str = "", answered: str = "") -> int:
        """Prolong one agent's life; return the Redis server's time of it. Raises UnknownAgent.

        `load` is a number it tells of itself, `answered` the digest of what it is told, '' for neither.
        """
        return _taken(agent_id, await self._agents.heartbeat(agent_id, load=load, answered=answered))

    async def beats(self, agent_ids: Sequence[str]) -> list[int | UnknownAgent | StoreUnavailable]:
        """Prolong many; each succeeds or fails alone, in the order given."""
        results: list[int | UnknownAgent | StoreUnavailable] = []
        for at in range(0, len(agent_ids), _TOGETHER):
            some = agent_ids[at : at + _TOGETHER]
            taken = await asyncio.gather(*map(self.beat, some), return_exceptions=True)
            results.extend(_judged(beat) for beat in taken)
        return results

    async def health(self, agent_id: str) -> Health:
        """Tell how one agent is, exactly. Raises UnknownAgent."""
        sight = await self._discovery.agent(agent_id)
        agent, heartbeat = sight.record.agent, sight.record.heartbeat
        interval = orjson.loads(agent.spec).get("health_interval")
        step = round(interval * 1000) if interval else agent.timeout // 2
        return Health(
            agent=agent,
            status=agent.status,
            last_heartbeat=heartbeat,
            since=None if heartbeat is None else max(0, sight.now - heartbeat),
            next_expected=(agent.created if heartbeat is None else heartbeat) + step,
        )


def _taken(agent_id: str, beat: Beat) -> int:
    if beat.found == "unknown_agent":
        raise UnknownAgent(agent_id)
    if beat.found == "bad_record":
        raise StoreUnavailable.damaged(agent_id)
    return beat.at


def _judged(result: int | BaseException) -> int | UnknownAgent | StoreUnavailable:
    if isinstance(result, BaseException) and not isinstance(result, UnknownAgent | StoreUnavailable):
        raise result
    return result
