"""Marks the overdue agents that lists show while self-preservation suspends their expiry."""

from collections.abc import Callable, Sequence

from registry.cache.view import Record
from registry.store.agents import Agents
from registry.store.redis_health import ProbeResult


class OverdueAgents:
    """Sets `overdue_since` of records; the last store probe shows whether self-preservation is active."""

    def __init__(self, agents: Agents, last_probe: Callable[[], ProbeResult | None]) -> None:
        self._agents = agents
        self._last_probe = last_probe
        self._marked: dict[str, Record] = {}

    async def mark(self, records: Sequence[Record]) -> None:
        """Mark those of the given records that are overdue; reset all marks after self-preservation has ended."""
        probe = self._last_probe()
        if probe is None or not (probe.active_periods or probe.suspended):
            for record in self._marked.values():
                record.set_overdue_since(None)
            self._marked.clear()
        elif records:
            overdue_since = await self._agents.overdue_since([record.agent.id for record in records])
            for record, since in zip(records, overdue_since, strict=True):
                # An expired agent past its deadline only waits for its removal.
                record.set_overdue_since(None if record.agent.status == "expired" else since)
                if record.overdue_since is not None:
                    self._marked[record.agent.id] = record
