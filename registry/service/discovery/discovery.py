"""A query to a sorted answer at a known version."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from registry.cache.reflector import Reflector
from registry.cache.view import Record, View
from registry.compat.mcpmesh.list_rows import LARGE_SPEC_BYTES, PrepareRow, RenderRow, plain_row
from registry.errors import NotReady, StoreUnavailable, UnknownAgent, VersionTooOld
from registry.model.agent import Capability
from registry.model.query import AgentQuery, CapabilityQuery
from registry.service.discovery.heartbeat_times import MAX_HEARTBEAT_AGE_S, HeartbeatRefresher
from registry.service.discovery.matching import CapabilityQueryMatcher
from registry.service.discovery.query_cache import CachedQuery, QueryCache, SortKey, render_row
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
    after: SortKey | None = None
    version: int | None = None


@dataclass(frozen=True, slots=True)
class ClientVersion:
    """An answer a caller has: the beginning of the history's id, and a version at which it was as it is."""

    timeline_prefix: str
    version: int


LATEST = Freshness()


@dataclass(frozen=True, slots=True)
class AgentList:
    """Agents sorted by score where there is one, then namespace, then id.

    `version` is what the rows are as of: for a page that of the first page, so that a watch from it replays what
    changed during the walk. `changed_version` is a version since which this very answer is as it is. `next_after` is
    the place to go
    on from, None at the end. `staleness` is how old it may be in seconds, None for as fresh as was asked. With
    `unchanged` the caller has it already, and the rows were not made fresh.
    """

    cached: CachedQuery
    records: Sequence[Record]
    version: int
    timeline: str
    changed_version: int
    staleness: float | None
    next_after: SortKey | None = None
    unchanged: bool = False

    @property
    def rows(self) -> bytes:
        """The rows as JSON, without the brackets around them."""
        if self.records is self.cached.records:
            return self.cached.rows_json()
        return b",".join([render_row(self.cached, record) for record in self.records])


@dataclass(frozen=True, slots=True)
class CapabilityMatch:
    """One capability of one agent; `position` is its place in the agent's list."""

    record: Record
    capability: Capability
    position: int
    score: float


@dataclass(frozen=True, slots=True)
class CapabilityList:
    """Capabilities sorted by score where there is one, then the agent's namespace and id, then as it has them."""

    matches: list[CapabilityMatch]
    ranked: bool
    version: int
    staleness: float | None


@dataclass(frozen=True, slots=True)
class AgentSnapshot:
    """One agent with its exact last heartbeat, and the Redis server's time then, in milliseconds."""

    record: Record
    server_time_ms: int
    staleness: float | None


