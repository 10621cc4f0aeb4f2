"""Classifies error replies of Redis: temporary unavailability, with a reason code, or a bug."""

from typing import Any

from redis.exceptions import RedisError

from registry.errors import StoreUnavailable

# Replies of a temporarily unavailable Redis. Every other error reply is a bug of the registry or a bad record.
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
# Another server is the primary; this one did not execute the command.
REDIRECT_REASONS = frozenset({"moved", "read_only_replica"})
# This connection is useless; a new one may reach the right server.
WRONG_SERVER_REASONS = REDIRECT_REASONS | {"auth", "cluster_down", "master_down"}


def unavailable_reason(error: BaseException) -> str | None:
    """Return the reason code if an error means that Redis is unavailable, otherwise None."""
    code = getattr(error, "status_code", None) or str(error).partition(" ")[0]
    return _REASON_BY_ERROR_CODE.get(code)


def reply_or_error(reply: Any) -> Any:
    """Return a reply unchanged, but convert an error of an unavailable Redis to StoreUnavailable."""
    if isinstance(reply, RedisError):
        reason = unavailable_reason(reply)
        if reason is not None:
            # Addresses of servers belong in the log, not in responses.
            message = (
                "The Redis primary has moved; retry shortly"
                if reason in REDIRECT_REASONS
                else f"Redis cannot execute the command now: {reply}"
            )
            unavailable = StoreUnavailable(message, reason=reason)
            unavailable.__cause__ = reply
            return unavailable
    return reply


def raise_for_error(reply: Any) -> Any:
    """Return a reply of Redis, or raise it if it is an error."""
    result = reply_or_error(reply)
    if isinstance(result, Exception):
        raise result
    return result
