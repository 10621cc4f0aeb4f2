"""Rules that apply to every request before it is routed, each with its exemptions."""

from typing import Final
from urllib.parse import unquote

VERSION_PREFIX: Final = "/api/v1"
# Path parameters that clients may percent-encode: an id may contain colons and dots, a hash and a target a colon.
_ENCODABLE_PARAMS: Final = frozenset({"agent_id", "hash", "target"})


def route_path(raw_path: bytes) -> str:
    """Return the path by which a request is routed: the path as sent, without /api/v1 and trailing slashes.

    No other spelling of a path is accepted, so that a rule of a load balancer on a path holds for every request.
    """
    path = raw_path.decode("latin-1").rstrip("/")
    if path.startswith(VERSION_PREFIX) and path[len(VERSION_PREFIX) : len(VERSION_PREFIX) + 1] in ("", "/"):
        path = path[len(VERSION_PREFIX) :]
    return path or "/"


def decode_path_param(name: str, value: str) -> str | None:
    """Return a percent-encoded path parameter decoded, up to its first slash; None if it must not be encoded there."""
    segment, slash, rest = value.partition("/")
    if "%" in rest or ("%" in segment and name not in _ENCODABLE_PARAMS):
        return None
    return f"{unquote(segment)}{slash}{rest}"
