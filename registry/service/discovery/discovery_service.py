"""Discovery of agents and capabilities: answers a query with a sorted result at a known resource version."""

import time
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from registry.cache.reflector import Reflector
from registry.cache.view import Record, View
from registry.concurrency.cooperative_iteration import cooperative
from registry.errors import NotReady, StoreUnavailable, UnknownAgent, VersionTooOld
from registry.model.agent import Agent, Capability
from registry.model.query import AgentQuery, CapabilityQuery
from registry.service.discovery.last_heartbeats import MAX_HEARTBEAT_AGE_S, HeartbeatRefresher
from registry.service.discovery.list_rows import LARGE_SPEC_BYTES, RowFormat
from registry.service.discovery.overdue_agents import OverdueAgents
from registry.service.discovery.query_cache import CachedQuery, QueryCache, SortKey, render_row
from registry.service.discovery.query_match import CapabilityQueryMatcher
from registry.store.agents import Agents


@dataclass(frozen=True, slots=True)
class Freshness:
    """How fresh the result of a read must be.

    With `version` None it includes every write before the read arrived. 0 accepts the cache of this replica, however
    old. N requires at least version N, or with `exact` a result that is unchanged since N.
    """

    version: int | None = None
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """The requested part of an agent list: at most `limit` rows after the sort key `after`.

    `version` is the version of the first page, None if this is the first page.
    """

    limit: int
    after: SortKey | None = None
    version: int | None = None


@dataclass(frozen=True, slots=True)
class ClientVersion:
    """The version of an agent list that an HTTP client already has, with the beginning of its timeline."""

    timeline_prefix: str
    version: int


LATEST = Freshness()


@dataclass(frozen=True, slots=True)
class AgentList:
    """The result of an agent query: agents sorted by score if the query ranks, then by namespace and id.

    `version` is the version of the rows; for a page it is the version of the first page, so that a watch from it
    delivers all later changes. `changed_version` is a version since which the result is unchanged. `next_after` is the
    sort key after which the next page begins, None on the last page. `staleness` is the maximum age of the result in
    seconds, None if it is as fresh as requested. With `unchanged` the caller has the result; `records` is empty.
    `rendered` are the rows if they were rendered in advance.
    """

    cached: CachedQuery
    records: Sequence[Record]
    version: int
    timeline: str
    changed_version: int
    staleness: float | None
    next_after: SortKey | None = None
    unchanged: bool = False
    rendered: Sequence[bytes] | None = None

    @property
    def rows(self) -> bytes:
        """The agents of the list as JSON rows, without the enclosing brackets."""
        if self.rendered is not None:
            return b",".join(self.rendered)
        if self.records is self.cached.records:
            return self.cached.rows_json()
        return b",".join([render_row(self.cached, record) for record in self.records])


class CapabilityMatch(NamedTuple):
    """A capability that matches a search, with its agent; `position` is its index in the agent's list.

    Matches are compared by their first four fields: the best one is the smallest.
    """

    negative_score: float
    namespace: str
    agent_id: str
    position: int
    agent: Agent
    capability: Capability

    @property
    def score(self) -> float:
        """How well the capability fits, 0 to 100."""
        return -self.negative_score


@dataclass(frozen=True, slots=True)
class CapabilityList:
    """The result of a capability search: sorted by score if the query ranks, then by agent and position."""

    matches: list[CapabilityMatch]
    ranked: bool
    version: int
    staleness: float | None


@dataclass(frozen=True, slots=True)
class AgentSnapshot:
    """One agent with its exact last heartbeat, and the time of the read in milliseconds of the Redis server."""

    record: Record
    server_time_ms: int
    staleness: float | None


