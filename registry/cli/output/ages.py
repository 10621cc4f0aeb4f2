"""How long ago something was, by the registry's clock, in as few letters as tell it."""

from datetime import datetime

_UNITS = ((120, 1, "s"), (7200, 60, "m"), (172_800, 3600, "h"))
_SECONDS_PER_DAY = 86_400


def age(timestamp: object, now: object) -> str | None:
    """Return the time between two moments of an answer, such as `42s`; None where there was no first one."""
    if not isinstance(timestamp, str) or not timestamp:
        return None
    try:
        seconds = (datetime.fromisoformat(str(now)) - datetime.fromisoformat(timestamp)).total_seconds()
    except (ValueError, TypeError):
        return timestamp
    return format_age(seconds)


def format_age(seconds: float) -> str:
    """Return a duration, rounded down to one unit."""
    whole = max(0, int(seconds))
    for below, unit, letter in _UNITS:
        if whole < below:
            return f"{whole // unit}{letter}"
    return f"{whole // _SECONDS_PER_DAY}d"
