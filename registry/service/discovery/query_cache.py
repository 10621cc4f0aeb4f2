"""Answers to queries, kept: the sorted matches of a query and their joined bytes, until a change concerns them."""

from bisect import bisect_right, insort
from collections import OrderedDict
from dataclasses import dataclass

from registry.cache.change_buffer import ChangeBuffer
from registry.cache.view import Record, View
from registry.compat.mcpmesh.list_rows import RenderRow, plain_row
from registry.model.query import AgentQuery
from registry.service.discovery.matching import Matcher

# How many answers are kept, and how many bytes of joined lists, whichever is reached first.
_MAX_QUERIES = 16_384
_MAX_JSON_BYTES = 64 * 1024 * 1024

SortKey = tuple[float, str, str]


@dataclass(slots=True, eq=False)
class CachedQuery:
    """The matches of one query, sorted, as of the version `checked_version`.

    `changed_version` is a version since which this very answer is as it is: that of the last change that concerned it,
    or the
    one at which it was first made; of what agents in flat form are shown with it says nothing. `cached_json` is the
    joined
    JSON without its brackets, joined when it was last asked for, at version `rendered_version`; its last heartbeats are
    known
    as of `heartbeats_read_at`, on the monotonic clock. It `depends_on_resolution` with any change where an agent in
    flat form is in it.
    """

    matcher: Matcher
    view: View
    records: list[Record]
    checked_version: int
    changed_version: int
    json_lru: "JsonLru"
    render: RenderRow = plain_row
    cached_json: bytes | None = None
    heartbeats_read_at: float = 0.0
    rendered_version: int = 0
    depends_on_resolution: bool = False

    def sort_key(self, record: Record) -> SortKey:
        """Return what the answer is sorted by: the score where there is one, then namespace, then id."""
        score = -self.matcher.score(record.agent) if self.matcher.is_ranked else 0.0
        return (score, *record.sort_key)

    def index_after(self, key: SortKey) -> int:
        """Return the index of the first record beyond a place."""
        return bisect_right(self.records, key, key=self.sort_key)

    def unchanged_since(self, version: int, buffer: ChangeBuffer) -> bool:
        """Return whether the result is the same as at `version`; if so, `changed_version` moves back to it.

        An answer that was made later than that, as on a replica that had not been asked before, may well be the same.
        """
        if version < self.changed_version and buffer.contains(version):
            for entry in reversed(buffer.since(version)):
                if entry.version <= self.changed_version and self.matcher.affects(entry):
                    return False
            self.changed_version = version
        return self.changed_version <= version

    @property
    def has_current_json(self) -> bool:
        """Whether all is written down as of the view's version."""
        return self.cached_json is not None and not (
            self.depends_on_resolution and self.rendered_version != self.view.version
        )

    def rows_json(self) -> bytes:
        """Return all records as JSON, joined anew where a change or newer heartbeats came in between.

        What an agent in flat form is shown with may be another by any change.
        """
        if self.cached_json is None or not self.has_current_json:
            self.cached_json = b",".join([render_row(self, record) for record in self.records])
            self.depends_on_resolution = any(record.agent.indexed.format is not None for record in self.records)
            self.rendered_version = self.view.version
            self.json_lru.put(self, len(self.cached_json))
        return self.cached_json


def render_row(cached: CachedQuery, record: Record) -> bytes:
    """Return one record as the answer shows it: with its score where the answer is ranked."""
    row = cached.render(cached.view, record)
    if not cached.matcher.is_ranked:
        return row
    return b'%s,"score":%.1f}' % (row[:-1], cached.matcher.score(record.agent))


class JsonLru:
    """Bounds what all joined lists weigh together: the one joined longest ago is let go first."""

    def __init__(self) -> None:
        self._entries: OrderedDict[int, tuple[CachedQuery, int]] = OrderedDict()
        self._weight = 0

    def put(self, cached: CachedQuery, size: int) -> None:
        """Take note of a list that was joined just now."""
        self._weight += size - self._entries.pop(id(cached), (cached, 0))[1]
        self._entries[id(cached)] = (cached, size)
        while self._weight > _MAX_JSON_BYTES and len(self._entries) > 1:
            _, (oldest, freed) = self._entries.popitem(last=False)
            self._weight -= freed
            oldest.cached_json = None

    def remove(self, cached: CachedQuery) -> None:
        """Let go of an answer that nobody can ask for any more, and of the agents it holds."""
        _, freed = self._entries.pop(id(cached), (cached, 0))
        self._weight -= freed


class QueryCache:
    """Keeps the answers asked for lately. What it returns is always of the view's version."""

    def __init__(self, render: RenderRow = plain_row) -> None:
        self._render = render
        self._entries: OrderedDict[AgentQuery, CachedQuery] = OrderedDict()
        self._json_lru = JsonLru()

    def get(self, query: AgentQuery, view: View, buffer: ChangeBuffer) -> CachedQuery:
        """Return the answer to a query, made anew only where changes since it was last asked for concern it."""
        answer = self._entries.get(query)
        if answer is None or answer.view is not view or not buffer.contains(answer.checked_version):
            matcher = Matcher(query) if answer is None else answer.matcher
            if answer is not None:
                self._json_lru.remove(answer)
            records = matcher.select(view)
            now = view.version
            answer = self._entries[query] = CachedQuery(matcher, view, records, now, now, self._json_lru, self._render)
            answer.records.sort(key=answer.sort_key)
        elif answer.checked_version != view.version:
            _apply_changes(answer, view, buffer)
        self._entries.move_to_end(query)
        if len(self._entries) > _MAX_QUERIES:
            self._json_lru.remove(self._entries.popitem(last=False)[1])
        return answer


def _apply_changes(cached: CachedQuery, view: View, buffer: ChangeBuffer) -> None:
    """Bring an answer to the view's version by the changes since it was examined."""
    matcher = cached.matcher
    touched: set[str] = set()
    for entry in buffer.since(cached.checked_version):
        if matcher.affects(entry):
            cached.changed_version = entry.version
            if entry.change.agent is not None:
                touched.add(entry.change.agent.id)
    cached.checked_version = view.version
    if not touched:
        return
    cached.cached_json = None
    cached.records = [record for record in cached.records if record.agent.id not in touched]
    for agent_id in touched:
        record = view.records.get(agent_id)
        if record is not None and matcher.matches(record.agent):
            insort(cached.records, record, key=cached.sort_key)
