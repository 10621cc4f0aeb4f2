"""The lock that says who sweeps: take, renew, resign. Safety depends on the epoch in every sweep, never on the lock."""

from typing import NamedTuple

import orjson

from registry.store.keys import Keys, sent, told
from registry.store.redis.pipeline import Link, checked
from registry.store.scripts import load_scripts


class Lock(NamedTuple):
    """The lock as it reads: a counter raised by each renewal, the epoch, since when (Redis-server ms), and by whom."""

    text: str
    counter: int
    epoch: int
    since: int
    instance: str
    host: str
    pid: int

    @classmethod
    def read(cls, raw: bytes) -> "Lock":
        """Read a lock; one that was tampered with reads as held by nobody known, and is replaced after a lease."""
        try:
            counter, epoch, since, holder = raw.split(b" ", 3)
            who = orjson.loads(holder)
            return cls(told(raw), int(counter), int(epoch), int(since), who["instance"], who["host"], who["pid"])
        except (ValueError, KeyError, TypeError):
            return cls(told(raw), 0, 0, 0, "?", "?", 0)


class Leadership:
    """The three calls of the lock over a link of its own; `instance`, `host` and `pid` say who asks."""

    def __init__(self, keys: Keys, link: Link, *, instance: str, host: str, pid: int, shebang: bool = True) -> None:
        scripts = load_scripts(shebang=shebang)
        self._take, self._renew, self._resign = (scripts[f"lead_{verb}"] for verb in ("take", "renew", "resign"))
        self._keys = keys
        self._link = link
        self._holder = orjson.dumps({"instance": instance, "host": host, "pid": pid})

    async def take(self, seen: str) -> tuple[bool, Lock]:
        """Take the lock if nobody has it or it still reads `seen`; return whether, and the lock as it reads now."""
        call = self._take.call(self._keys.shared, {"holder": self._holder, "seen": sent(seen)})
        word, *rest = checked((await self._link.run([call]))[0])
        return word == b"taken", Lock.read(rest[-1])

    async def renew(self, mine: Lock) -> Lock | None:
        """Raise the lock's counter; None when the lock is not ours any more."""
        call = self._renew.call(self._keys.shared, {"mine": sent(mine.text)})
        word, lock = checked((await self._link.run([call]))[0])
        return Lock.read(lock) if word == b"renewed" else None

    async def resign(self, mine: Lock) -> bool:
        """Give the lock up; False when it was not ours any more."""
        call = self._resign.call(self._keys.shared, {"mine": sent(mine.text)})
        return bool(checked((await self._link.run([call]))[0])[0] == b"resigned")
