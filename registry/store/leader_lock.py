"""The lock by which replicas elect a leader, which runs the sweeps: acquire, renew and resign.

The lock only avoids duplicate work. A sweep is correct without it, because its script checks the epoch.
"""

from typing import NamedTuple

import orjson

from registry.store.keys import Keys, decode, encode
from registry.store.redis.pipeline import Pipeline


class LeaderLock(NamedTuple):
    """The leader lock: a counter of its renewals, the epoch and its start in ms of the Redis server, and the holder."""

    encoded: str
    counter: int
    epoch: int
    since: int
    instance: str
    host: str
    pid: int

    @classmethod
    def from_bytes(cls, raw: bytes) -> "LeaderLock":
        """Decode the leader lock; an invalid lock has an unknown holder and is replaced after a lease."""
        try:
            counter, epoch, since, holder = raw.split(b" ", 3)
            fields = orjson.loads(holder)
            instance, host, pid = fields["instance"], fields["host"], fields["pid"]
            return cls(decode(raw), int(counter), int(epoch), int(since), instance, host, pid)
        except (ValueError, KeyError, TypeError):
            return cls(decode(raw), 0, 0, 0, "?", "?", 0)


class Leadership:
    """Acquires, renews and resigns the leader lock for one replica, identified by `instance`, `host` and `pid`."""

    def __init__(self, keys: Keys, pipeline: Pipeline, *, instance: str, host: str, pid: int) -> None:
        self._keys = keys
        self._pipeline = pipeline
        self._holder = orjson.dumps({"instance": instance, "host": host, "pid": pid})

    async def acquire(self, expired_lock: str) -> tuple[bool, LeaderLock]:
        """Acquire the lock if it is free or still `expired_lock`; return whether it succeeded, and the current lock."""
        call = self._pipeline.scripts["leader_acquire"].call(
            self._keys.shared, {"holder": self._holder, "expired_lock": encode(expired_lock)}
        )
        word, *rest = await self._pipeline.call_script(call)
        return word == b"acquired", LeaderLock.from_bytes(rest[-1])

    async def renew(self, own_lock: LeaderLock) -> LeaderLock | None:
        """Renew the lock by raising its counter; return the new lock, or None if another replica holds it."""
        call = self._pipeline.scripts["leader_renew"].call(self._keys.shared, {"own_lock": encode(own_lock.encoded)})
        word, lock = await self._pipeline.call_script(call)
        return LeaderLock.from_bytes(lock) if word == b"renewed" else None

    async def resign(self, own_lock: LeaderLock) -> bool:
        """Release the lock; return False if this replica no longer held it."""
        call = self._pipeline.scripts["leader_resign"].call(self._keys.shared, {"own_lock": encode(own_lock.encoded)})
        return bool((await self._pipeline.call_script(call))[0] == b"resigned")
