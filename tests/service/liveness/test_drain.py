"""Agents are drained, and put back into service, many at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import pytest

from registry.errors import StoreUnavailable, UnknownAgent
from registry.model.query import AgentQuery
from registry.service.discovery.discovery_service import Discovery
from registry.service.liveness.drain import DrainResult, DrainService
from registry.store.agents import AgentDrainResult, Agents
from registry.store.scripts import MAX_AGENTS_PER_CALL
from tests.support.builders import an_agent
from tests.support.fake_change_log import FakeChangeLog
from tests.support.reflectors import running_reflector


@dataclass
class FakeAgentStore:
    """Drains every agent, each at its own version, except the ids `gone`, `broken` and `away`."""

    calls: list[list[str]]
    version: int = 1000

    async def drain(self, agent_ids: Sequence[str], *, draining: bool) -> list[AgentDrainResult]:
        """Return one result for each agent."""
        assert draining
        self.calls.append(list(agent_ids))
        return [self._drain(agent_id) for agent_id in agent_ids]

    def _drain(self, agent_id: str) -> AgentDrainResult:
        if agent_id == "gone":
            return AgentDrainResult("unknown_agent", None)
        if agent_id == "broken":
            return AgentDrainResult("bad_record", None)
        if agent_id == "away":
            raise StoreUnavailable("away", outcome="unknown")
        self.version += 1
        return AgentDrainResult("changed", self.version)

    def last_heartbeats(self, _agent_ids: Sequence[str]) -> None:
        """Fail: the list of agents to drain needs no heartbeats."""
        raise AssertionError("asked for heartbeats")


async def test_one_agent_is_drained_or_the_error_is_raised() -> None:
    """A damaged record is an error of the store."""
    store = FakeAgentStore([])
    draining = DrainService(cast(Agents, store), cast(Discovery, None))

    assert await draining.set_draining("a", draining=True) == DrainResult(changed=True, version=1001)
    with pytest.raises(UnknownAgent):
        await draining.set_draining("gone", draining=True)
    with pytest.raises(StoreUnavailable, match="damaged"):
        await draining.set_draining("broken", draining=True)
    assert store.calls == [["a"], ["gone"], ["broken"]]


async def test_all_matching_agents_are_drained_in_calls_of_limited_size() -> None:
    """An agent that is removed in the meantime fails alone; agents that do not match are not drained."""
    log, store = FakeChangeLog(), FakeAgentStore([])
    names = [f"a{at:04}" for at in range(2 * MAX_AGENTS_PER_CALL)]
    for version, agent_id in enumerate([*names, "gone"], start=2):
        log.write(an_agent(agent_id, version, namespace="n"), "add")
    log.write(an_agent("other", log.version + 1), "add")
    async with running_reflector(log) as feed:
        draining = DrainService(cast(Agents, store), Discovery(feed, cast(Agents, store)))
        found = await draining.set_draining_matching(AgentQuery(namespace="n"), draining=True)

    assert list(found) == [*names, "gone"]
    assert [len(call) for call in store.calls] == [MAX_AGENTS_PER_CALL, MAX_AGENTS_PER_CALL, 1]
    assert isinstance(found["gone"], UnknownAgent)
    assert all(
        result == DrainResult(changed=True, version=1001 + at) for at, result in enumerate(list(found.values())[:-1])
    )
