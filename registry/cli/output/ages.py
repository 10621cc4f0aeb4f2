"""Short texts for durations, such as `42s` or `3h`."""

from datetime import datetime

_UNITS = ((120, 1, "s"), (7200, 60, "m"), (172_800, 3600, "h"))
_SECONDS_PER_DAY = 86_400


def age(timestamp: object, now: object) -> str | None:
    """Return the time between two timestamps as a short text such as `42s`; None without the first timestamp."""
    if not isinstance(timestamp, str) or not timestamp:
        return None
    try:
        seconds = (datetime.fromisoformat(str(now)) - datetime.fromisoformat(timestamp)).total_seconds()
    except (ValueError, TypeError):
        return timestamp
    return format_age(seconds)


def format_age(seconds: float) -> str:
    """Return a duration as a short text such as `3h`, rounded down to one unit."""
    whole = max(0, int(seconds))
    for limit, unit, letter in _UNITS:
        if whole < limit:
            return f"{whole // unit}{letter}"
    return f"{whole // _SECONDS_PER_DAY}d"
