"""A bounded buffer of the latest changes in order, from which each watcher reads at its own position."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

import msgspec

from registry.model.agent import Agent, decode_indexed_spec
from registry.model.change import Change
from registry.model.encoding.agent_json import encode_agent_head, encode_agent_tail
from registry.model.encoding.watch_event import EventKind, StreamFormat, encode_event

IndexKey = tuple[str, ...]


class ChangeEntry(msgspec.Struct, eq=False, gc=False):
    """A change: agent before and after, index keys and encodings, each computed once; the gc does not track it."""

    change: Change
    _states: tuple[Agent | None, Agent | None] | None = None
    _index_keys: frozenset[IndexKey] | None = None
    _object_json: dict[bool, bytes] = {}
    _encoded: dict[tuple[EventKind, StreamFormat], bytes] = {}

    @property
    def version(self) -> int:
        """The resource version of the change."""
        return self.change.version

    @property
    def states(self) -> tuple[Agent | None, Agent | None]:
        """The agent before and after the change, None if it did not exist then. Decoded at the first access."""
        if self._states is None:
            self._states = _decode_states(self.change)
        return self._states

    @property
    def index_keys(self) -> frozenset[IndexKey]:
        """The id, namespace, capabilities and labels of the agent before and after the change, to find its watchers."""
        if self._index_keys is None:
            self._index_keys = frozenset(key for agent in self.states if agent for key in index_keys_of(agent))
        return self._index_keys

    def encode(self, kind: EventKind, stream_format: StreamFormat) -> bytes:
        """Return the change as one event of a watch stream."""
        key = kind, stream_format
        line = self._encoded.get(key)
        if line is None:
            is_deletion = kind == "DELETED"
            object_json = self._object_json.get(is_deletion)
            if object_json is None:
                object_json = self._object_json[is_deletion] = self._encode_object(is_deletion=is_deletion)
            line = self._encoded[key] = encode_event(kind, object_json, self.version, stream_format)
        return line

    def _encode_object(self, *, is_deletion: bool) -> bytes:
        """Return the JSON of the agent after the change; of the agent before it for a deletion.

        A watcher whose query the agent no longer matches must not receive what it has changed to. Both have the version
        of the change, as in Kubernetes.
        """
        agent, heartbeat = self.change.agent, self.change.heartbeat
        if is_deletion and self.change.kind == "modify":
            before, _ = self.states
            agent = before and msgspec.structs.replace(before, version=self.version)
            if before is not None and before.status == "pending":
                heartbeat = None
        return encode_agent_head(agent) + encode_agent_tail(heartbeat) if agent else b"null"

    @property
    def approximate_bytes(self) -> int:
        """The approximate memory of the entry in bytes: specs, decoded agents, keys and one encoding of each state."""
        agent, before = self.change.agent, self.change.spec_before
        return 2048 + (4 * len(agent.spec) if agent else 0) + (4 * len(before) if before else 0)


def index_keys_of(agent: Agent) -> Iterator[IndexKey]:
    """Yield the index keys under which the watchers of an agent are found."""
    spec = agent.indexed
    yield ("id", agent.id)
    yield ("namespace", spec.namespace)
    for capability in spec.capabilities:
        yield ("capability", capability.name)
    for name, value in spec.labels.items():
        yield ("label", name, value)


def _decode_states(change: Change) -> tuple[Agent | None, Agent | None]:
    agent = change.agent
    if agent is None or change.kind == "add":
        return None, agent
    if change.kind == "remove":
        return agent, None
    spec = change.spec_before
    before = msgspec.structs.replace(
        agent,
        spec=agent.spec if spec is None else spec,
        status=change.status_before or agent.status,
        draining=agent.draining if change.draining_before is None else change.draining_before,
        version=change.prev,
        updated=change.updated_before or agent.updated,
        indexed=agent.indexed if spec is None else decode_indexed_spec(spec),
    )
    return before, agent


class ChangeBuffer:
    """The changes after `start_version` up to `last_version`, without gaps.

    It has at most `max_entries` entries and `max_bytes` bytes; the oldest entries are dropped first.
    """

    def __init__(self, start_version: int, max_entries: int, max_bytes: int) -> None:
        self.start_version = start_version
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: list[ChangeEntry] = []
        self._versions: list[int] = []
        self._dropped = 0
        self._bytes = 0

    @property
    def last_version(self) -> int:
        """The version of the newest change in the buffer, or `start_version` if the buffer is empty."""
        return self._versions[-1] if self._versions else self.start_version

    @property
    def free_bytes(self) -> int:
        """The bytes that can be added before the oldest entries are dropped."""
        return self._max_bytes - self._bytes

    def append(self, entry: ChangeEntry) -> None:
        """Add the next change."""
        self._entries.append(entry)
        self._versions.append(entry.version)
        self._bytes += entry.approximate_bytes
        while len(self._entries) - self._dropped > self._max_entries or self._bytes > self._max_bytes:
            self._drop_oldest()

    def prepend(self, start_version: int, entries: Sequence[ChangeEntry]) -> None:
        """Add changes before the oldest one; they must follow `start_version` without a gap."""
        self._entries = [*entries, *self._entries[self._dropped :]]
        self._versions = [entry.version for entry in self._entries]
        self._dropped = 0
        self._bytes += sum(entry.approximate_bytes for entry in entries)
        self.start_version = start_version

    def contains(self, version: int) -> bool:
        """Return whether the buffer has all changes after `version`, and `version` belongs to a change itself."""
        if version == self.start_version:
            return True
        at = bisect_left(self._versions, version, self._dropped)
        return at < len(self._versions) and self._versions[at] == version

    def since(self, version: int) -> Sequence[ChangeEntry]:
        """Return the changes after `version`; `contains(version)` must be true."""
        return self._entries[bisect_left(self._versions, version + 1, self._dropped) :]

    def _drop_oldest(self) -> None:
        entry = self._entries[self._dropped]
        self.start_version = entry.version
        self._bytes -= entry.approximate_bytes
        self._dropped += 1
        if self._dropped * 2 > len(self._entries):
            del self._entries[: self._dropped], self._versions[: self._dropped]
            self._dropped = 0
