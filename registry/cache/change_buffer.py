"""The recent changes, in order: what answers "since", and what watchers are cursors into."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

import msgspec

from registry.model.agent import Agent, read_profile
from registry.model.change import Change
from registry.model.encoding.agent_json import head, tail
from registry.model.encoding.watch_event import EventKind, Form, event_line

Key = tuple[str, ...]


class Entry(msgspec.Struct, eq=False, gc=False):
    """One change with the states before and after it, and its encodings, each made once for all who want it.

    Hidden from the collector of cycles, as records are.
    """

    change: Change
    _states: tuple[Agent | None, Agent | None] | None = None
    _keys: frozenset[Key] | None = None
    _object: bytes | None = None
    _lines: dict[tuple[EventKind, Form], bytes] = {}

    @property
    def version(self) -> int:
        """The resource version of the change."""
        return self.change.version

    @property
    def states(self) -> tuple[Agent | None, Agent | None]:
        """The agent before and after the change, None where it was not there. Read when first asked for."""
        if self._states is None:
            self._states = _states(self.change)
        return self._states

    @property
    def keys(self) -> frozenset[Key]:
        """What the change is found by: id, namespace, capabilities and labels, of the state before and after."""
        if self._keys is None:
            self._keys = frozenset(key for agent in self.states if agent for key in keys_of(agent))
        return self._keys

    def line(self, kind: EventKind, form: Form) -> bytes:
        """Return the change as one event of a stream."""
        line = self._lines.get((kind, form))
        if line is None:
            if self._object is None:
                agent = self.change.agent
                self._object = b"null" if agent is None else head(agent) + tail(self.change.heartbeat)
            line = self._lines[kind, form] = event_line(kind, self._object, self.version, form)
        return line

    @property
    def weight(self) -> int:
        """Roughly what keeping it costs, in bytes: specs, what was read of them, keys, and one encoding."""
        agent, before = self.change.agent, self.change.spec_before
        return 2048 + (4 * len(agent.spec) if agent else 0) + (3 * len(before) if before else 0)


def keys_of(agent: Agent) -> Iterator[Key]:
    """Return what an agent is found by."""
    profile = agent.profile
    yield ("id", agent.id)
    yield ("namespace", profile.namespace)
    for capability in profile.capabilities:
        yield ("capability", capability.name)
    for name, value in profile.labels.items():
        yield ("label", name, value)


def _states(change: Change) -> tuple[Agent | None, Agent | None]:
    agent = change.agent
    if agent is None or change.kind == "add":
        return None, agent
    if change.kind == "remove":
        return agent, None
    spec = change.spec_before
    before = Agent(
        id=agent.id,
        spec=agent.spec if spec is None else spec,
        status=change.status_before or agent.status,
        draining=agent.draining if change.draining_before is None else change.draining_before,
        version=change.prev,
        spec_version=agent.spec_version,
        created=agent.created,
        updated=agent.updated,
        timeout=agent.timeout,
        eviction=agent.eviction,
        profile=agent.profile if spec is None else read_profile(spec),
    )
    return before, agent


class History:
    """The entries after `start`, which is itself the version of a known entry, up to `last`.

    At most `most` entries of `most_bytes` together are kept; the oldest go first.
    """

    def __init__(self, start: int, most: int, most_bytes: int) -> None:
        self.start = start
        self._most = most
        self._most_bytes = most_bytes
        self._entries: list[Entry] = []
        self._versions: list[int] = []
        self._dropped = 0
        self._weight = 0

    @property
    def last(self) -> int:
        """The version of the newest entry, or `start` when there is none."""
        return self._versions[-1] if self._versions else self.start

    def append(self, entry: Entry) -> None:
        """Add the next change."""
        self._entries.append(entry)
        self._versions.append(entry.version)
        self._weight += entry.weight
        while len(self._entries) - self._dropped > self._most or self._weight > self._most_bytes:
            self._drop_oldest()

    def extend_back(self, start: int, entries: Sequence[Entry]) -> None:
        """Put entries before the oldest; they lead from `start` to it without a gap."""
        self._entries = [*entries, *self._entries[self._dropped :]]
        self._versions = [entry.version for entry in self._entries]
        self._dropped = 0
        self._weight += sum(entry.weight for entry in entries)
        self.start = start

    def holds(self, version: int) -> bool:
        """Tell whether `version` is that of an entry from which on nothing is missing."""
        if version == self.start:
            return True
        at = bisect_left(self._versions, version, self._dropped)
        return at < len(self._versions) and self._versions[at] == version

    def since(self, version: int) -> Sequence[Entry]:
        """Return the entries after `version`, which is held."""
        return self._entries[bisect_left(self._versions, version + 1, self._dropped) :]

    def _drop_oldest(self) -> None:
        entry = self._entries[self._dropped]
        self.start = entry.version
        self._weight -= entry.weight
        self._dropped += 1
        if self._dropped * 2 > len(self._entries):
            del self._entries[: self._dropped], self._versions[: self._dropped]
            self._dropped = 0
