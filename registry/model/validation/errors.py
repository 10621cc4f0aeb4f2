"""Combines validation errors, each with a path and a text, into one error with status 422."""

import re
from collections.abc import Iterable
from itertools import islice
from typing import TypeAlias

import orjson

from registry.errors import Detail, UnprocessableRequest

# Each step is linked to its parent and costs one small tuple; only the paths of violations are formatted.
Path: TypeAlias = "tuple[Path, str | int] | None"
Violation: TypeAlias = tuple[Path, str]

_MAX_LISTED_VIOLATIONS = 100
# A hostile body can have a million violations; counting all of them would block the registry.
_MAX_COUNTED_VIOLATIONS = 1_000
_MAX_SHOWN_CHARS = 60
_MAX_PATH_CHARS = 240
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def describe_value(value: object) -> str:
    """Describe a rejected value: up to 60 characters of a string, or the size of a list or object.

    A user and a password before an @ are masked, as in a URL.
    """
    match value:
        case str():
            user, at, host = value.rpartition("@")
            if ":" in user:
                value = f"***{at}{host}"
            rest = f"… ({len(value):,} characters)" if len(value) > _MAX_SHOWN_CHARS else ""
            return _quote(value[:_MAX_SHOWN_CHARS]) + rest
        case list():
            return f"a list of length {len(value):,}"
        case dict():
            return f"an object of size {len(value):,}"
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        # Python refuses to write out an integer of more than 4,300 digits.
        case int() if value.bit_length() > _MAX_SHOWN_CHARS * 3:
            return "a much longer number"
        case _:
            return str(value)


def _quote(text: str) -> str:
    # A lone surrogate cannot be encoded, but the response that quotes it must be.
    return orjson.dumps(text.encode(errors="backslashreplace").decode()).decode()


def format_path(path: Path, prefix: str = "") -> str:
    """Format a path in JavaScript syntax: `capabilities[3].version`, `labels["bad key!"]`.

    `prefix` is the place of the document in the request, such as `registration_data.` or `agents[7].`; the document as
    a whole is the prefix without its dot, or `body`.
    """
    steps: list[str] = []
    while path is not None:
        path, step = path
        if isinstance(step, int):
            steps.append(f"[{step}]")
        elif len(step) <= _MAX_SHOWN_CHARS and _IDENTIFIER.fullmatch(step):
            steps.append(f".{step}")
        else:
            steps.append(f"[{_quote(step[:_MAX_SHOWN_CHARS]) + '…' * (len(step) > _MAX_SHOWN_CHARS)}]")
    text = (prefix.removesuffix(".") + "".join(reversed(steps))).removeprefix(".") or "body"
    return text if len(text) <= _MAX_PATH_CHARS else f"{text[: _MAX_PATH_CHARS // 2]}…{text[-_MAX_PATH_CHARS // 4 :]}"


def validation_error(subject: str, violations: Iterable[Violation], prefix: str = "") -> UnprocessableRequest:
    """Return one error with status 422 for all violations; `subject` names the document, such as `The registration`.

    At most 100 violations become details; one more detail has the number of the others. Only 1,000 violations are
    consumed and counted, so `violations` should be lazy. Without violations the error names the document as a whole.
    """
    found = list(islice(violations, _MAX_COUNTED_VIOLATIONS)) or [(None, "contains a value that cannot be stored")]
    details = [Detail(format_path(path, prefix), problem) for path, problem in found[:_MAX_LISTED_VIOLATIONS]]
    message = f"{subject} was refused: {details[0].field} {details[0].problem}"
    if len(found) > 1:
        message += f"; {len(found) - 1} more in details"
    if len(found) > _MAX_LISTED_VIOLATIONS:
        least = "at least " * (len(found) == _MAX_COUNTED_VIOLATIONS)
        details.append(Detail(format_path(None, prefix), f"… and {least}{len(found) - _MAX_LISTED_VIOLATIONS} more"))
    return UnprocessableRequest(message, details)
