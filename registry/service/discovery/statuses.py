"""The words a filter may use for statuses."""

from collections.abc import Mapping

from registry.errors import Detail, MalformedRequest
from registry.model.agent import STATUSES, Status

_MEANS: Mapping[str, tuple[Status, ...]] = {
    **{status: (status,) for status in STATUSES},
    "unhealthy": ("degraded", "expired"),
    "offline": ("expired",),
    "any": STATUSES,
}


def statuses(word: str, field: str) -> tuple[Status, ...]:
    """Return the statuses a filter word stands for. Raises MalformedRequest naming the words there are."""
    try:
        return _MEANS[word]
    except KeyError:
        problem = f"unknown status {word[:60]!r}; use one of {', '.join(_MEANS)}"
        raise MalformedRequest(f"{field}: {problem}", [Detail(field, problem)]) from None
