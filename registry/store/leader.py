"""The lock that says who sweeps: take, renew, resign. Safety depends on the epoch in every sweep, never on the lock."""

from typing import NamedTuple

import orjson

from registry.store.keys import Keys, decode, encode
from registry.store.redis.errors import raise_for_error
from registry.store.redis.pipeline import Pipeline
from registry.store.scripts import load_scripts


class LeaderLock(NamedTuple):
    """The lock as it reads: a counter raised by each renewal, the epoch, since when (Redis-server ms), and by whom."""

    encoded: str
    counter: int
    epoch: int
    since: int
    instance: str
    host: str
    pid: int

    @classmethod
    def from_bytes(cls, raw: bytes) -> "LeaderLock":
        """Read a lock; one that was tampered with reads as held by nobody known, and is replaced after a lease."""
        try:
            counter, epoch, since, holder = raw.split(b" ", 3)
            who = orjson.loads(holder)
            return cls(decode(raw), int(counter), int(epoch), int(since), who["instance"], who["host"], who["pid"])
        except (ValueError, KeyError, TypeError):
            return cls(decode(raw), 0, 0, 0, "?", "?", 0)


class Leadership:
    """The three calls of the lock over a link of its own; `instance`, `host` and `pid` say who asks."""

    def __init__(
        self, keys: Keys, pipeline: Pipeline, *, instance: str, host: str, pid: int, shebang: bool = True
    ) -> None:
        scripts = load_scripts(shebang=shebang)
        self._acquire, self._renew, self._resign = (
            scripts[f"leader_{verb}"] for verb in ("acquire", "renew", "resign")
        )
        self._keys = keys
        self._pipeline = pipeline
        self._holder = orjson.dumps({"instance": instance, "host": host, "pid": pid})

    async def acquire(self, expired_lock: str) -> tuple[bool, LeaderLock]:
        """Take the lock if it is free or still reads `expired_lock`; return whether it was taken, and the lock now."""
        call = self._acquire.call(self._keys.shared, {"holder": self._holder, "expired_lock": encode(expired_lock)})
        word, *rest = raise_for_error((await self._pipeline.call_scripts([call]))[0])
        return word == b"acquired", LeaderLock.from_bytes(rest[-1])

    async def renew(self, own_lock: LeaderLock) -> LeaderLock | None:
        """Raise the lock's counter; None when the lock is not ours any more."""
        call = self._renew.call(self._keys.shared, {"own_lock": encode(own_lock.encoded)})
        word, lock = raise_for_error((await self._pipeline.call_scripts([call]))[0])
        return LeaderLock.from_bytes(lock) if word == b"renewed" else None

    async def resign(self, own_lock: LeaderLock) -> bool:
        """Give the lock up; False when it was not ours any more."""
        call = self._resign.call(self._keys.shared, {"own_lock": encode(own_lock.encoded)})
        return bool(raise_for_error((await self._pipeline.call_scripts([call]))[0])[0] == b"resigned")
