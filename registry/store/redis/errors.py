"""What an error reply of Redis means: trouble that passes, with a word for it, or a bug."""

from typing import Any

from redis.exceptions import RedisError

from registry.errors import StoreUnavailable

# What Redis answers when it cannot do its work now; every other error reply is a bug of ours or a broken record.
_REASONS = {
    "ASK": "resharding",
    "BUSY": "busy_script",
    "CLUSTERDOWN": "cluster_down",
    "DENIED": "auth",
    "LOADING": "loading",
    "MASTERDOWN": "master_down",
    "MISCONF": "store_readonly",
    "MOVED": "moved",
    "NOAUTH": "auth",
    "NOPERM": "auth",
    "NOREPLICAS": "no_replicas",
    "OOM": "out_of_memory",
    "READONLY": "read_only_replica",
    "TRYAGAIN": "resharding",
    "WRONGPASS": "auth",
}
REASONS = frozenset(_REASONS.values())
# Another server is the right one; this one has not done what it was asked.
ELSEWHERE = frozenset({"moved", "read_only_replica"})
# The connection leads nowhere useful: the next one may.
WRONG_SERVER = ELSEWHERE | {"auth", "cluster_down", "master_down"}


def trouble(error: BaseException) -> str | None:
    """Return the reason word when the reply means that Redis cannot work now, None when it means something else."""
    code = getattr(error, "status_code", None) or str(error).partition(" ")[0]
    return _REASONS.get(code)


def judged(reply: Any) -> Any:
    """Return the reply, or the exception it stands for: StoreUnavailable, or the error itself when it is a bug."""
    if isinstance(reply, RedisError):
        reason = trouble(reply)
        if reason is not None:
            # Which server is which concerns the log, and not whoever asked.
            what = "Redis has moved; try again shortly" if reason in ELSEWHERE else f"Redis cannot do this now: {reply}"
            unavailable = StoreUnavailable(what, reason=reason)
            unavailable.__cause__ = reply
            return unavailable
    return reply


def checked(reply: Any) -> Any:
    """Return the reply, or raise the exception it stands for."""
    result = judged(reply)
    if isinstance(result, Exception):
        raise result
    return result
