"""How long ago something was, by the registry's clock, in as few letters as tell it."""

from datetime import datetime

_STEPS = ((120, 1, "s"), (7200, 60, "m"), (172_800, 3600, "h"))
_DAY = 86_400


def since(moment: object, now: object) -> str | None:
    """Return the time between two moments of an answer, such as `42s`; None where there was no first one."""
    if not isinstance(moment, str) or not moment:
        return None
    try:
        seconds = (datetime.fromisoformat(str(now)) - datetime.fromisoformat(moment)).total_seconds()
    except (ValueError, TypeError):
        return moment
    return lasting(seconds)


def lasting(seconds: float) -> str:
    """Return a duration, rounded down to one unit."""
    whole = max(0, int(seconds))
    for below, unit, letter in _STEPS:
        if whole < below:
            return f"{whole // unit}{letter}"
    return f"{whole // _DAY}d"
