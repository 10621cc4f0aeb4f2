"""The agents as of one version, with indexes. No method awaits: the event loop is the lock."""

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from registry.model.agent import STATUSES, Agent, Profile, Sought, Status, ToolTag
from registry.model.change import Change, Position
from registry.model.encoding.agent_json import head, tail

Key = TypeVar("Key", bound=Hashable)
Index = dict[Key, dict[str, "Record"]]
# From a capability to others, each with how many agents lead there.
Edges = dict[str, dict[str, int]]

# For so many capabilities that nobody has any more it is known when the last one went.
_MOST_GONE = 10_000


class Record(msgspec.Struct, eq=False, gc=False):
    """One agent and its encoded form, which is kept until the agent changes.

    `heartbeat` is the last one known, in Redis-server milliseconds; `heard_at` the moment it was learnt, on this
    replica's monotonic clock in seconds. It makes no cycles, and is hidden from the collector that looks for them: that
    would walk every agent again and again. `kept` is what answers keep of the agent as long as it is here; nothing in
    it leads to a record.
    """

    agent: Agent
    heartbeat: int | None
    heard_at: float
    kept: Any = None
    _head: bytes | None = None
    _body: bytes | None = None

    def change(self, agent: Agent) -> None:
        """Take the agent as it is after a change."""
        self.agent = agent
        self._head = self._body = None

    def hear(self, heartbeat: int | None, heard_at: float) -> None:
        """Note a last heartbeat; what is older than what is known says nothing new."""
        self.heard_at = heard_at
        if heartbeat is not None and (self.heartbeat is None or heartbeat > self.heartbeat):
            self.heartbeat = heartbeat
            self._body = None

    def rewind(self, now: int, to: int) -> None:
        """Take a heartbeat back that lies in the future of `now`, so that the next that is heard counts."""
        if self.heartbeat is not None and self.heartbeat > now:
            self.heartbeat = to
            self._body = None

    @property
    def order(self) -> tuple[str, str]:
        """What lists are sorted by: namespace, then id."""
        return self.agent.profile.namespace, self.agent.id

    @property
    def body(self) -> bytes:
        """The agent as answers show it, JSON."""
        if self._body is None:
            if self._head is None:
                self._head = head(self.agent)
            self._body = self._head + tail(self.heartbeat)
        return self._body


