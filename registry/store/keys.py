"""Every key the registry has in Redis. All share one hash tag, so that every script is legal in Redis Cluster."""

from collections.abc import Mapping
from types import MappingProxyType

_SHARED_KEY_NAMES = (
    "version",
    "timeline",
    "log",
    "heartbeats",
    "deadlines",
    "unhealthy_since",
    "leader",
    "epoch",
    "last_probe",
    "outage",
    "clock_rollback",
    "self_preservation",
    "counters",
    "required_edges",
)


def decode(raw: bytes) -> str:
    """Return what lies in Redis as text. It need not be text; what is not goes back as the same bytes by `encode`."""
    return raw.decode(errors="surrogateescape")


def encode(text: str) -> bytes:
    """Return text as it lies in Redis."""
    return text.encode(errors="surrogateescape")


class Keys:
    """The keys of one mesh, as bytes.

    The braces are Redis Cluster's hash tag: everything of one mesh lives in one slot, because one version counter and
    one log must move together. Cluster therefore gives failover, not more write capacity. `shared` holds every key but
    the agents' own, by the names the headers of the scripts use.
    """

    def __init__(self, mesh: str) -> None:
        self._prefix = prefix = f"{{{mesh}}}:".encode()
        self.shared: Mapping[str, bytes] = MappingProxyType(
            {name: prefix + name.encode() for name in _SHARED_KEY_NAMES}
        )
        self.version = self.shared["version"]
        self.timeline = self.shared["timeline"]
        self.log = self.shared["log"]
        self.heartbeats = self.shared["heartbeats"]
        self.deadlines = self.shared["deadlines"]
        self.epoch = self.shared["epoch"]
        self.clock_rollback = self.shared["clock_rollback"]
        self.self_preservation = self.shared["self_preservation"]
        self.counters = self.shared["counters"]
        self.required_edges = self.shared["required_edges"]
        self._agent_prefix = prefix + b"agent:"
        self._resolutions_prefix = prefix + b"resolutions:"

    def agent(self, agent_id: str) -> bytes:
        """Return the hash of one agent."""
        return self._agent_prefix + encode(agent_id)

    def resolutions(self, agent_id: str) -> bytes:
        """Return the list of how one agent's dependencies were resolved lately."""
        return self._resolutions_prefix + encode(agent_id)

    def key(self, name: str) -> bytes:
        """Return a key of this mesh that no script of the registry uses."""
        return self._prefix + name.encode()
