"""Draining: takes agents out of service without unregistering them, and puts them back into service."""

from collections.abc import Mapping
from dataclasses import dataclass

from registry.errors import StoreUnavailable, UnknownAgent
from registry.model.query import AgentQuery
from registry.service.discovery.discovery_service import Discovery
from registry.store.agents import AgentDrainResult, Agents
from registry.store.scripts import MAX_AGENTS_PER_CALL


@dataclass(frozen=True, slots=True)
class DrainResult:
    """The result of a drain or undrain of one agent: whether the agent changed, and its resource version."""

    changed: bool
    version: int


class DrainService:
    """Takes agents out of service and puts them back."""

    def __init__(self, agents: Agents, discovery: Discovery) -> None:
        self._agents = agents
        self._discovery = discovery

    async def set_draining(self, agent_id: str, *, draining: bool) -> DrainResult:
        """Start or end the draining of one agent. Raises UnknownAgent."""
        (drained,) = await self._agents.drain([agent_id], draining=draining)
        result = _drain_result(agent_id, drained)
        if not isinstance(result, DrainResult):
            raise result
        return result

    async def set_draining_matching(
        self, query: AgentQuery, *, draining: bool
    ) -> Mapping[str, DrainResult | UnknownAgent | StoreUnavailable]:
        """Start or end the draining of every agent that matches a query, and return the result for each agent.

        If the store fails between two calls, some agents are changed; repeating the request changes the others.
        """
        listed = await self._discovery.agents(query)
        ids = [record.agent.id for record in listed.records]
        results: dict[str, DrainResult | UnknownAgent | StoreUnavailable] = {}
        for at in range(0, len(ids), MAX_AGENTS_PER_CALL):
            batch = ids[at : at + MAX_AGENTS_PER_CALL]
            drained = await self._agents.drain(batch, draining=draining)
            results |= {agent_id: _drain_result(agent_id, each) for agent_id, each in zip(batch, drained, strict=True)}
        return results


def _drain_result(agent_id: str, drained: AgentDrainResult) -> DrainResult | UnknownAgent | StoreUnavailable:
    if drained.version is not None:
        return DrainResult(drained.outcome == "changed", drained.version)
    if drained.outcome == "unknown_agent":
        return UnknownAgent(agent_id)
    return StoreUnavailable.damaged_record(agent_id)
