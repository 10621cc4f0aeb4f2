"""Agents out of service and back: they live on, and nobody is sent to them meanwhile."""

from collections.abc import Mapping
from dataclasses import dataclass

from registry.errors import StoreUnavailable, UnknownAgent
from registry.model.query import AgentQuery
from registry.service.discovery.discovery import Discovery
from registry.store.agents import AgentDrainResult, Agents
from registry.store.scripts import MAX_AGENTS_PER_CALL


@dataclass(frozen=True, slots=True)
class DrainResult:
    """One agent that is now as asked: whether it was not before, and the resource version of its last change."""

    changed: bool
    version: int


class DrainService:
    """Takes agents out of service and puts them back."""

    def __init__(self, agents: Agents, discovery: Discovery) -> None:
        self._agents = agents
        self._discovery = discovery

    async def set_draining(self, agent_id: str, *, draining: bool) -> DrainResult:
        """Let one agent drain, or end that. Raises UnknownAgent."""
        (drained,) = await self._agents.drain([agent_id], draining=draining)
        shift = _drain_result(agent_id, drained)
        if not isinstance(shift, DrainResult):
            raise shift
        return shift

    async def set_draining_matching(
        self, query: AgentQuery, *, draining: bool
    ) -> Mapping[str, DrainResult | UnknownAgent | StoreUnavailable]:
        """Let every agent that matches now drain, or end that; each by itself, sorted as in a list.

        Between two calls' worth of agents the store may fail: then some are changed, and asking again does the rest.
        """
        listed = await self._discovery.agents(query)
        ids = [record.agent.id for record in listed.records]
        found: dict[str, DrainResult | UnknownAgent | StoreUnavailable] = {}
        for at in range(0, len(ids), MAX_AGENTS_PER_CALL):
            some = ids[at : at + MAX_AGENTS_PER_CALL]
            drained = await self._agents.drain(some, draining=draining)
            found |= {agent_id: _drain_result(agent_id, each) for agent_id, each in zip(some, drained, strict=True)}
        return found


def _drain_result(agent_id: str, drained: AgentDrainResult) -> DrainResult | UnknownAgent | StoreUnavailable:
    if drained.version is not None:
        return DrainResult(drained.outcome == "changed", drained.version)
    if drained.outcome == "unknown_agent":
        return UnknownAgent(agent_id)
    return StoreUnavailable.damaged_record(agent_id)
