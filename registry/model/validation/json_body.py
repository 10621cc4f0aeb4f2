"""Decodes JSON request bodies within limits of number size and nesting depth.

A decoded document can be encoded again unchanged: every string is Unicode, every number fits 64 bits or a double, and
the nesting is limited so that recursive code cannot exhaust the stack.
"""

import json
import math
from collections.abc import Iterator
from typing import Any, NoReturn

import msgspec
import orjson

from registry.errors import MalformedRequest
from registry.model.validation.errors import Path, Violation, validation_error

MAX_DEPTH = 64
"""Maximum nesting of lists and objects, including the outermost."""

_MIN_INTEGER = -(2**63)
_MAX_INTEGER = 2**64 - 1

_decode = msgspec.json.Decoder().decode


def decode_json_body(body: bytes) -> Any:
    """Decode a JSON body; if a key occurs twice, its last value is used.

    Raises:
        MalformedRequest: it is not UTF-8 or not JSON (NaN, Infinity, lone surrogates). Names the position.
        UnprocessableRequest: it is nested deeper than 64, an integer is outside -2^63 to 2^64-1, or another
            number is outside the range of a double. Names each one by its path.
    """
    try:
        document = _decode(body)
        # orjson encodes integers of up to 64 bits only: the fastest way to check the range of all numbers.
        orjson.dumps(document)
    except RecursionError:
        raise validation_error("The body", [(None, _TOO_DEEP)]) from None
    except (msgspec.ValidationError, orjson.JSONEncodeError):
        _raise_for_numbers(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _malformed_request(body, error) from None
    # The depth cannot exceed the number of opening brackets, so that most bodies need no traversal.
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _exceeds_max_depth(document):
        raise validation_error("The body", find_violations(document))
    return document


def find_violations(document: object) -> Iterator[Violation]:
    """Yield every number that is too large and every list or object that is nested too deep."""
    stack: list[tuple[Path, object, int]] = [(None, document, 0)]
    while stack:
        path, value, depth = stack.pop()
        if isinstance(value, int):
            if not _MIN_INTEGER <= value <= _MAX_INTEGER:
                yield path, "must be an integer from -2^63 to 2^64-1; send a longer one as a string"
        elif isinstance(value, float):
            if not math.isfinite(value):
                yield path, "must be a number within the range of a double, about 1.8e308"
        elif isinstance(value, dict | list):
            if depth == MAX_DEPTH:
                yield path, _TOO_DEEP
                continue
            steps = list(value.items() if isinstance(value, dict) else enumerate(value))
            stack.extend(((path, step), inner, depth + 1) for step, inner in reversed(steps))


_TOO_DEEP = f"must not be nested deeper than {MAX_DEPTH}"


def _exceeds_max_depth(document: object) -> bool:
    level: list[Any] = [[document]]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
        if not level:
            return False
    return True


def _raise_for_numbers(body: bytes) -> NoReturn:
    """Decode a rejected body again with numbers of any size, and raise an error with the ones that are too large."""
    try:
        document = json.loads(body, parse_int=_parse_integer, parse_constant=_reject_constant)
    except RecursionError:
        raise validation_error("The body", [(None, _TOO_DEEP)]) from None
    except ValueError as error:
        raise _malformed_request(body, error) from None
    raise validation_error("The body", find_violations(document))


def _parse_integer(digits: str) -> int:
    # Python rejects more than 4,300 digits; the first 40 are enough to see that the number is too large.
    return int(digits[:40])


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _malformed_request(body: bytes, error: Exception) -> MalformedRequest:
    """Return the error for a body that is not JSON; its message contains the position of the first error."""
    if not body.strip():
        return MalformedRequest("The body is empty; send a JSON object")
    problem = str(error)
    try:
        # The position in the error of msgspec is relative to one string, not to the body.
        body.decode()
        orjson.loads(body)
    except UnicodeDecodeError as wrong:
        problem = f"byte {body[wrong.start]:#04x} at offset {wrong.start} is not UTF-8"
    except orjson.JSONDecodeError as wrong:
        problem = str(wrong)
    return MalformedRequest(f"The body is not JSON: {problem}")
