"""Query strings and headers, read value by value. What is not understood is refused, never ignored."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from urllib.parse import parse_qsl

from starlette.types import Scope

from registry.config.duration import parse_duration
from registry.errors import Detail, MalformedRequest

QueryParams = Mapping[str, Sequence[str]]

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_MAX_PARAMS = 100
_MAX_DIGITS = 20


def invalid(field: str, problem: str) -> MalformedRequest:
    """Return the refusal of one parameter."""
    return MalformedRequest(f"{field}: {problem}", [Detail(field, problem)])


def header(scope: Scope, name: bytes) -> str | None:
    """Return a header by its lower-case name, the first where it comes more than once; None where it does not come."""
    for each, value in scope["headers"]:
        if each == name:
            text: str = value.decode("latin-1")
            return text
    return None


def parse_query(query_string: bytes, allowed: Collection[str]) -> QueryParams:
    """Return a query string by name; an unknown name is refused with the nearest known one."""
    if not query_string:
        return {}
    try:
        pairs = parse_qsl(
            query_string.decode("ascii"), keep_blank_values=True, max_num_fields=_MAX_PARAMS, errors="strict"
        )
    except ValueError as error:
        raise MalformedRequest(f"Invalid query string: {error}") from error
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    reject_unknown(found, allowed)
    return found


def reject_unknown(names: Collection[str], allowed: Collection[str]) -> None:
    """Raise MalformedRequest naming every unknown parameter and the nearest known one."""
    unknown = [name for name in names if name not in allowed]
    if not unknown:
        return
    details = []
    for name in unknown[:_MAX_PARAMS]:
        near = difflib.get_close_matches(name, allowed, n=1)
        others = f"allowed: {', '.join(allowed)}" if allowed else "no parameters are allowed here"
        hint = f"did you mean {near[0]}?" if near else others
        details.append(Detail(name[:60], f"unknown parameter; {hint}"))
    raise MalformedRequest.of(details)


def reject_preconditions(headers: Collection[str], reason: str) -> None:
    """Refuse a precondition that would not be honoured; `headers` are found by name in any case."""
    for name in ("If-Match", "If-None-Match"):
        if name in headers:
            raise invalid(name, reason)


def single(params: QueryParams, name: str) -> str | None:
    """Return the value of a parameter that may come once. Blank is the same as not given."""
    values = params.get(name, ())
    if len(values) > 1:
        raise invalid(name, "given more than once")
    return values[0] if values and values[0] else None


def repeated(params: QueryParams, name: str) -> tuple[str, ...]:
    """Return the values of a parameter that may be repeated. Blank is the same as not given."""
    return tuple(value for value in params.get(name, ()) if value)


def comma_list(params: QueryParams, name: str) -> tuple[str, ...]:
    """Return the values of a parameter that may be repeated, or hold several joined by commas."""
    values = params.get(name, ())
    found = tuple(part for value in values for part in value.split(",") if part)
    if not found and any(values):
        raise invalid(name, "contains only commas")
    return found


def boolean(params: QueryParams, name: str) -> bool:
    """Read true, false, 1 or 0; false when not given."""
    return optional_bool(params, name) or False


def optional_bool(params: QueryParams, name: str) -> bool | None:
    """Read true, false, 1 or 0; None when not given."""
    text = single(params, name)
    if text is None:
        return None
    if text.lower() not in _BOOLEANS:
        raise invalid(name, f"expected true or false, got {text[:60]!r}")
    return _BOOLEANS[text.lower()]


def integer(params: QueryParams, name: str, minimum: int, maximum: int) -> int | None:
    """Read a whole number within bounds; None when not given."""
    text = single(params, name)
    if text is None:
        return None
    if not _is_decimal(text) or not minimum <= int(text) <= maximum:
        raise invalid(name, f"expected a whole number from {minimum} to {maximum}, got {text[:60]!r}")
    return int(text)


def duration_seconds(params: QueryParams, name: str, max_seconds: float) -> float | None:
    """Read a duration with a unit, or bare seconds as Kubernetes has them; None when not given."""
    text = single(params, name)
    if text is None:
        return None
    try:
        read = float(text) if _is_decimal(text) else parse_duration(text).total_seconds()
    except ValueError as error:
        raise invalid(name, str(error)) from error
    if read > max_seconds:
        raise invalid(name, f"expected at most {max_seconds:g}s, got {text[:60]!r}")
    return read


def resource_version(params: QueryParams, name: str) -> int | None:
    """Read a resource version; None when not given."""
    text = single(params, name)
    if text is None:
        return None
    if not _is_decimal(text):
        raise invalid(name, f"expected a decimal number, got {text[:60]!r}")
    return int(text)


def _is_decimal(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
