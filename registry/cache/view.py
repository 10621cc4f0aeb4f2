"""The view: all agents of the mesh at one version, with indexes. No method awaits, so no lock is needed."""

import math
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from registry.model.agent import STATUSES, Agent, IndexedSpec, LookupKey, Status, ToolTag
from registry.model.change import Change, LogPosition
from registry.model.dependency_graph import capability_of, with_any_namespace
from registry.model.encoding.agent_json import encode_agent_head, encode_agent_tail
from registry.model.resolution import CachedResolution

Key = TypeVar("Key", bound=Hashable)
Index = dict[Key, dict[str, "Record"]]
# For each node the nodes at the other end of its edges, with the number of agents that have the edge.
EdgeCounts = dict[str, dict[str, int]]

# The last change is stored for at most this many keys that no agent has any more.
_MAX_REMOVED_KEYS = 10_000


class Record(msgspec.Struct, eq=False, gc=False):
    """One agent and its JSON, which is cached until the agent changes.

    `heartbeat` is the latest known heartbeat in Redis-server milliseconds, `heartbeat_read_at` when it was read, in
    seconds of this replica's monotonic clock. `overdue_since` is set while self-preservation keeps an overdue agent,
    and reset by its next heartbeat or change. `resolution` is written by the dependency resolver alone. The garbage
    collector, which would walk all agents, does not track records: none may be part of a reference cycle.
    """

    agent: Agent
    heartbeat: int | None
    heartbeat_read_at: float
    resolution: CachedResolution | None = None
    overdue_since: int | None = None
    _json_head: bytes | None = None
    _json: bytes | None = None

    def replace_agent(self, agent: Agent) -> None:
        """Replace the agent of this record by its state after a change."""
        self.agent = agent
        self.overdue_since = None
        self._json_head = self._json = None

    def update_heartbeat(self, heartbeat: int | None, read_at: float) -> None:
        """Set the last heartbeat, unless the record already has a later one."""
        self.heartbeat_read_at = read_at
        if heartbeat is not None and (self.heartbeat is None or heartbeat > self.heartbeat):
            self.heartbeat = heartbeat
            self.overdue_since = None
            self._json = None

    def set_overdue_since(self, overdue_since: int | None) -> None:
        """Set since when the agent is overdue, in Redis-server milliseconds, or None."""
        if overdue_since != self.overdue_since:
            self.overdue_since = overdue_since
            self._json = None

    def clamp_heartbeat(self, now: int, replacement: int) -> None:
        """Replace a heartbeat later than `now`, so that the next heartbeat is not ignored as older."""
        if self.heartbeat is not None and self.heartbeat > now:
            self.heartbeat = replacement
            self._json = None

    @property
    def sort_key(self) -> tuple[str, str]:
        """The sort key of the agent in lists: namespace, then id."""
        return self.agent.indexed.namespace, self.agent.id

    @property
    def json(self) -> bytes:
        """The JSON of the agent as responses contain it."""
        if self._json is None:
            if self._json_head is None:
                self._json_head = encode_agent_head(self.agent)
            self._json = self._json_head + encode_agent_tail(self.heartbeat, self.overdue_since)
        return self._json


