"""A cache of query results: the sorted matches of a query and their JSON, updated when a change affects them."""

import asyncio
from bisect import bisect_right, insort
from dataclasses import dataclass, field
from typing import Final

from registry.cache.change_buffer import ChangeBuffer
from registry.cache.view import Record, View
from registry.concurrency.cooperative_iteration import cooperative
from registry.concurrency.lru import WeightedLru
from registry.model.query import AgentQuery
from registry.service.discovery.list_rows import RowFormat
from registry.service.discovery.query_match import Matcher, RankedMatch

# The cache is bounded by the size of the queries with their references to agents, and by the size of the JSON. The
# newest JSON is cached even above that size: otherwise each request for a very large list would render it again.
_MAX_QUERY_BYTES: Final = 12 * 1024 * 1024
_MAX_JSON_BYTES: Final = 64 * 1024 * 1024
_BYTES_PER_REFERENCE: Final = 8
_BYTES_PER_SCORE: Final = 120
# A ranked query compares at most this many names before it lets other tasks run.
_MAX_COMPARED_NAMES: Final = 2_000

SortKey = tuple[float, str, str]


@dataclass(slots=True, eq=False)
class CachedQuery:
    """A cached query result: the sorted matches of one query at the version `checked_version`.

    The matches are unchanged since `changed_version`: the version of the last change that affected them, or the version
    at which they were first selected. It does not cover resolutions, which depend on other agents. `cached_json`
    contains the rows without the enclosing brackets, rendered at `rendered_version`; the last heartbeats in it were
    read at `heartbeats_read_at`, on the monotonic clock. With `depends_on_resolution` any change may change a row.
    `scores` has the score of each match by agent id if the query ranks.
    """

    matcher: Matcher
    view: View
    records: list[Record]
    checked_version: int
    changed_version: int
    json_lru: "WeightedLru[int, CachedQuery]"
    rows: RowFormat
    scores: dict[str, float] = field(default_factory=dict)
    cached_json: bytes | None = None
    heartbeats_read_at: float = 0.0
    rendered_version: int = 0
    depends_on_resolution: bool = False

    def sort_key(self, record: Record) -> SortKey:
        """Return the sort key of a matching agent: its score if the query ranks, then its namespace and id."""
        return (-self.scores.get(record.agent.id, 0.0), *record.sort_key)

    @property
    def approximate_bytes(self) -> int:
        """The approximate memory of the result without its JSON, in bytes."""
        references = _BYTES_PER_REFERENCE * len(self.records) + _BYTES_PER_SCORE * len(self.scores)
        return self.matcher.query.approximate_bytes + references

    def index_after(self, key: SortKey) -> int:
        """Return the index of the first matching agent after a sort key."""
        return bisect_right(self.records, key, key=self.sort_key)

    def unchanged_since(self, version: int, buffer: ChangeBuffer) -> bool:
        """Return whether the matches have not changed since `version`; if so, lower `changed_version` to `version`.

        They may have been selected after `version`, for example if another replica sent the client this version.
        """
        if version < self.changed_version and buffer.contains(version):
            for entry in reversed(buffer.since(version)):
                if entry.version <= self.changed_version and self.matcher.affects(entry):
                    return False
            self.changed_version = version
        return self.changed_version <= version

    @property
    def has_current_json(self) -> bool:
        """Whether the cached JSON of the matches is up to date with the version of the view."""
        is_outdated = self.depends_on_resolution and self.rendered_version != self.view.version
        return self.cached_json is not None and not is_outdated

    def rows_json(self) -> bytes:
        """Return all matches as JSON rows, from the cache unless they changed or newer heartbeats were read."""
        if self.cached_json is not None and self.has_current_json:
            return self.cached_json
        self.cached_json = b",".join([render_row(self, record) for record in self.records])
        self.depends_on_resolution = any(map(self.rows.depends_on_resolution, self.records))
        self.rendered_version = self.view.version
        self.json_lru.put(id(self), self, len(self.cached_json))
        return self.cached_json


def render_row(cached: CachedQuery, record: Record) -> bytes:
    """Return one matching agent as a JSON row, with its score if the query ranks."""
    row = cached.rows.render(cached.view, record)
    if not cached.matcher.is_ranked:
        return row
    return b'%s,"score":%.1f}' % (row[:-1], cached.scores.get(record.agent.id, 0.0))


