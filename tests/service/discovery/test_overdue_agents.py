"""Overdue agents in lists: their mark disappears with a heartbeat, a change and self-preservation."""

from collections.abc import Sequence
from typing import Any, cast

import orjson

from registry.cache.view import Record
from registry.model.agent import Status
from registry.service.discovery.overdue_agents import OverdueAgents
from registry.store.agents import Agents
from registry.store.redis_health import ProbeResult, SelfPreservation
from tests.support.builders import an_agent


class FakeStore:
    """A store in which the test sets the overdue agents, and self-preservation."""

    def __init__(self) -> None:
        self.active = True
        self.overdue: dict[str, int] = {}

    async def overdue_since(self, agent_ids: Sequence[str]) -> list[int | None]:
        """Return the deadlines that have passed."""
        assert self.active
        return [self.overdue.get(agent_id) for agent_id in agent_ids]

    def last_probe(self) -> ProbeResult:
        """Return the last probe."""
        period = SelfPreservation("n", 990_000, 1_590_000, None if self.active else 995_000, 30, 40, 0)
        return ProbeResult(1_000_000, self_preservation=(period,))


def a_record(agent_id: str, status: Status = "healthy") -> Record:
    """Return an agent that sent a heartbeat at 930 s."""
    return Record(an_agent(agent_id, status=status), 930_000, 0.0)


def shown(record: Record) -> Any:
    """Return the field as responses contain it."""
    return orjson.loads(record.json).get("overdue_since")


async def test_overdue_agents_are_marked_until_they_send_a_heartbeat_or_change() -> None:
    """Agents that are not overdue, and expired ones, which only wait for their removal, are not."""
    store = FakeStore()
    overdue = OverdueAgents(cast(Agents, store), store.last_probe)
    records = [a_record("a"), a_record("b", "degraded"), a_record("c"), a_record("d", "expired"), a_record("e")]
    store.overdue = dict.fromkeys("abde", 990_000)

    await overdue.mark(records)

    time = "1970-01-01T00:16:30.000Z"
    assert [shown(each) for each in records] == [time, time, None, None, time]
    records[0].update_heartbeat(999_000, 0.0)
    records[1].replace_agent(an_agent("b", status="expired"))
    del store.overdue["e"]
    await overdue.mark(records[4:])
    assert [shown(each) for each in records] == [None] * 5


async def test_all_marks_end_with_self_preservation() -> None:
    """Those of agents that are not listed at the end, too; without self-preservation the store is not asked."""
    store = FakeStore()
    overdue = OverdueAgents(cast(Agents, store), store.last_probe)
    record = a_record("a")
    store.overdue = {"a": 990_000}
    await overdue.mark([record])
    assert shown(record) is not None

    store.active = False
    await overdue.mark([])
    assert shown(record) is None
    await overdue.mark([record])
    await OverdueAgents(cast(Agents, store), lambda: None).mark([record])
    assert shown(record) is None