class Discovery:
    """Answers reads from this replica's memory."""

    def __init__(
        self, reflector: Reflector, agents: Agents, render: RenderRow = plain_row, prepare: PrepareRow | None = None
    ) -> None:
        self._reflector = reflector
        self._agents = agents
        self._query_cache = QueryCache(render)
        self._prepare = prepare
        self._heartbeats = HeartbeatRefresher(agents)

    async def agents(
        self,
        query: AgentQuery,
        freshness: Freshness = LATEST,
        page: Page | None = None,
        client_version: ClientVersion | None = None,
    ) -> AgentList:
        """Return the agents that match, or one page of them.

        `client_version` is what the caller has already. Raises VersionTooOld for a page whose first
        page's version is no longer in the log, and for an exact version at which the answer was another.
        """
        view, behind = await self.view(freshness)
        if (
            page is not None
            and page.version is not None
            and not await self._reflector.watch_history.extend_to(page.version)
        ):
            raise VersionTooOld(page.version, view.version)
        answer = self._cached_query(query, view)
        if freshness.exact and freshness.version is not None and not self._unchanged_since(answer, freshness.version):
            raise VersionTooOld(freshness.version, view.version)
        if (
            client_version is not None
            and view.timeline.startswith(client_version.timeline_prefix)
            and self._unchanged_since(answer, client_version.version)
        ):
            return AgentList(answer, (), view.version, view.timeline, answer.changed_version, behind, unchanged=True)
        if self._prepare is not None and not answer.has_current_json:
            for record in self._page_rows(answer, page)[0]:
                if len(record.agent.spec) > LARGE_SPEC_BYTES:
                    await self._prepare(view, record)
            view = self._reflector.view or view
            answer = self._cached_query(query, view)
        if behind is None:
            view, answer = await self._refresh_heartbeats(query, view, answer, page)
        records, more = self._page_rows(answer, page)
        version = view.version if page is None or page.version is None else page.version
        if freshness.exact and freshness.version is not None:
            if not self._unchanged_since(answer, freshness.version):
                raise VersionTooOld(freshness.version, view.version)
            version = freshness.version
        return AgentList(answer, records, version, view.timeline, answer.changed_version, behind, more)

    async def agent(self, agent_id: str, freshness: Freshness = LATEST) -> AgentSnapshot:
        """Return one agent with its exact last heartbeat. Raises UnknownAgent."""
        if freshness.version == 0:
            view, behind = self._current_view()
            return AgentSnapshot(require_agent(view, agent_id), 0, behind)
        asked = self._agents.last_heartbeats((agent_id,))
        try:
            view, behind = await self.view(freshness)
            record = require_agent(view, agent_id)
            heard = await asked
        finally:
            asked.cancel()
        record.update_heartbeat(heard.times[0], time.monotonic())
        return AgentSnapshot(record, heard.now, behind)

    async def capabilities(self, query: CapabilityQuery, freshness: Freshness = LATEST) -> CapabilityList:
        """Return every capability that matches, once for each agent that has it.

        Raises VersionTooOld for an exact version that is not the one held.
        """
        search = CapabilityQueryMatcher(query)
        view, behind = await self.view(freshness)
        if freshness.exact and freshness.version is not None and view.version != freshness.version:
            raise VersionTooOld(freshness.version, view.version)
        found = [
            CapabilityMatch(record, capability, position, score)
            for record in search.candidates(view)
            if search.matches_agent(record.agent)
            for position, capability in enumerate(record.agent.indexed.capabilities)
            if (score := search.score(capability)) is not None
        ]
        found.sort(key=lambda one: (-one.score, *one.record.sort_key, one.position))
        return CapabilityList(found, search.is_ranked, view.version, behind)

    def _cached_query(self, query: AgentQuery, view: View) -> CachedQuery:
        return self._query_cache.get(query, view, self._reflector.watch_history.buffer)

    async def _refresh_heartbeats(
        self, query: AgentQuery, view: View, cached: CachedQuery, page: Page | None
    ) -> tuple[View, CachedQuery]:
        """Make the last heartbeats new enough, and return what is held by then."""
        if not _has_recent_heartbeats(cached):
            await self._heartbeats.refresh(view, self._page_rows(cached, page)[0])
            view = self._reflector.view or view
            cached = self._cached_query(query, view)
            # Another read of the same list may have been here meanwhile.
            if page is None and not _has_recent_heartbeats(cached):
                cached.cached_json = None
                cached.heartbeats_read_at = self._heartbeats.read_at(view, cached.records)
        return view, cached

    def _unchanged_since(self, cached: CachedQuery, version: int) -> bool:
        """Tell whether the answer is known to be the one it was at a version."""
        return version <= cached.checked_version and cached.unchanged_since(
            version, self._reflector.watch_history.buffer
        )

    def _page_rows(self, cached: CachedQuery, page: Page | None) -> tuple[list[Record], SortKey | None]:
        """Return the rows of a page, and the place to go on from when there are more."""
        if page is None:
            return cached.records, None
        begin = 0 if page.after is None else cached.index_after(page.after)
        records = cached.records[begin : begin + page.limit]
        more = begin + page.limit < len(cached.records)
        return records, cached.sort_key(records[-1]) if more and records else None

    async def view(self, freshness: Freshness) -> tuple[View, float | None]:
        """Return a view as fresh as asked, and how old it may be in seconds; None for as fresh as asked."""
        version, feed = freshness.version, self._reflector
        if version == 0:
            return self._current_view()
        held = feed.view
        if held is not None and version is not None and held.version >= version:
            return held, None if feed.following else feed.staleness
        view = await feed.wait_fresh()
        if version is not None and view.version < version:
            raise StoreUnavailable(
                f"The store is at resource version {view.version}, not yet at {version}", reason="version_ahead"
            )
        return view, None

    def _current_view(self) -> tuple[View, float | None]:
        feed = self._reflector
        if feed.view is None:
            raise NotReady("This replica has not filled its cache yet; try again shortly")
        return feed.view, feed.staleness


def _has_recent_heartbeats(cached: CachedQuery) -> bool:
    """Tell whether the joined list may be shown as it is."""
    return cached.cached_json is not None and cached.heartbeats_read_at >= time.monotonic() - MAX_HEARTBEAT_AGE_S


def require_agent(view: View, agent_id: str) -> Record:
    """Return one agent of a view. Raises UnknownAgent."""
    record = view.records.get(agent_id)
    if record is None:
        raise UnknownAgent(agent_id)
    return record