class QueryCache:
    """A cache of the results of the most recent agent queries."""

    def __init__(self, rows: RowFormat | None = None) -> None:
        self._rows = rows or RowFormat()
        self._entries: WeightedLru[AgentQuery, CachedQuery] = WeightedLru(
            _MAX_QUERY_BYTES, on_evict=lambda _query, cached: self._json_lru.remove(id(cached)), store_oversized=True
        )
        self._selecting: dict[AgentQuery, asyncio.Lock] = {}
        self._json_lru: WeightedLru[int, CachedQuery] = WeightedLru(
            _MAX_JSON_BYTES, on_evict=_drop_json, store_oversized=True
        )

    def get(self, query: AgentQuery, view: View, buffer: ChangeBuffer) -> CachedQuery:
        """Return the result of a query at the version of the view, from the cache if possible."""
        cached = self._entries.get(query)
        if cached is None or cached.view is not view or not buffer.contains(cached.checked_version):
            matcher = Matcher(query) if cached is None else cached.matcher
            records = matcher.select(view)
            scores = {each.agent.id: matcher.score(each.agent) for each in records} if matcher.is_ranked else {}
            cached = self._store(matcher, view, view.version, records, scores)
            records.sort(key=cached.sort_key)
        elif cached.checked_version != view.version:
            size = len(cached.records)
            _apply_changes(cached, view, buffer)
            if len(cached.records) != size:
                self._entries.put(query, cached, cached.approximate_bytes)
        return cached

    async def prepare(self, query: AgentQuery, view: View, buffer: ChangeBuffer) -> None:
        """Select the matches of a ranked query while other tasks run, so that `get` compares only few names after it.

        Concurrent calls for one query select once.
        """
        lock = self._selecting.setdefault(query, asyncio.Lock())
        try:
            async with lock:
                cached = self._entries.get(query)
                if cached is not None and cached.view is view and _count_names(cached, buffer) <= _MAX_COMPARED_NAMES:
                    return
                matcher, version, matches = Matcher(query), view.version, list[RankedMatch]()
                async for _ in cooperative(matcher.select_ranked(view, matches)):
                    pass
                # Each of these steps takes milliseconds if all agents match.
                await asyncio.sleep(0)
                scores = {agent_id: -score for score, _, agent_id, _ in matches}
                self._store(matcher, view, version, [match[-1] for match in matches], scores)
                await asyncio.sleep(0)
        finally:
            if not lock.locked():
                self._selecting.pop(query, None)

    def _store(
        self, matcher: Matcher, view: View, version: int, records: list[Record], scores: dict[str, float]
    ) -> CachedQuery:
        """Cache the matches of a query at a version."""
        before = self._entries.get(matcher.query)
        if before is not None:
            self._json_lru.remove(id(before))
        cached = CachedQuery(matcher, view, records, version, version, self._json_lru, self._rows, scores)
        self._entries.put(matcher.query, cached, cached.approximate_bytes)
        return cached


def _count_names(cached: CachedQuery, buffer: ChangeBuffer) -> int:
    """Return how many names a ranked query must compare to take in the changes since its last check; an upper bound."""
    if not buffer.contains(cached.checked_version):
        return _MAX_COMPARED_NAMES + 1
    entries, requested = buffer.since(cached.checked_version), len(cached.matcher.query.capabilities)
    if len(entries) * requested > _MAX_COMPARED_NAMES:
        return len(entries) * requested
    return requested * sum(
        len(agent.indexed.capabilities) for entry in entries for agent in entry.states if agent is not None
    )


def _drop_json(_key: int, cached: CachedQuery) -> None:
    cached.cached_json = None


def _apply_changes(cached: CachedQuery, view: View, buffer: ChangeBuffer) -> None:
    """Update a cached query result to the version of the view with the changes since its last check."""
    matcher = cached.matcher
    affected: set[str] = set()
    for entry in buffer.since(cached.checked_version):
        if matcher.affects(entry):
            cached.changed_version = entry.version
            if entry.change.agent is not None:
                affected.add(entry.change.agent.id)
    cached.checked_version = view.version
    if not affected:
        return
    cached.cached_json = None
    cached.records = [record for record in cached.records if record.agent.id not in affected]
    for agent_id in affected:
        cached.scores.pop(agent_id, None)
        record = view.records.get(agent_id)
        if record is not None and matcher.matches(record.agent):
            if matcher.is_ranked:
                cached.scores[agent_id] = matcher.score(record.agent)
            insort(cached.records, record, key=cached.sort_key)
