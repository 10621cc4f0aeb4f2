"""Classifies error replies of Redis: temporary unavailability, with a reason code, or a bug."""

import re
from collections.abc import Sequence
from typing import Any

from redis.exceptions import RedisError, ResponseError

from registry.errors import StoreUnavailable, WriteOutcome

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
# Replies to a command that this user may not run, or that was renamed, and to a key that it may not access. The name of
# the command is missing inside a script for a renamed command, and for every command before Redis 7.2.
_REFUSAL_TEXTS = (
    re.compile(r"no permissions to run the '(?P<command>[^']+)' command"),
    re.compile(r"unknown command '(?P<command>[^']*)'"),
    re.compile(r"Unknown (?:Redis )?command called from script(?P<command>)"),
    re.compile(r"The user executing the script can't run this command(?P<command>)"),
    re.compile(r"(?P<keys>o permissions to access (?:a|one of the) key|can't access at least one of the keys)"),
)
REFUSAL_ADVICE = "grant the permissions listed in the README, under the original names of the commands"
UNAVAILABLE_REASONS = frozenset(_REASON_BY_ERROR_CODE.values())
# Another server is the primary; this one did not execute the command.
REDIRECT_REASONS = frozenset({"moved", "read_only_replica"})
# This connection is useless; a new one may reach the right server.
WRONG_SERVER_REASONS = REDIRECT_REASONS | {"auth", "cluster_down", "master_down"}


def unavailable_reason(error: BaseException) -> str | None:
    """Return the reason code if an error means that Redis is unavailable, otherwise None."""
    code = getattr(error, "status_code", None) or str(error).partition(" ")[0]
    reason = _REASON_BY_ERROR_CODE.get(code)
    return "auth" if reason is None and refusal(error) is not None else reason


def refusal(error: object) -> str | None:
    """Return the command that an error reply refuses to this user, `a key of the mesh` if it refuses a key.

    Returns an empty text for a command that the reply does not name, and None if nothing is refused.
    """
    if not isinstance(error, ResponseError):
        return None
    found = next(filter(None, (text.search(str(error)) for text in _REFUSAL_TEXTS)), None)
    if found is None:
        return None
    return "a key of the mesh" if found.groupdict().get("keys") else found["command"].upper()


def access_error(refused: Sequence[str], outcome: WriteOutcome = "not_sent") -> StoreUnavailable:
    """Return the error for commands that Redis refuses."""
    message = f"Redis refuses {', '.join(refused)}; {REFUSAL_ADVICE}"
    return StoreUnavailable(message, outcome=outcome, reason="auth")


def reply_or_error(reply: Any) -> Any:
    """Return a reply unchanged, but convert an error of an unavailable Redis to StoreUnavailable."""
    if isinstance(reply, RedisError):
        reason = unavailable_reason(reply)
        if reason is not None:
            # Addresses of servers and arguments of commands belong in the log, not in responses.
            if refused := refusal(reply):
                unavailable = access_error([refused])
            elif reason in REDIRECT_REASONS:
                unavailable = StoreUnavailable("The Redis primary has moved; retry shortly", reason=reason)
            else:
                unavailable = StoreUnavailable(f"Redis cannot execute the command now: {reply}", reason=reason)
            unavailable.__cause__ = reply
            return unavailable
    return reply


def raise_for_error(reply: Any) -> Any:
    """Return a reply of Redis, or raise it if it is an error."""
    result = reply_or_error(reply)
    if isinstance(result, Exception):
        raise result
    return result