class View:
    """Every agent of the mesh at `version` of `history`."""

    def __init__(self, position: Position) -> None:
        self.version = position.version
        self.history = position.history
        self.records: dict[str, Record] = {}
        self.by_capability: Index[str] = {}
        self.by_need: Index[str] = {}
        self.by_namespace: Index[str] = {}
        self.by_label: Index[tuple[str, str]] = {}
        self.by_tool_tag: Index[ToolTag] = {}
        self.required: Edges = {}
        self.requirers: Edges = {}
        self.edges_changed = 0
        self.by_status: Mapping[Status, dict[str, Record]] = {status: {} for status in STATUSES}
        self.draining: dict[str, Record] = {}
        self.capabilities = 0
        self._moved: dict[Sought, int] = {}
        self._gone: OrderedDict[Sought, None] = OrderedDict()
        self._gone_before = position.version

    def moved(self, key: Sought) -> int:
        """Return a version since which nothing has changed for those who look for this."""
        return self._moved.get(key, self._gone_before)

    def put(self, agent: Agent, heartbeat: int | None, heard_at: float) -> None:
        """Take an agent, unless a newer state of it is held already."""
        record = self.records.get(agent.id)
        if record is None:
            record = self.records[agent.id] = Record(agent, heartbeat, heard_at)
            self._add_profile(record)
        elif record.agent.version >= agent.version:
            return
        else:
            before = record.agent
            del self.by_status[before.status][agent.id]
            if before.spec == agent.spec:
                record.change(agent)
            else:
                self._drop_profile(before)
                record.change(agent)
                self._add_profile(record)
            record.hear(heartbeat, heard_at)
        self.by_status[agent.status][agent.id] = record
        if agent.draining:
            self.draining[agent.id] = record
        else:
            self.draining.pop(agent.id, None)

    def remove(self, agent: Agent) -> None:
        """Forget an agent, unless a newer state of it is held."""
        record = self.records.get(agent.id)
        if record is None or record.agent.version >= agent.version:
            return
        del self.records[agent.id]
        del self.by_status[record.agent.status][agent.id]
        self.draining.pop(agent.id, None)
        self._drop_profile(record.agent)

    def apply(self, change: Change, heard_at: float) -> None:
        """Move on by one change of the log."""
        agent = change.agent
        if agent is not None:
            record = self.records.get(agent.id)
            moved: set[Sought] = set() if record is None else _moves(record.agent.profile)
            if change.kind == "remove":
                self.remove(agent)
            else:
                self.put(agent, change.heartbeat, heard_at)
                moved |= _moves(agent.profile)
            self._move(moved, change.version)
        self.version = change.version

    def counts(self) -> dict[Status, int]:
        """Return how many agents have each status, zeros too."""
        return {status: len(records) for status, records in self.by_status.items()}

    def narrowest(
        self,
        *,
        capabilities: Iterable[str],
        namespace: str | None,
        labels: Iterable[tuple[str, str]],
        statuses: Iterable[Status],
        draining: bool | None = None,
    ) -> Mapping[str, Record]:
        """Return the smallest set of records, by one index, that holds every match of all of these conditions."""
        sets = [self.by_capability.get(name, {}) for name in capabilities]
        sets += [self.by_label.get(label, {}) for label in labels]
        if namespace is not None:
            sets.append(self.by_namespace.get(namespace, {}))
        asked = [self.by_status[status] for status in statuses]
        if len(asked) == 1:
            sets += asked
        if draining:
            sets.append(self.draining)
        return min(sets, key=len, default=self.records)

    def _move(self, sought: set[Sought], version: int) -> None:
        """Note that these changed, and all that cannot do without them. Of those gone for long, only that they are."""
        while sought:
            key = sought.pop()
            if self._moved.get(key) == version:
                continue
            self._moved[key] = version
            self._gone.pop(key, None)
            if isinstance(key, str):
                sought.update(self.requirers.get(key, ()))
            if key not in self.by_capability and key not in self.by_tool_tag:
                self._gone[key] = None
        while len(self._gone) > _MOST_GONE:
            key, _ = self._gone.popitem(last=False)
            self._gone_before = max(self._gone_before, self._moved.pop(key))

    def _add_profile(self, record: Record) -> None:
        agent = record.agent
        for index, keys in self._indexes(agent.profile):
            for key in keys:
                index.setdefault(key, {})[agent.id] = record
        self._count_edges(agent.profile, 1)
        self.capabilities += len(agent.profile.capabilities)

    def _drop_profile(self, agent: Agent) -> None:
        for index, keys in self._indexes(agent.profile):
            for key in keys:
                records = index[key]
                del records[agent.id]
                if not records:
                    del index[key]
        self._count_edges(agent.profile, -1)
        self.capabilities -= len(agent.profile.capabilities)

    def _count_edges(self, profile: Profile, more: int) -> None:
        for name, needed in profile.edges:
            held = self.required.get(name, {}).get(needed, 0)
            self.edges_changed += held == 0 or held + more == 0
            _count(self.required, name, needed, more)
            _count(self.requirers, needed, name, more)

    def _indexes(self, profile: Profile) -> tuple[tuple[Index[Any], set[Any]], ...]:
        return (
            (self.by_capability, _names(profile)),
            (self.by_need, profile.needs),
            (self.by_namespace, {profile.namespace}),
            (self.by_label, set(profile.labels.items())),
            (self.by_tool_tag, _tool_tags(profile)),
        )


def _names(profile: Profile) -> set[str]:
    return {capability.name for capability in profile.capabilities}


def _tool_tags(profile: Profile) -> set[ToolTag]:
    """Return what a language model's tools are found by: their tags, and None for any of them."""
    tags: set[ToolTag] = set()
    for capability in profile.tools:
        tags.update(("tool", tag) for tag in (None, *capability.tags))
    return tags


def _moves(profile: Profile) -> set[Sought]:
    """Return all by which somebody may look whom a change of the agent concerns."""
    return _names(profile) | profile.turns | _tool_tags(profile)


def _count(edges: Edges, name: str, other: str, more: int) -> None:
    """Count one agent more or less by which a capability leads to another."""
    counts = edges.setdefault(name, {})
    counts[other] = counts.get(other, 0) + more
    if not counts[other]:
        del counts[other]
    if not counts:
        del edges[name]
