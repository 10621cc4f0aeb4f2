"""A change log in memory, for tests without Redis."""

import asyncio
from collections.abc import AsyncIterator
from typing import Literal

from registry.errors import StoreUnavailable
from registry.model.agent import Agent, Status, StoredAgent
from registry.model.change import Change, LogPosition, LogRead
from tests.support.builders import a_change

STORE_UNAVAILABLE = StoreUnavailable("gone")


class FakeChangeLog:
    """A `ChangeSource` backed by a list, with an attribute for each failure."""

    def __init__(self) -> None:
        self.timeline = "h1"
        self.changes: list[Change] = [a_change(1, "new_timeline")]
        self.agents: dict[str, Agent] = {}
        self.read_count = 0
        self.scan_count = 0
        self.max_entries_per_read = 1000
        self.unavailable = False
        self.forked = False
        self.read_gate: asyncio.Event | None = None
        self.written_during_scan: list[Agent] = []

    @property
    def version(self) -> int:
        """The version of the last entry."""
        return self.changes[-1].version

    def write(self, agent: Agent, kind: Literal["add", "modify", "remove"] = "modify") -> None:
        """Change state and log together, as a script does."""
        self.changes.append(a_change(agent.version, kind, agent, prev=self.version))
        if kind == "remove":
            self.agents.pop(agent.id, None)
        else:
            self.agents[agent.id] = agent

    def write_from(
        self, agent: Agent, *, status_before: Status | None = None, spec_before: bytes | None = None
    ) -> None:
        """Write a modification that contains the status or spec before it."""
        self.agents[agent.id] = agent
        self.changes.append(
            Change(agent.version, self.version, "modify", "test", agent, None, status_before, None, spec_before)
        )

    async def open(self) -> LogPosition:
        """Return the position at the end of the list."""
        if self.unavailable:
            raise STORE_UNAVAILABLE
        return LogPosition(self.version, self.timeline)

    async def read_since(self, after: int, _last_entry: object = None) -> LogRead:
        """Return the entries after `after`, if that entry still exists."""
        self.read_count += 1
        version, timeline = self.version, self.timeline
        if self.read_gate is not None:
            await self.read_gate.wait()
        if self.unavailable:
            raise STORE_UNAVAILABLE
        versions = [change.version for change in self.changes]
        contiguous = after in versions and not self.forked
        following = self.changes[versions.index(after) + 1 :][: self.max_entries_per_read] if contiguous else []
        return LogRead(version=version, timeline=timeline, contiguous=contiguous, changes=tuple(following))

    async def entry(self, version: int) -> Change | None:
        """Return one entry."""
        return next((change for change in self.changes if change.version == version), None)

    async def invalidate(self, timeline: str, last_seen: int) -> bool:
        """Start a new timeline if an entry was lost without a trim."""
        if timeline != self.timeline or not self.changes or self.changes[0].version > last_seen:
            return False
        self.timeline += "'"
        last = max(self.version, last_seen) + 60_000
        self.changes = [Change(last, last - 1, "new_timeline", "test", None)]
        return True

    async def scan(self) -> AsyncIterator[list[StoredAgent]]:
        """Yield every agent, with changes between two slices."""
        self.scan_count += 1
        agents = [StoredAgent(agent, None) for agent in self.agents.values()]
        yield agents[: len(agents) // 2]
        for agent in self.written_during_scan:
            self.write(agent)
        self.written_during_scan = []
        yield agents[len(agents) // 2 :]
