"""Stops script calls while Redis refuses a command that the scripts need."""

import math
import time
from collections.abc import Callable, Collection, Sequence

from registry.store.redis.errors import REFUSAL_ADVICE, access_error
from registry.store.scripts import Command
from registry.telemetry.logs import get_logger

log = get_logger(__name__)

_LOG_INTERVAL_S = 60.0
_SCRIPT, _SCRIPT_SHA = "return 1", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"


class AccessGuard:
    """The commands that Redis refuses to this user, because they are not permitted or renamed.

    Redis does not undo the first writes of a script that is refused a later command, so no script is called while
    `refused` is not empty. Refusals are logged once a minute.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.refused: tuple[str, ...] = ()
        self._clock = clock
        self._logged_at = -math.inf

    def require_access(self) -> None:
        """Raise StoreUnavailable while Redis refuses a command."""
        if self.refused:
            raise access_error(self.refused)

    def add(self, command: str) -> None:
        """Add a refused command, as a reply of Redis named it."""
        self.replace({*self.refused, command})

    def replace(self, refused: Collection[str]) -> None:
        """Set the refused commands to the result of a check of all commands."""
        before, self.refused = self.refused, tuple(sorted(refused))
        if self.refused:
            self.log_refusal(f"Redis refuses {', '.join(self.refused)}", REFUSAL_ADVICE)
        elif before:
            log.warning("redis_access_restored", commands=", ".join(before))

    def log_refusal(self, error: str, advice: str) -> None:
        """Log that Redis refuses this user, at most once a minute."""
        now = self._clock()
        if now - self._logged_at >= _LOG_INTERVAL_S:
            self._logged_at = now
            log.error("redis_access_refused", error=error, advice=advice)


def access_check(key: bytes, used_keys: Sequence[bytes] = (), *, acks: int = 0) -> list[Command]:
    """Return one call of each command that a replica and its scripts need, and one that names `used_keys`.

    They write only `key` and leave no data. Commands for which there is another way, such as CONFIG and SUBSCRIBE, are
    left out.
    """
    return [
        *(("HSET", key, "a", 1), ("HINCRBY", key, "a", 1), ("HGET", key, "a"), ("HMGET", key, "a")),
        *(("HGETALL", key), ("HEXISTS", key, "a"), ("HSCAN", key, 0), ("HDEL", key, "a")),
        *(("ZADD", key, 1, "a"), ("ZCARD", key), ("ZCOUNT", key, 0, 1), ("ZSCORE", key, "a"), ("ZMSCORE", key, "a")),
        *(("ZRANGE", key, 0, 0), ("ZRANGEBYSCORE", key, 0, 0), ("ZREVRANGEBYSCORE", key, 0, 0)),
        *(("ZRANGEBYLEX", key, "-", "+"), ("ZLEXCOUNT", key, "-", "+"), ("ZINCRBY", key, 1, "a")),
        *(("ZSCAN", key, 0), ("ZREM", key, "a")),
        *(("LPUSH", key, "a"), ("LINDEX", key, 0), ("LRANGE", key, 0, 0), ("LTRIM", key, 1, 0)),
        *(("XADD", key, "*", "a", 1), ("XRANGE", key, "-", "+"), ("XREVRANGE", key, "+", "-"), ("UNLINK", key)),
        *(("INCR", key), ("SET", key, 1), ("GET", key), ("PEXPIRE", key, 60_000), ("DEL", key)),
        *(("EXISTS", key), ("TIME",), ("EVAL", _SCRIPT, 1, key), ("EVALSHA", _SCRIPT_SHA, 1, key)),
        ("EVAL", _SCRIPT, len(used_keys), *used_keys),
        *([("WAIT", 0, 1)] if acks else []),
    ]
