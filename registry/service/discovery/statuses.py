"""The words a filter may use for statuses."""

from collections.abc import Mapping

from registry.errors import Detail, MalformedRequest
from registry.model.agent import STATUSES, Status

_STATUS_ALIASES: Mapping[str, tuple[Status, ...]] = {
    **{status: (status,) for status in STATUSES},
    "unhealthy": ("degraded", "expired"),
    "offline": ("expired",),
    "any": STATUSES,
}


def expand_status(value: str, field: str) -> tuple[Status, ...]:
    """Return the statuses a filter word stands for. Raises MalformedRequest naming the words there are."""
    try:
        return _STATUS_ALIASES[value]
    except KeyError:
        problem = f"unknown status {value[:60]!r}; use one of {', '.join(_STATUS_ALIASES)}"
        raise MalformedRequest(f"{field}: {problem}", [Detail(field, problem)]) from None