class Discovery:
    """Runs queries for agents and capabilities on the cache of this replica."""

    def __init__(
        self, reflector: Reflector, agents: Agents, rows: RowFormat | None = None, overdue: OverdueAgents | None = None
    ) -> None:
        self._reflector = reflector
        self._agents = agents
        self._rows = rows or RowFormat()
        self._query_cache = QueryCache(self._rows)
        self._heartbeats = HeartbeatRefresher(agents)
        self._overdue = OverdueAgents(agents, lambda: None) if overdue is None else overdue

    async def agents(
        self,
        query: AgentQuery,
        freshness: Freshness = LATEST,
        page: Page | None = None,
        client_version: ClientVersion | None = None,
    ) -> AgentList:
        """Return the agents that match a query, or one page of the list.

        `client_version` is the result that the caller already has. Raises VersionTooOld for a page if the version of
        the first page is no longer in the log, and for an exact version if the result has changed since.
        """
        view, staleness = await self.view(freshness)
        first_version = None if page is None else page.version
        if first_version is not None and not await self._reflector.watch_history.extend_to(first_version):
            raise VersionTooOld(first_version, view.version)
        if query.fuzzy and query.capabilities:
            await self._query_cache.prepare(query, view, self._reflector.watch_history.buffer)
        cached = self._query_cache.get(query, view, self._reflector.watch_history.buffer)
        if freshness.exact and freshness.version is not None and not self._unchanged_since(cached, freshness.version):
            raise VersionTooOld(freshness.version, view.version)
        if (
            client_version is not None
            and view.timeline.startswith(client_version.timeline_prefix)
            and self._unchanged_since(cached, client_version.version)
        ):
            return AgentList(cached, (), view.version, view.timeline, cached.changed_version, staleness, unchanged=True)
        if not cached.has_current_json:
            cached = await self._prepare_rows(cached, page)
        if staleness is None:
            cached = await self._refresh_heartbeats(cached, page)
        rows = None
        if query.fuzzy and query.capabilities:
            cached, rows = await self._render_ranked(cached, page)
        view = cached.view
        records, next_after = self._page_rows(cached, page)
        version = view.version if first_version is None else first_version
        if freshness.exact and freshness.version is not None:
            if not self._unchanged_since(cached, freshness.version):
                raise VersionTooOld(freshness.version, view.version)
            version = freshness.version
        changed_version = cached.changed_version
        return AgentList(cached, records, version, view.timeline, changed_version, staleness, next_after, rendered=rows)

    async def agent(self, agent_id: str, freshness: Freshness = LATEST) -> AgentSnapshot:
        """Return one agent with its exact last heartbeat. Raises UnknownAgent."""
        if freshness.version == 0:
            view, staleness = await self.view(freshness)
            return AgentSnapshot(require_agent(view, agent_id), 0, staleness)
        heartbeats_read = self._agents.last_heartbeats((agent_id,))
        try:
            view, staleness = await self.view(freshness)
            record = require_agent(view, agent_id)
            heartbeats = await heartbeats_read
        finally:
            heartbeats_read.cancel()
        record.update_heartbeat(heartbeats.times[0], time.monotonic())
        await self._overdue.mark((record,))
        return AgentSnapshot(record, heartbeats.now, staleness)

    async def capabilities(self, query: CapabilityQuery, freshness: Freshness = LATEST) -> CapabilityList:
        """Return the capabilities that match a query, one row for each agent that has the capability.

        Raises VersionTooOld for an exact version other than the version of the cache.
        """
        matcher = CapabilityQueryMatcher(query)
        view, staleness = await self.view(freshness)
        if freshness.exact and freshness.version is not None and view.version != freshness.version:
            raise VersionTooOld(freshness.version, view.version)
        version = view.version
        # The agent of a record may change between two steps.
        agents = [record.agent for record in matcher.candidates(view)]
        candidates = (
            (agent, position, capability)
            for agent in agents
            if matcher.matches_agent(agent)
            for position, capability in enumerate(agent.indexed.capabilities)
        )
        matches: list[CapabilityMatch] = []
        async for agent, position, capability in cooperative(candidates):
            score = matcher.score(capability)
            if score is not None:
                # Sorting all matches at once would block the event loop.
                insort(matches, CapabilityMatch(-score, agent.indexed.namespace, agent.id, position, agent, capability))
        return CapabilityList(matches, matcher.is_ranked, version, staleness)

    def _update(self, cached: CachedQuery) -> CachedQuery:
        """Return the cached query result, updated to the newest state of this replica's cache."""
        view = self._reflector.view or cached.view
        return self._query_cache.get(cached.matcher.query, view, self._reflector.watch_history.buffer)

    async def _prepare_rows(self, cached: CachedQuery, page: Page | None) -> CachedQuery:
        """Render the large rows of a list in advance, and return the query result updated to the newest cache state."""
        records = self._page_rows(cached, page)[0]
        large = [record for record in records if len(record.agent.spec) > LARGE_SPEC_BYTES]
        if not large:
            return cached
        async for record in cooperative(large):
            await self._rows.prepare(cached.view, record)
        return self._update(cached)

    async def _render_ranked(self, cached: CachedQuery, page: Page | None) -> tuple[CachedQuery, list[bytes]]:
        """Return the updated query result and its rows, rendered in short steps: a search may match all agents."""
        changed_version, agents, rows = cached.changed_version, list[Agent](), list[bytes]()
        async for record in cooperative(self._page_rows(cached, page)[0]):
            agents.append(record.agent)
            rows.append(render_row(cached, record))
        updated = self._update(cached)
        if updated is cached and cached.changed_version == changed_version:
            return cached, rows
        rendered = {agent.id: (agent, row) for agent, row in zip(agents, rows, strict=True)}
        rows = []
        for record in self._page_rows(updated, page)[0]:
            agent, row = rendered.get(record.agent.id, (None, b""))
            rows.append(row if agent is record.agent else render_row(updated, record))
        return updated, rows

    async def _refresh_heartbeats(self, cached: CachedQuery, page: Page | None) -> CachedQuery:
        """Read outdated last heartbeats of the listed agents again, and return the updated query result."""
        if not _has_recent_heartbeats(cached):
            records = self._page_rows(cached, page)[0]
            await self._heartbeats.refresh(cached.view, records)
            await self._overdue.mark(records)
            cached = self._update(cached)
            # Another read of the same list may have rendered it in the meantime.
            if page is None and not _has_recent_heartbeats(cached):
                cached.cached_json = None
                cached.heartbeats_read_at = self._heartbeats.read_at(cached.view, cached.records)
        return cached

    def _unchanged_since(self, cached: CachedQuery, version: int) -> bool:
        """Return whether a query result is known to be unchanged since a version."""
        buffer = self._reflector.watch_history.buffer
        return version <= cached.checked_version and cached.unchanged_since(version, buffer)

    def _page_rows(self, cached: CachedQuery, page: Page | None) -> tuple[list[Record], SortKey | None]:
        """Return the agents of a page and the sort key after which the next page begins, None on the last page."""
        if page is None:
            return cached.records, None
        begin = 0 if page.after is None else cached.index_after(page.after)
        records = cached.records[begin : begin + page.limit]
        more = begin + page.limit < len(cached.records)
        return records, cached.sort_key(records[-1]) if more and records else None

    async def view(self, freshness: Freshness) -> tuple[View, float | None]:
        """Return a view of the cache, and its maximum age in seconds, None if it is as fresh as requested."""
        version, reflector = freshness.version, self._reflector
        if version == 0:
            if reflector.view is None:
                raise NotReady("This replica has not filled its cache yet; try again shortly")
            return reflector.view, reflector.staleness
        cached_view = reflector.view
        if cached_view is not None and version is not None and cached_view.version >= version:
            return cached_view, None if reflector.following else reflector.staleness
        view = await reflector.wait_fresh()
        if version is not None and view.version < version:
            problem = f"Redis is at resource version {view.version}, behind the requested {version}"
            raise StoreUnavailable(problem, reason="version_ahead")
        return view, None


def _has_recent_heartbeats(cached: CachedQuery) -> bool:
    """Return whether the last heartbeats in the cached JSON of a list are recent enough to be sent."""
    return cached.cached_json is not None and cached.heartbeats_read_at >= time.monotonic() - MAX_HEARTBEAT_AGE_S


def require_agent(view: View, agent_id: str) -> Record:
    """Return one agent of a cache view by its id. Raises UnknownAgent."""
    record = view.records.get(agent_id)
    if record is None:
        raise UnknownAgent(agent_id)
    return record
