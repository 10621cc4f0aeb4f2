"""Readers of query parameters and headers; an unknown parameter or an invalid value is rejected, never ignored."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from urllib.parse import parse_qsl

from starlette.types import Scope

from registry.duration import parse_duration
from registry.errors import Detail, MalformedRequest

QueryParams = Mapping[str, Sequence[str]]

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_MAX_QUERY_BYTES = 8 * 1024
_MAX_VALUES_PER_PARAM = 100
# As in a registration: no name, tag or category is longer.
_MAX_TEXT_CHARS = 253
_MAX_UNKNOWN_PARAMS_SHOWN = 100
_MAX_DIGITS = 20


def invalid(field: str, problem: str) -> MalformedRequest:
    """Return the error for one invalid query parameter."""
    return MalformedRequest.of([Detail(field, problem)])


def header(scope: Scope, name: bytes) -> str | None:
    """Return the value of the first request header with a lower-case name; None if there is none."""
    for key, value in scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1")
            return text
    return None


def parse_query(query_string: bytes, allowed: Collection[str]) -> QueryParams:
    """Parse a query string. Raises MalformedRequest above 8 KiB, and for a parameter that is not in `allowed`."""
    if not query_string:
        return {}
    if len(query_string) > _MAX_QUERY_BYTES:
        longest = max(query_string.split(b"&"), key=len).partition(b"=")[0]
        size = f"{len(query_string):,} bytes, of which this parameter has the most; at most {_MAX_QUERY_BYTES:,}"
        raise invalid(longest[:60].decode("ascii", "replace"), f"the query string has {size} are allowed")
    try:
        pairs = parse_qsl(query_string.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise MalformedRequest(f"Invalid query string: {error}") from error
    params: dict[str, list[str]] = {}
    for name, value in pairs:
        params.setdefault(name, []).append(value)
    reject_unknown(params, allowed)
    return params


def reject_unknown(names: Collection[str], allowed: Collection[str]) -> None:
    """Raise MalformedRequest that names each unknown query parameter and the most similar allowed one."""
    unknown = [name for name in names if name not in allowed]
    if not unknown:
        return
    details = []
    for name in unknown[:_MAX_UNKNOWN_PARAMS_SHOWN]:
        similar = difflib.get_close_matches(name, allowed, n=1)
        allowed_names = f"allowed: {', '.join(allowed)}" if allowed else "no parameters are allowed here"
        hint = f"did you mean {similar[0]}?" if similar else allowed_names
        details.append(Detail(name[:60], f"unknown parameter; {hint}"))
    raise MalformedRequest.of(details)


def reject_preconditions(headers: Collection[str], reason: str) -> None:
    """Raise an error for precondition headers on a call that does not support preconditions."""
    for name in ("If-Match", "If-None-Match"):
        if name in headers:
            raise invalid(name, reason)


def single(params: QueryParams, name: str) -> str | None:
    """Return the value of a query parameter that may occur once; an empty value counts as absent."""
    values = params.get(name, ())
    if len(values) > 1:
        raise invalid(name, "given more than once")
    return values[0] if values and values[0] else None


def single_text(params: QueryParams, name: str) -> str | None:
    """Return the value of a query parameter that is a name or a text of at most 253 characters."""
    value = single(params, name)
    if value is not None:
        _limit_values(name, (value,))
    return value


def repeated(params: QueryParams, name: str) -> tuple[str, ...]:
    """Return the values of a query parameter that may be repeated 100 times; empty values count as absent."""
    values = tuple(value for value in params.get(name, ()) if value)
    _limit_values(name, values)
    return values


def _limit_values(name: str, values: Sequence[str]) -> None:
    if len(values) > _MAX_VALUES_PER_PARAM:
        raise invalid(name, f"has {len(values):,} values; at most {_MAX_VALUES_PER_PARAM} are allowed")
    longest = max(map(len, values), default=0)
    if longest > _MAX_TEXT_CHARS:
        raise invalid(name, f"has a value of {longest:,} characters; at most {_MAX_TEXT_CHARS} are allowed")


def comma_list(params: QueryParams, name: str) -> tuple[str, ...]:
    """Return the values of a query parameter that may be repeated and comma-separated, at most 100."""
    values = params.get(name, ())
    parts = tuple(part for value in values for part in value.split(",") if part)
    if not parts and any(values):
        raise invalid(name, "contains only commas")
    _limit_values(name, parts)
    return parts


def boolean(params: QueryParams, name: str) -> bool:
    """Return the value of a boolean query parameter (true, false, 1 or 0); false if it is absent."""
    return optional_bool(params, name) or False


def optional_bool(params: QueryParams, name: str) -> bool | None:
    """Return the value of a boolean query parameter (true, false, 1 or 0); None if it is absent."""
    text = single(params, name)
    if text is None:
        return None
    if text.lower() not in _BOOLEANS:
        raise invalid(name, f"expected true or false, got {text[:60]!r}")
    return _BOOLEANS[text.lower()]


def integer(params: QueryParams, name: str, minimum: int, maximum: int) -> int | None:
    """Return a whole number from a query parameter, between `minimum` and `maximum`; None if it is absent."""
    text = single(params, name)
    if text is None:
        return None
    if not _is_decimal(text) or not minimum <= int(text) <= maximum:
        raise invalid(name, f"expected a whole number from {minimum} to {maximum}, got {text[:60]!r}")
    return int(text)


def duration_seconds(params: QueryParams, name: str, max_seconds: float) -> float | None:
    """Return a duration from a query parameter in seconds, with or without a unit; None if it is absent."""
    text = single(params, name)
    if text is None:
        return None
    try:
        seconds = float(text) if _is_decimal(text) else parse_duration(text).total_seconds()
    except ValueError as error:
        raise invalid(name, str(error)) from error
    if seconds > max_seconds:
        raise invalid(name, f"expected at most {max_seconds:g}s, got {text[:60]!r}")
    return seconds


def resource_version(params: QueryParams, name: str) -> int | None:
    """Return a resource version from a query parameter; None if it is absent."""
    text = single(params, name)
    if text is None:
        return None
    if not _is_decimal(text):
        raise invalid(name, f"expected a decimal number, got {text[:60]!r}")
    return int(text)


def _is_decimal(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
