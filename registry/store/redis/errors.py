"""What an error reply of Redis means: trouble that passes, with a word for it, or a bug."""

from typing import Any

from redis.exceptions import RedisError

from registry.errors import StoreUnavailable

# What Redis answers when it cannot do its work now; every other error reply is a bug of ours or a broken record.
_REASON_BY_ERROR_CODE = {
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
UNAVAILABLE_REASONS = frozenset(_REASON_BY_ERROR_CODE.values())
# Another server is the right one; this one has not done what it was asked.
REDIRECT_REASONS = frozenset({"moved", "read_only_replica"})
# The connection leads nowhere useful: the next one may.
WRONG_SERVER_REASONS = REDIRECT_REASONS | {"auth", "cluster_down", "master_down"}


def unavailable_reason(error: BaseException) -> str | None:
    """Return the reason word when the reply means that Redis cannot work now, None when it means something else."""
    code = getattr(error, "status_code", None) or str(error).partition(" ")[0]
    return _REASON_BY_ERROR_CODE.get(code)


def reply_or_error(reply: Any) -> Any:
    """Return the reply, or the exception it stands for: StoreUnavailable, or the error itself when it is a bug."""
    if isinstance(reply, RedisError):
        reason = unavailable_reason(reply)
        if reason is not None:
            # Which server is which concerns the log, and not whoever asked.
            what = (
                "Redis has moved; try again shortly"
                if reason in REDIRECT_REASONS
                else f"Redis cannot do this now: {reply}"
            )
            unavailable = StoreUnavailable(what, reason=reason)
            unavailable.__cause__ = reply
            return unavailable
    return reply


def raise_for_error(reply: Any) -> Any:
    """Return the reply, or raise the exception it stands for."""
    result = reply_or_error(reply)
    if isinstance(result, Exception):
        raise result
    return result
