"""Durations: numbers of seconds, or texts with a unit."""

import re

from mcp_mesh_client.errors import InvalidData

_NUMBER = r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
_SECONDS = re.compile(_NUMBER)
_TEXT = re.compile("".join(rf"(?:{_NUMBER}\s*{unit}\s*)?" for unit in ("d", "h", "m", "s", "ms")))
_UNITS_S = (86_400.0, 3600.0, 60.0, 1.0, 0.001)
_MAX_DURATION_S = 365 * 24 * 3600.0


def to_seconds(value: float | str, field: str) -> float:
    """Return a duration in seconds: a number of seconds, or a text such as 5, 500ms or 1h30m.

    A number is not checked. Raises InvalidData for another text.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    found = _TEXT.fullmatch(text)
    if not text or found is None:
        raise InvalidData(
            field, f"{field}: expected a number of seconds, or a text such as 500ms or 1h30m, not {value!r:.100}"
        )
    return sum(float(number) * unit for number, unit in zip(found.groups(), _UNITS_S, strict=True) if number)


def check_duration(value: object, field: str) -> float:
    """Return a duration in seconds: a number of seconds, or a text such as 5, 500ms or 1h30m.

    Raises InvalidData unless it is positive and at most a year.
    """
    seconds = to_seconds(value, field) if isinstance(value, str) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= _MAX_DURATION_S:
        raise InvalidData(
            field, f"{field}: expected seconds above 0, or a text such as 500ms or 2m, not {value!r:.100}"
        )
    return float(seconds)
