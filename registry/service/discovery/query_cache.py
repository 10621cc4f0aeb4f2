"""A cache of query results: the sorted matches of a query and their JSON, updated when a change affects them."""

from bisect import bisect_right, insort
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from registry.cache.change_buffer import ChangeBuffer
from registry.cache.view import Record, View
from registry.concurrency.lru import WeightedLru
from registry.model.query import AgentQuery
from registry.service.discovery.list_rows import RowFormat
from registry.service.discovery.query_match import Matcher

# The cache is bounded by the number of queries and, for their JSON, by its size. The newest JSON is cached even above
# that size: otherwise each request for a very large list would render it again.
_MAX_QUERIES: Final = 16_384
_MAX_JSON_BYTES: Final = 64 * 1024 * 1024

SortKey = tuple[float, str, str]


@dataclass(slots=True, eq=False)
class CachedQuery:
    """A cached query result: the sorted matches of one query at the version `checked_version`.

    The matches are unchanged since `changed_version`: the version of the last change that affected them, or the version
    at which they were first selected. It does not cover resolutions, which depend on other agents. `cached_json`
    contains the rows without the enclosing brackets, rendered at `rendered_version`; the last heartbeats in it were
    read at `heartbeats_read_at`, on the monotonic clock. With `depends_on_resolution` any change may change a row.
    """

    matcher: Matcher
    view: View
    records: list[Record]
    checked_version: int
    changed_version: int
    json_lru: "WeightedLru[int, CachedQuery]"
    rows: RowFormat
    cached_json: bytes | None = None
    heartbeats_read_at: float = 0.0
    rendered_version: int = 0
    depends_on_resolution: bool = False

    def sort_key(self, record: Record) -> SortKey:
        """Return the sort key of a matching agent: its score if the query ranks, then its namespace and id."""
        score = -self.matcher.score(record.agent) if self.matcher.is_ranked else 0.0
        return (score, *record.sort_key)

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
    return b'%s,"score":%.1f}' % (row[:-1], cached.matcher.score(record.agent))


class QueryCache:
    """A cache of the results of the most recent agent queries."""

    def __init__(self, rows: RowFormat | None = None) -> None:
        self._rows = rows or RowFormat()
        self._entries: OrderedDict[AgentQuery, CachedQuery] = OrderedDict()
        self._json_lru: WeightedLru[int, CachedQuery] = WeightedLru(
            _MAX_JSON_BYTES, on_evict=_drop_json, store_oversized=True
        )

    def get(self, query: AgentQuery, view: View, buffer: ChangeBuffer) -> CachedQuery:
        """Return the result of a query at the version of the view, from the cache if possible."""
        cached = self._entries.get(query)
        if cached is None or cached.view is not view or not buffer.contains(cached.checked_version):
            matcher = Matcher(query) if cached is None else cached.matcher
            if cached is not None:
                self._json_lru.remove(id(cached))
            records = matcher.select(view)
            now = view.version
            cached = self._entries[query] = CachedQuery(matcher, view, records, now, now, self._json_lru, self._rows)
            cached.records.sort(key=cached.sort_key)
        elif cached.checked_version != view.version:
            _apply_changes(cached, view, buffer)
        self._entries.move_to_end(query)
        if len(self._entries) > _MAX_QUERIES:
            self._json_lru.remove(id(self._entries.popitem(last=False)[1]))
        return cached


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
        record = view.records.get(agent_id)
        if record is not None and matcher.matches(record.agent):
            insort(cached.records, record, key=cached.sort_key)
