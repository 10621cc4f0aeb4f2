"""The names of the registry's keys in Redis."""

from collections.abc import Mapping
from types import MappingProxyType

_SHARED_KEY_NAMES = (
    "version",
    "timeline",
    "log",
    "log_bytes",
    "heartbeats",
    "deadlines",
    "unhealthy_since",
    "suspended",
    "missing",
    "healthy_by_namespace",
    "leader",
    "epoch",
    "last_probe",
    "outage",
    "lags",
    "clock_rollback",
    "self_preservation",
    "protected",
    "counters",
    "required_edges",
)


def decode(raw: bytes) -> str:
    """Decode text from Redis; `encode` restores bytes that are not valid UTF-8."""
    return raw.decode(errors="surrogateescape")


def encode(text: str) -> bytes:
    """Encode text for Redis, as the inverse of `decode`."""
    return text.encode(errors="surrogateescape")


class Keys:
    """The Redis keys of one mesh, as bytes.

    The braces are the hash tag of Redis Cluster: all keys of a mesh are in one slot, because scripts change its version
    and log together. A cluster therefore adds failover, not write capacity. `shared` has the keys that do not belong
    to one agent, by their names in the headers of the scripts.
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
        self.required_edges = self.shared["required_edges"]
        self._agent_prefix = prefix + b"agent:"
        self._resolutions_prefix = prefix + b"resolutions:"

    def agent(self, agent_id: str) -> bytes:
        """Return the key of the hash that stores one agent."""
        return self._agent_prefix + encode(agent_id)

    def resolutions(self, agent_id: str) -> bytes:
        """Return the key of the list with one agent's recent resolutions."""
        return self._resolutions_prefix + encode(agent_id)

    def key(self, name: str) -> bytes:
        """Return the name of a key of this mesh that no Lua script uses."""
        return self._prefix + name.encode()
