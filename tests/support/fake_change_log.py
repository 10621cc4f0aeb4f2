"""A change source that is a list: the whole store floor, for tests that need none."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Literal

from registry.cache.reflector import Feed
from registry.errors import StoreUnavailable
from registry.model.agent import Agent, Held, Status
from registry.model.change import Change, Position, Pulled
from tests.support.builders import a_change

AWAY = StoreUnavailable("gone")


class PlainLog:
    """A change source that is a list, with a switch for each thing that can go wrong."""

    def __init__(self) -> None:
        self.history = "h1"
        self.changes: list[Change] = [a_change(1, "begin")]
        self.agents: dict[str, Agent] = {}
        self.pulls = 0
        self.scans = 0
        self.at_once = 1000
        self.away = False
        self.forked = False
        self.hold: asyncio.Event | None = None
        self.during_scan: list[Agent] = []

    @property
    def version(self) -> int:
        """The version of the last entry."""
        return self.changes[-1].version

    def write(self, agent: Agent, kind: Literal["add", "modify", "remove"] = "modify") -> None:
        """Do what a script does: state and log together."""
        self.changes.append(a_change(agent.version, kind, agent, prev=self.version))
        if kind == "remove":
            self.agents.pop(agent.id, None)
        else:
            self.agents[agent.id] = agent

    def write_from(
        self, agent: Agent, *, status_before: Status | None = None, spec_before: bytes | None = None
    ) -> None:
        """Write a modification that tells what differed before it."""
        self.agents[agent.id] = agent
        self.changes.append(
            Change(agent.version, self.version, "modify", "test", agent, None, status_before, None, spec_before)
        )

    async def open(self) -> Position:
        """Return where the list ends."""
        if self.away:
            raise AWAY
        return Position(self.version, self.history)

    async def pull(self, after: int, _mark: object = None) -> Pulled:
        """Return what came after an entry, if that entry is still there."""
        self.pulls += 1
        version, history = self.version, self.history
        if self.hold is not None:
            await self.hold.wait()
        if self.away:
            raise AWAY
        versions = [change.version for change in self.changes]
        holds = after in versions and not self.forked
        following = self.changes[versions.index(after) + 1 :][: self.at_once] if holds else []
        return Pulled(version=version, history=history, holds=holds, changes=tuple(following))

    async def entry(self, version: int) -> Change | None:
        """Return one entry."""
        return next((change for change in self.changes if change.version == version), None)

    async def sever(self, history: str, seen: int) -> bool:
        """Begin another history where an entry is lost that was not trimmed."""
        if history != self.history or not self.changes or self.changes[0].version > seen:
            return False
        self.history += "'"
        last = max(self.version, seen) + 60_000
        self.changes = [Change(last, last - 1, "begin", "test", None)]
        return True

    async def scan(self) -> AsyncIterator[list[Held]]:
        """Return every agent, with changes made between two slices."""
        self.scans += 1
        held = [Held(agent, None) for agent in self.agents.values()]
        yield held[: len(held) // 2]
        for agent in self.during_scan:
            self.write(agent)
        self.during_scan = []
        yield held[len(held) // 2 :]


@contextlib.asynccontextmanager
async def following(log: PlainLog, most: int = 20_000) -> AsyncIterator[Feed]:
    """Provide a feed that runs and keeps at most so many changes."""
    feed = Feed(log, most)
    task = asyncio.create_task(feed.run())
    try:
        yield feed
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
