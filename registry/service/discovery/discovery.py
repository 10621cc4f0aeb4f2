"""A query to a sorted answer at a known version."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from registry.cache.reflector import Feed
from registry.cache.view import Record, View
from registry.compat.mcpmesh.list_rows import LARGE, Prepare, Row, plain_row
from registry.errors import NotReady, StoreUnavailable, UnknownAgent, VersionTooOld
from registry.model.agent import Capability
from registry.model.query import AgentQuery, CapabilityQuery
from registry.service.discovery.heartbeat_times import FRESH, Hearing
from registry.service.discovery.matching import CapabilitySearch
from registry.service.discovery.query_cache import Answer, Answers, Place, body_of
from registry.store.agents import Agents


@dataclass(frozen=True, slots=True)
class Freshness:
    """How fresh an answer must be.

    `version` None: as of a version asked for after the read arrived; 0: whatever is held; N: not older than N, or
    exactly as it was at N if `exact`.
    """

    version: int | None = None
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list: at most `limit` rows after the place `after`; `version` is that of the first page."""

    limit: int
    after: Place | None = None
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """An answer a caller has: the beginning of the history's id, and a version at which it was as it is."""

    history: str
    version: int


NEWEST = Freshness()


@dataclass(frozen=True, slots=True)
class Listing:
    """Agents sorted by score where there is one, then namespace, then id.

    `version` is what the rows are as of: for a page that of the first page, so that a watch from it replays what
    changed during the walk. `changed` is a version since which this very answer is as it is. `more` is the place to go
    on from, None at the end. `behind` is how old it may be in seconds, None for as fresh as was asked. With `unchanged`
    the caller has it already, and the rows were not made fresh.
    """

    answer: Answer
    records: Sequence[Record]
    version: int
    history: str
    changed: int
    behind: float | None
    more: Place | None = None
    unchanged: bool = False

    @property
    def rows(self) -> bytes:
        """The rows as JSON, without the brackets around them."""
        if self.records is self.answer.records:
            return self.answer.joined()
        return b",".join([body_of(self.answer, record) for record in self.records])


@dataclass(frozen=True, slots=True)
class Found:
    """One capability of one agent; `position` is its place in the agent's list."""

    record: Record
    capability: Capability
    position: int
    score: float


@dataclass(frozen=True, slots=True)
class Search:
    """Capabilities sorted by score where there is one, then the agent's namespace and id, then as it has them."""

    found: list[Found]
    ranked: bool
    version: int
    behind: float | None


@dataclass(frozen=True, slots=True)
class Sight:
    """One agent with its exact last heartbeat, and the Redis server's time then, in milliseconds."""

    record: Record
    now: int
    behind: float | None


