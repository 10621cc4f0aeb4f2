"""Query strings and headers, read value by value. What is not understood is refused, never ignored."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from urllib.parse import parse_qsl

from starlette.types import Scope

from registry.config.duration import parse_duration
from registry.errors import Detail, MalformedRequest

Given = Mapping[str, Sequence[str]]

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_MOST = 100
_LONGEST_NUMBER = 20


def bad(field: str, problem: str) -> MalformedRequest:
    """Return the refusal of one parameter."""
    return MalformedRequest(f"{field}: {problem}", [Detail(field, problem)])


def header(scope: Scope, name: bytes) -> str | None:
    """Return a header by its lower-case name, the first where it comes more than once; None where it does not come."""
    for each, value in scope["headers"]:
        if each == name:
            text: str = value.decode("latin-1")
            return text
    return None


def parameters(raw: bytes, known: Collection[str]) -> Given:
    """Return a query string by name; an unknown name is refused with the nearest known one."""
    if not raw:
        return {}
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST, errors="strict")
    except ValueError as error:
        raise MalformedRequest(f"The query string cannot be read: {error}") from error
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    refuse_unknown(found, known)
    return found


def refuse_unknown(given: Collection[str], known: Collection[str]) -> None:
    """Raise MalformedRequest naming every unknown parameter and the nearest known one."""
    unknown = [name for name in given if name not in known]
    if not unknown:
        return
    details = []
    for name in unknown[:_MOST]:
        near = difflib.get_close_matches(name, known, n=1)
        others = f"known are {', '.join(known)}" if known else "there are none here"
        hint = f"did you mean {near[0]}?" if near else others
        details.append(Detail(name[:60], f"unknown parameter; {hint}"))
    raise MalformedRequest(f"{details[0].field}: {details[0].problem}", details)


def refuse_preconditions(headers: Collection[str], reason: str) -> None:
    """Refuse a precondition that would not be honoured; `headers` are found by name in any case."""
    for name in ("If-Match", "If-None-Match"):
        if name in headers:
            raise bad(name, reason)


def one(given: Given, name: str) -> str | None:
    """Return the value of a parameter that may come once. Blank is the same as not given."""
    values = given.get(name, ())
    if len(values) > 1:
        raise bad(name, "given more than once")
    return values[0] if values and values[0] else None


def several(given: Given, name: str) -> tuple[str, ...]:
    """Return the values of a parameter that may be repeated. Blank is the same as not given."""
    return tuple(value for value in given.get(name, ()) if value)


def joined(given: Given, name: str) -> tuple[str, ...]:
    """Return the values of a parameter that may be repeated, or hold several joined by commas."""
    values = given.get(name, ())
    found = tuple(part for value in values for part in value.split(",") if part)
    if not found and any(values):
        raise bad(name, "holds nothing but commas")
    return found


def boolean(given: Given, name: str) -> bool:
    """Read true, false, 1 or 0; false when not given."""
    return flag(given, name) or False


def flag(given: Given, name: str) -> bool | None:
    """Read true, false, 1 or 0; None when not given."""
    text = one(given, name)
    if text is None:
        return None
    if text.lower() not in _BOOLEANS:
        raise bad(name, f"expected true or false, got {text[:60]!r}")
    return _BOOLEANS[text.lower()]


def whole(given: Given, name: str, least: int, most: int) -> int | None:
    """Read a whole number within bounds; None when not given."""
    text = one(given, name)
    if text is None:
        return None
    if not _is_number(text) or not least <= int(text) <= most:
        raise bad(name, f"expected a whole number from {least} to {most}, got {text[:60]!r}")
    return int(text)


def seconds(given: Given, name: str, most: float) -> float | None:
    """Read a duration with a unit, or bare seconds as Kubernetes has them; None when not given."""
    text = one(given, name)
    if text is None:
        return None
    try:
        read = float(text) if _is_number(text) else parse_duration(text).total_seconds()
    except ValueError as error:
        raise bad(name, str(error)) from error
    if read > most:
        raise bad(name, f"expected at most {most:g}s, got {text[:60]!r}")
    return read


def version(given: Given, name: str) -> int | None:
    """Read a resource version; None when not given."""
    text = one(given, name)
    if text is None:
        return None
    if not _is_number(text):
        raise bad(name, f"expected a decimal number, got {text[:60]!r}")
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _LONGEST_NUMBER
