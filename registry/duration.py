"""Durations as text: a number of seconds, a number and a unit, `30s`, `1.5m`, or a sequence of these, `1h30m`."""

import re
from datetime import timedelta

MAX_DURATION = timedelta(days=366)

_NUMBER_PATTERN = r"([0-9]{1,12}(?:\.[0-9]{1,9})?)"
# From the largest unit to the smallest, each at most once: `30m1h` is probably a typing error.
_DURATION_PATTERN = re.compile("".join(f"(?:{_NUMBER_PATTERN}{unit})?" for unit in ("d", "h", "m", "s", "ms")))
_EXPECTED_FORMAT = (
    "expected a number of seconds, or a duration with a unit such as 500ms, 30s, 1.5m, 2h, 7d or 1h30m, "
    f"above 0 and at most {MAX_DURATION.days}d"
)


def parse_duration(text: str) -> timedelta:
    """Parse `500ms`, `30s`, `1.5m`, `2h`, `7d` or a sequence such as `1h30m`; a number without a unit is seconds.

    Blanks around the text are ignored. Raises ValueError for text that is not a duration, not above 0, or more than
    366 days; the message describes the format.
    """
    text = text.strip()
    match = _DURATION_PATTERN.fullmatch(f"{text}s" if re.fullmatch(_NUMBER_PATTERN, text) else text)
    if match is None:
        raise ValueError(_EXPECTED_FORMAT)
    days, hours, minutes, seconds, milliseconds = (float(number or 0) for number in match.groups())
    try:
        duration = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds, milliseconds=milliseconds)
    except OverflowError:
        raise ValueError(_EXPECTED_FORMAT) from None
    if not timedelta(0) < duration <= MAX_DURATION:
        raise ValueError(_EXPECTED_FORMAT)
    return duration


def format_duration(duration: timedelta) -> str:
    """Format a duration as `parse_duration` parses it: `1h30m`, `2.5s`, `500ms`; zero is `0s`."""
    if duration < timedelta(0):
        return f"-{format_duration(-duration)}"
    if timedelta(0) < duration < timedelta(seconds=1):
        return f"{_format_quotient(duration.microseconds, 1000)}ms"
    minutes, seconds = divmod(duration.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((duration.days, "d"), (hours, "h"), (minutes, "m"))
    text = "".join(f"{number}{unit}" for number, unit in parts if number)
    microseconds = seconds * 1_000_000 + duration.microseconds
    return f"{text}{_format_quotient(microseconds, 1_000_000)}s" if microseconds or not text else text


def _format_quotient(dividend: int, divisor: int) -> str:
    """Format `dividend / divisor` exactly; `divisor` is a power of ten."""
    whole, fraction = divmod(dividend, divisor)
    digits = str(divisor + fraction)[1:].rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)