class Discovery:
    """Answers reads from this replica's memory."""

    def __init__(self, feed: Feed, agents: Agents, row: Row = plain_row, prepare: Prepare | None = None) -> None:
        self._feed = feed
        self._agents = agents
        self._answers = Answers(row)
        self._prepare = prepare
        self._hearing = Hearing(agents)

    async def agents(
        self,
        query: AgentQuery,
        freshness: Freshness = NEWEST,
        page: Page | None = None,
        known: Known | None = None,
    ) -> Listing:
        """Return the agents that match, or one page of them.

        `known` is what the caller has already. Raises VersionTooOld for a page whose first
        page's version is no longer in the log, and for an exact version at which the answer was another.
        """
        view, behind = await self.view(freshness)
        if page is not None and page.version is not None and not await self._feed.trail.reach(page.version):
            raise VersionTooOld(page.version, view.version)
        answer = self._answer(query, view)
        if freshness.exact and freshness.version is not None and not self._same(answer, freshness.version):
            raise VersionTooOld(freshness.version, view.version)
        if known is not None and view.history.startswith(known.history) and self._same(answer, known.version):
            return Listing(answer, (), view.version, view.history, answer.changed, behind, unchanged=True)
        if self._prepare is not None and not answer.is_joined:
            for record in self._cut(answer, page)[0]:
                if len(record.agent.spec) > LARGE:
                    await self._prepare(view, record)
            view = self._feed.view or view
            answer = self._answer(query, view)
        if behind is None:
            view, answer = await self._heard(query, view, answer, page)
        records, more = self._cut(answer, page)
        version = view.version if page is None or page.version is None else page.version
        if freshness.exact and freshness.version is not None:
            if not self._same(answer, freshness.version):
                raise VersionTooOld(freshness.version, view.version)
            version = freshness.version
        return Listing(answer, records, version, view.history, answer.changed, behind, more)

    async def agent(self, agent_id: str, freshness: Freshness = NEWEST) -> Sight:
        """Return one agent with its exact last heartbeat. Raises UnknownAgent."""
        if freshness.version == 0:
            view, behind = self._held()
            return Sight(record_of(view, agent_id), 0, behind)
        asked = self._agents.last_heard((agent_id,))
        try:
            view, behind = await self.view(freshness)
            record = record_of(view, agent_id)
            heard = await asked
        finally:
            asked.cancel()
        record.hear(heard.at[0], time.monotonic())
        return Sight(record, heard.now, behind)

    async def capabilities(self, query: CapabilityQuery, freshness: Freshness = NEWEST) -> Search:
        """Return every capability that matches, once for each agent that has it.

        Raises VersionTooOld for an exact version that is not the one held.
        """
        search = CapabilitySearch(query)
        view, behind = await self.view(freshness)
        if freshness.exact and freshness.version is not None and view.version != freshness.version:
            raise VersionTooOld(freshness.version, view.version)
        found = [
            Found(record, capability, position, score)
            for record in search.candidates(view)
            if search.admits(record.agent)
            for position, capability in enumerate(record.agent.profile.capabilities)
            if (score := search.score(capability)) is not None
        ]
        found.sort(key=lambda one: (-one.score, *one.record.order, one.position))
        return Search(found, search.ranks, view.version, behind)

    def _answer(self, query: AgentQuery, view: View) -> Answer:
        return self._answers.answer(query, view, self._feed.trail.history)

    async def _heard(self, query: AgentQuery, view: View, answer: Answer, page: Page | None) -> tuple[View, Answer]:
        """Make the last heartbeats new enough, and return what is held by then."""
        if not _is_heard(answer):
            await self._hearing.hear(view, self._cut(answer, page)[0])
            view = self._feed.view or view
            answer = self._answer(query, view)
            # Another read of the same list may have been here meanwhile.
            if page is None and not _is_heard(answer):
                answer.array = None
                answer.heard_at = self._hearing.heard_at(view, answer.records)
        return view, answer

    def _same(self, answer: Answer, version: int) -> bool:
        """Tell whether the answer is known to be the one it was at a version."""
        return version <= answer.examined and answer.reaches(version, self._feed.trail.history)

    def _cut(self, answer: Answer, page: Page | None) -> tuple[list[Record], Place | None]:
        """Return the rows of a page, and the place to go on from when there are more."""
        if page is None:
            return answer.records, None
        begin = 0 if page.after is None else answer.after(page.after)
        records = answer.records[begin : begin + page.limit]
        more = begin + page.limit < len(answer.records)
        return records, answer.place(records[-1]) if more and records else None

    async def view(self, freshness: Freshness) -> tuple[View, float | None]:
        """Return a view as fresh as asked, and how old it may be in seconds; None for as fresh as asked."""
        version, feed = freshness.version, self._feed
        if version == 0:
            return self._held()
        held = feed.view
        if held is not None and version is not None and held.version >= version:
            return held, None if feed.following else feed.behind
        view = await feed.fresh()
        if version is not None and view.version < version:
            raise StoreUnavailable(
                f"The store is at resource version {view.version}, not yet at {version}", reason="version_ahead"
            )
        return view, None

    def _held(self) -> tuple[View, float | None]:
        feed = self._feed
        if feed.view is None:
            raise NotReady("This replica has not filled its cache yet; try again shortly")
        return feed.view, feed.behind


def _is_heard(answer: Answer) -> bool:
    """Tell whether the joined list may be shown as it is."""
    return answer.array is not None and answer.heard_at >= time.monotonic() - FRESH


def record_of(view: View, agent_id: str) -> Record:
    """Return one agent of a view. Raises UnknownAgent."""
    record = view.records.get(agent_id)
    if record is None:
        raise UnknownAgent(agent_id)
    return record
