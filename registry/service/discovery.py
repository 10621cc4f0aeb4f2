"""A query to a sorted answer at a known version."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from registry.cache.feed import Feed
from registry.cache.view import Record, View
from registry.errors import NotReady, StoreUnavailable, UnknownAgent
from registry.model.agent import Capability
from registry.model.query import AgentQuery, CapabilityQuery
from registry.service.matching import Matcher
from registry.service.statuses import statuses
from registry.service.versions import constraint
from registry.store.agents import Agents

# How old a last heartbeat may be in a list, in seconds.
_HEARD_WITHIN = 1.0


@dataclass(frozen=True, slots=True)
class Listing:
    """Agents sorted by namespace, then id, as of one version.

    `behind` is how old it may be in seconds, None for one that is as fresh as was asked for.
    """

    records: list[Record]
    version: int
    behind: float | None


@dataclass(frozen=True, slots=True)
class Found:
    """One capability of one agent; `position` is its place in the agent's list."""

    record: Record
    capability: Capability
    position: int


@dataclass(frozen=True, slots=True)
class Search:
    """Capabilities sorted by the agent's namespace and id, then as the agent lists them, as of one version."""

    found: list[Found]
    version: int
    behind: float | None


@dataclass(frozen=True, slots=True)
class Sight:
    """One agent with its exact last heartbeat, and the Redis server's time then, in milliseconds."""

    record: Record
    now: int
    behind: float | None


class Discovery:
    """Answers reads from this replica's memory.

    Each read says how fresh it must be by `resource_version`: None for a version asked for after the read arrived,
    0 for whatever is held, N for one not older than N.
    """

    def __init__(self, feed: Feed, agents: Agents) -> None:
        self._feed = feed
        self._agents = agents

    async def agents(self, query: AgentQuery, resource_version: int | None = None) -> Listing:
        """Return every agent that matches."""
        wanted = Matcher(query)
        view, behind = await self._view(resource_version)
        records = wanted.select(view)
        if behind is None and await self._listen(records):
            # The view went on meanwhile; the rows must be of the version they are said to be of.
            records = wanted.select(view)
        records.sort(key=lambda record: record.order)
        return Listing(records, view.version, behind)

    async def agent(self, agent_id: str, resource_version: int | None = None) -> Sight:
        """Return one agent with its exact last heartbeat. Raises UnknownAgent."""
        if resource_version == 0:
            view, behind = self._held()
            return Sight(_one(view, agent_id), 0, behind)
        asked = self._agents.last_heard((agent_id,))
        try:
            view, behind = await self._view(resource_version)
            record = _one(view, agent_id)
            heard = await asked
        finally:
            asked.cancel()
        record.hear(heard.at[0], time.monotonic())
        return Sight(record, heard.now, behind)

    async def capabilities(self, query: CapabilityQuery, resource_version: int | None = None) -> Search:
        """Return every capability that matches, once for each agent that has it."""
        allowed = frozenset(statuses(query.agent_status, "agent_status"))
        passes = constraint(query.version_constraint) if query.version_constraint else None
        view, behind = await self._view(resource_version)
        found = []
        for record in self._candidates(view, query):
            agent = record.agent
            if agent.status not in allowed or (
                query.agent_namespace is not None and agent.profile.namespace != query.agent_namespace
            ):
                continue
            for position, capability in enumerate(agent.profile.capabilities):
                if (
                    (query.name is None or capability.name == query.name)
                    and (query.include_deprecated or capability.stability != "deprecated")
                    and (passes is None or passes(capability.version))
                ):
                    found.append(Found(record, capability, position))
        found.sort(key=lambda one: (*one.record.order, one.position))
        return Search(found, view.version, behind)

    def _candidates(self, view: View, query: CapabilityQuery) -> Iterable[Record]:
        if query.agent_id is not None:
            record = view.records.get(query.agent_id)
            return () if record is None else (record,)
        names = () if query.name is None else (query.name,)
        return view.narrowest(capabilities=names, namespace=query.agent_namespace, labels=(), statuses=()).values()

    async def _view(self, resource_version: int | None) -> tuple[View, float | None]:
        if resource_version == 0:
            return self._held()
        feed = self._feed
        held = feed.view
        if held is not None and resource_version is not None and held.version >= resource_version:
            return held, None if feed.following else feed.behind
        view = await feed.fresh()
        if resource_version is not None and view.version < resource_version:
            raise StoreUnavailable(
                f"The store is at resource version {view.version}, not yet at {resource_version}",
                reason="version_ahead",
            )
        return view, None

    def _held(self) -> tuple[View, float | None]:
        feed = self._feed
        if feed.view is None:
            raise NotReady("This replica has not filled its cache yet; try again shortly")
        return feed.view, feed.behind

    async def _listen(self, records: list[Record]) -> bool:
        """Learn the last heartbeats that are older than a list may show; tell whether that took any time."""
        now = time.monotonic()
        old = [record for record in records if now - record.heard_at > _HEARD_WITHIN]
        if not old:
            return False
        heard = await self._agents.last_heard([record.agent.id for record in old])
        now = time.monotonic()
        for record, at in zip(old, heard.at, strict=True):
            record.hear(at, now)
        return True


def _one(view: View, agent_id: str) -> Record:
    record = view.records.get(agent_id)
    if record is None:
        raise UnknownAgent(agent_id)
    return record
