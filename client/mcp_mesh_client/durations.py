"""Durations: numbers of seconds, or texts with a unit."""

import re

from mcp_mesh_client.errors import InvalidData

_TEXT = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(ms|s|m|h|)", re.ASCII)
_UNITS_S = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}
_MAX_DURATION_S = 365 * 24 * 3600.0


def check_duration(value: object, field: str) -> float:
    """Return a duration in seconds: a number of seconds, or a text such as 5, 5s, 500ms or 2m.

    Raises InvalidData unless it is positive and at most a year.
    """
    seconds = value
    if isinstance(value, str) and (match := _TEXT.fullmatch(value.strip())):
        seconds = float(match[1]) * _UNITS_S[match[2]]
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= _MAX_DURATION_S:
        raise InvalidData(
            field, f"{field}: expected seconds above 0, or a text such as 500ms or 2m, not {value!r:.100}"
        )
    return float(seconds)
