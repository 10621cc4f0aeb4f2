"""What is wrong with a document: paths, plain words, and a walk that finds every bad field at once.

msgspec checks fast and stops at the first mistake. A person wants all of them, so a document that was refused is
walked again here, along the same Struct definitions: a rule stands once, in the Struct, and `description` says in its
words what a value must be.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeAlias

import msgspec.inspect as types
import orjson

from registry.errors import Detail, UnprocessableRequest

# Linked from the leaf up: a step costs one small tuple, and only the path of a problem is ever written out.
Path: TypeAlias = "tuple[Path, str | int] | None"
Finding: TypeAlias = tuple[Path, str]

ROOT = "body"

_MOST_LISTED = 100
# A hostile body can be wrong in a million places; counting them would be its way to stop the registry.
_MOST_COUNTED = 1_000
_MOST_SHOWN = 60
_MOST_PATH = 240
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ABSENT = object()


def shown(value: object) -> str:
    """Say in a few words what was sent: a scalar by its text, at most 60 characters of it, anything else by its size."""
    match value:
        case str():
            rest = f"… ({len(value):,} characters)" if len(value) > _MOST_SHOWN else ""
            return _quoted(value[:_MOST_SHOWN]) + rest
        case list():
            return f"a list of {len(value):,}"
        case dict():
            return f"an object with {len(value):,} fields"
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        # Python refuses to write out an integer of more than 4,300 digits.
        case int() if value.bit_length() > _MOST_SHOWN * 3:
            return "a much longer number"
        case _:
            return str(value)


def _quoted(text: str) -> str:
    # A lone surrogate cannot be encoded; an answer that quotes one must be.
    return orjson.dumps(text.encode(errors="backslashreplace").decode()).decode()


def written(path: Path, prefix: str = "") -> str:
    """Write a path as a JavaScript programmer would: `capabilities[3].version`, `labels["bad key!"]`.

    `prefix` is where the document itself stands in the request, such as `registration_data.` or `agents[7].`; the
    document as a whole is the prefix without its dot, or `body`.
    """
    steps: list[str] = []
    while path is not None:
        path, step = path
        if isinstance(step, int):
            steps.append(f"[{step}]")
        elif len(step) <= _MOST_SHOWN and _PLAIN_KEY.fullmatch(step):
            steps.append(f".{step}")
        else:
            steps.append(f"[{_quoted(step[:_MOST_SHOWN]) + '…' * (len(step) > _MOST_SHOWN)}]")
    text = prefix.removesuffix(".") + "".join(reversed(steps))
    if len(text) > _MOST_PATH:
        text = f"{text[: _MOST_PATH // 2]}…{text[-_MOST_PATH // 4 :]}"
    return text.removeprefix(".") or ROOT


def refusal(subject: str, findings: Iterable[Finding], prefix: str = "") -> UnprocessableRequest:
    """Make one 422 of at least one finding; `subject` says what was refused, such as `The registration`.

    At most 100 findings become details; one more line then counts the rest, exactly up to 1,000. Nothing past those
    is looked for, so `findings` should be lazy.
    """
    found = list(islice(findings, _MOST_COUNTED))
    details = [Detail(written(path, prefix), problem) for path, problem in found[:_MOST_LISTED]]
    message = f"{subject} was refused: {details[0].field} {details[0].problem}"
    if len(found) > 1:
        message += f"; {len(found) - 1} more in details"
    if len(found) > _MOST_LISTED:
        least = "at least " * (len(found) == _MOST_COUNTED)
        details.append(Detail(written(None, prefix), f"… and {least}{len(found) - _MOST_LISTED} more"))
    return UnprocessableRequest(message, details)


def find_problems(value: object, kind: types.Type, path: Path = None) -> Iterator[Finding]:
    """Yield every place where `value` breaks the rules of `kind`, in the order of the definition.

    `kind` is what `msgspec.inspect.type_info` gives for a Struct or an annotation. Nothing is yielded exactly when
    `msgspec.convert` would accept the value.
    """
    kind, expected = _branch(kind, value)
    if not _fits(value, kind):
        yield path, f"must be {expected}, not {shown(value)}"
    elif isinstance(kind, types.StructType):
        yield from _in_struct(value, kind, path)
    elif isinstance(kind, types.ListType):
        yield from _in_list(value, kind.item_type, path)
    elif isinstance(kind, types.DictType):
        yield from _in_mapping(value, kind, path)


def _in_struct(value: Any, kind: types.StructType, path: Path) -> Iterator[Finding]:
    for field in kind.fields:
        inner = value.get(field.encode_name, _ABSENT)
        if inner is not _ABSENT:
            yield from find_problems(inner, field.type, (path, field.encode_name))
        elif field.required:
            yield (path, field.encode_name), f"is required: {_branch(field.type, inner)[1]}"


def _in_list(value: Any, kind: types.Type, path: Path) -> Iterator[Finding]:
    for position, item in enumerate(value):
        yield from find_problems(item, kind, (path, position))


def _in_mapping(value: Any, kind: types.DictType, path: Path) -> Iterator[Finding]:
    key_kind, key_expected = _branch(kind.key_type, "")
    for key, item in value.items():
        if not _fits(key, key_kind):
            yield (path, key), f"must have as its key {key_expected}"
        yield from find_problems(item, kind.value_type, (path, key))


def _branch(kind: types.Type, value: object, expected: str = "") -> tuple[types.Type, str]:
    """Unwrap `kind` down to the one type this value must fit, and the words for it."""
    if isinstance(kind, types.Metadata):
        words = (kind.extra_json_schema or {}).get("description", expected)
        return _branch(kind.type, value, words)
    if isinstance(kind, types.UnionType):
        branches = [_branch(each, value, expected) for each in kind.types]
        fallback = branches[0][0], expected or branches[0][1]
        return next((each for each in branches if _is_kind(value, each[0])), fallback)
    return kind, expected or _WORDS.get(type(kind), "something else")


_WORDS: dict[type[types.Type], str] = {
    types.StrType: "a string",
    types.IntType: "an integer",
    types.FloatType: "a number",
    types.ListType: "a list",
    types.DictType: "an object",
    types.StructType: "an object",
    types.NoneType: "null",
}

_JSON_KINDS: dict[type[types.Type], tuple[type, ...]] = {
    types.StrType: (str,),
    types.LiteralType: (str,),
    types.IntType: (int,),
    types.FloatType: (int, float),
    types.ListType: (list,),
    types.DictType: (dict,),
    types.StructType: (dict,),
    types.NoneType: (type(None),),
}


def _is_kind(value: object, kind: types.Type) -> bool:
    # By exact type: to Python, True is an int.
    return isinstance(kind, types.AnyType) or type(value) in _JSON_KINDS[type(kind)]


def _fits(value: Any, kind: types.Type) -> bool:
    """Tell whether the value itself is right, whatever it contains."""
    if not _is_kind(value, kind):
        return False
    match kind:
        case types.StrType():
            return _has_length(value, kind) and (kind.pattern is None or bool(re.search(kind.pattern, value)))
        case types.ListType() | types.DictType():
            return _has_length(value, kind)
        case types.FloatType():
            return (kind.gt is None or value > kind.gt) and (kind.le is None or value <= kind.le)
        case types.LiteralType():
            return value in kind.values
        case _:
            return True


def _has_length(
    value: str | list[Any] | dict[str, Any], kind: types.StrType | types.ListType | types.DictType
) -> bool:
    return (kind.min_length or 0) <= len(value) and (kind.max_length is None or len(value) <= kind.max_length)
