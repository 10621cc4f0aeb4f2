"""Parses the precondition of a registration from `resource_version`, If-Match and If-None-Match."""

import re
from typing import Final

from registry.errors import Detail

_ENTITY_TAG_PATTERN = re.compile(r'(?:W/)?"(\d+)"|(\d+)')
# No resource version has more digits.
_MAX_VERSION_DIGITS: Final = 20


def parse_preconditions(
    resource_version: str | None, if_match: str | None, if_none_match: str | None, problems: list[Detail]
) -> str:
    """Return the precondition of a registration: `absent`, `present`, a resource version, or '' for none.

    Errors in the fields, and conflicts between them, are appended to `problems`.
    """
    preconditions = {
        _parse_version("resource_version", resource_version, problems),
        _parse_version("If-Match", if_match, problems),
        _parse_if_none_match(if_none_match, problems),
    } - {""}
    if len(preconditions) > 1:
        problems.append(Detail("resource_version", "conflicts with the precondition in the headers; send only one"))
    return next(iter(preconditions), "")


def _parse_version(field: str, text: str | None, problems: list[Detail]) -> str:
    """Parse a version in a precondition (`N`, `"N"` or `W/"N"`, in If-Match also `*`); 0 means a new agent."""
    if text is None:
        return ""
    if text.strip() == "*" and field == "If-Match":
        return "present"
    found = _ENTITY_TAG_PATTERN.fullmatch(text.strip())
    digits = (found[1] or found[2]) if found else ""
    if not digits.isascii() or not 0 < len(digits) <= _MAX_VERSION_DIGITS:
        problems.append(Detail(field, f"expected a resource version, a decimal number, got {text[:60]!r}"))
        return ""
    return str(int(digits)) if int(digits) else "absent"


def _parse_if_none_match(text: str | None, problems: list[Detail]) -> str:
    if text is None:
        return ""
    if text.strip() != "*":
        problems.append(Detail("If-None-Match", "only * is supported: register only if the agent does not exist"))
        return ""
    return "absent"