class View:
    """All agents of the mesh at `version` of `timeline`, with indexes.

    `required_edges` and `dependent_edges` have the nodes that each node of the graph of required dependencies leads to,
    and those that lead to it.
    """

    def __init__(self, position: LogPosition) -> None:
        self.version = position.version
        self.timeline = position.timeline
        self.records: dict[str, Record] = {}
        self.by_capability: Index[str] = {}
        self.by_dependency: Index[str] = {}
        self.by_namespace: Index[str] = {}
        self.by_label: Index[tuple[str, str]] = {}
        self.by_llm_tool_tag: Index[ToolTag] = {}
        self.required_edges: EdgeCounts = {}
        self.dependent_edges: EdgeCounts = {}
        self._dependent_names: EdgeCounts = {}
        self.edges_revision = 0
        self.by_status: Mapping[Status, dict[str, Record]] = {status: {} for status in STATUSES}
        self.draining: dict[str, Record] = {}
        self.capability_count = 0
        self._last_changes: dict[LookupKey, int] = {}
        self._removed_keys: OrderedDict[LookupKey, None] = OrderedDict()
        self._removed_before_version = position.version

    def smallest_timeout(self) -> float:
        """Return the smallest timeout of an agent that is not expired, in ms; infinity without such agents."""
        timeouts = (record.agent.timeout for record in self.records.values() if record.agent.status != "expired")
        return min(timeouts, default=math.inf)

    def last_change(self, key: LookupKey) -> int:
        """Return a version after which no agent that this lookup key finds has changed."""
        return self._last_changes.get(key, self._removed_before_version)

    def put(self, agent: Agent, heartbeat: int | None, read_at: float) -> None:
        """Add or replace an agent, unless the view already has a newer version of this agent."""
        record = self.records.get(agent.id)
        if record is None:
            record = self.records[agent.id] = Record(agent, heartbeat, read_at)
            self._index_agent(record)
        elif record.agent.version >= agent.version:
            return
        else:
            before = record.agent
            del self.by_status[before.status][agent.id]
            if before.spec == agent.spec:
                record.replace_agent(agent)
            else:
                self._unindex_agent(before)
                record.replace_agent(agent)
                self._index_agent(record)
            record.update_heartbeat(heartbeat, read_at)
        self.by_status[agent.status][agent.id] = record
        if agent.draining:
            self.draining[agent.id] = record
        else:
            self.draining.pop(agent.id, None)

    def remove(self, agent: Agent) -> None:
        """Remove an agent, unless the view already has a newer version of this agent."""
        record = self.records.get(agent.id)
        if record is None or record.agent.version >= agent.version:
            return
        del self.records[agent.id]
        del self.by_status[record.agent.status][agent.id]
        self.draining.pop(agent.id, None)
        self._unindex_agent(record.agent)

    def apply(self, change: Change, read_at: float) -> None:
        """Apply the next change of the change log to the view."""
        agent = change.agent
        if agent is not None:
            record = self.records.get(agent.id)
            changed: set[LookupKey] = set() if record is None else _affected_keys(record.agent.indexed)
            if change.kind == "remove":
                self.remove(agent)
            else:
                self.put(agent, change.heartbeat, read_at)
                changed |= _affected_keys(agent.indexed)
            self._record_change(changed, change.version)
        self.version = change.version

    def count_by_status(self) -> dict[Status, int]:
        """Return the number of agents for each status, including zeros."""
        return {status: len(records) for status, records in self.by_status.items()}

    def narrowest_candidates(
        self,
        *,
        capabilities: Iterable[str],
        namespace: str | None,
        labels: Iterable[tuple[str, str]],
        statuses: Iterable[Status],
        draining: bool | None = None,
    ) -> Mapping[str, Record]:
        """Return the smallest set of records in one index that contains every match of the given conditions."""
        sets = [self.by_capability.get(name, {}) for name in capabilities]
        sets += [self.by_label.get(label, {}) for label in labels]
        if namespace is not None:
            sets.append(self.by_namespace.get(namespace, {}))
        status_sets = [self.by_status[status] for status in statuses]
        if len(status_sets) == 1:
            sets += status_sets
        if draining:
            sets.append(self.draining)
        return min(sets, key=len, default=self.records)

    def _record_change(self, keys: set[LookupKey], version: int) -> None:
        """Store `version` as the last change of lookup keys and of all capabilities that require them.

        For keys that no agent has any more, the versions are dropped after a while, the oldest first.
        """
        while keys:
            key = keys.pop()
            if self._last_changes.get(key) == version:
                continue
            self._last_changes[key] = version
            self._removed_keys.pop(key, None)
            if isinstance(key, str):
                keys.update(self._dependent_names.get(key, ()))
            if key not in self.by_capability and key not in self.by_llm_tool_tag:
                self._removed_keys[key] = None
        while len(self._removed_keys) > _MAX_REMOVED_KEYS:
            key, _ = self._removed_keys.popitem(last=False)
            self._removed_before_version = max(self._removed_before_version, self._last_changes.pop(key))

    def _index_agent(self, record: Record) -> None:
        agent = record.agent
        for index, keys in self._indexes(agent.indexed):
            for key in keys:
                index.setdefault(key, {})[agent.id] = record
        self._count_edges(agent.indexed, 1)
        self.capability_count += len(agent.indexed.capabilities)

    def _unindex_agent(self, agent: Agent) -> None:
        for index, keys in self._indexes(agent.indexed):
            for key in keys:
                records = index[key]
                del records[agent.id]
                if not records:
                    del index[key]
        self._count_edges(agent.indexed, -1)
        self.capability_count -= len(agent.indexed.capabilities)

    def _count_edges(self, spec: IndexedSpec, delta: int) -> None:
        edges = set(spec.required_edges)
        for name, required in edges:
            _adjust_count(self._dependent_names, capability_of(required), capability_of(name), delta)
        for name, required in with_any_namespace(edges):
            count = self.required_edges.get(name, {}).get(required, 0)
            self.edges_revision += count == 0 or count + delta == 0
            _adjust_count(self.required_edges, name, required, delta)
            _adjust_count(self.dependent_edges, required, name, delta)

    def _indexes(self, spec: IndexedSpec) -> tuple[tuple[Index[Any], set[Any]], ...]:
        return (
            (self.by_capability, _capability_names(spec)),
            (self.by_dependency, spec.dependency_names),
            (self.by_namespace, {spec.namespace}),
            (self.by_label, set(spec.labels.items())),
            (self.by_llm_tool_tag, _tool_tags(spec)),
        )


def _capability_names(spec: IndexedSpec) -> set[str]:
    return {capability.name for capability in spec.capabilities}


def _tool_tags(spec: IndexedSpec) -> set[ToolTag]:
    """Return the lookup keys of tools for language models: one for each tag, and one for a search by any tag."""
    return {("tool", tag) for capability in spec.llm_tools for tag in (None, *capability.tags)}


def _affected_keys(spec: IndexedSpec) -> set[LookupKey]:
    """Return the keys of all lookups whose result can depend on the agent."""
    return _capability_names(spec) | spec.round_robin | _tool_tags(spec)


def _adjust_count(edges: EdgeCounts, name: str, other: str, delta: int) -> None:
    """Add `delta` to the number of agents in which one node requires the other."""
    counts = edges.setdefault(name, {})
    counts[other] = counts.get(other, 0) + delta
    if not counts[other]:
        del counts[other]
    if not counts:
        del edges[name]
