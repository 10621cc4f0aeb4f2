"""The rules of a msgspec Struct, read for a second, slower look that finds every bad field.

msgspec checks fast and stops at the first mistake. A person wants all of them, so a document that was refused
is walked again here. Nothing is ruled twice: the rules come from the Struct's own annotations, and the
`description` beside each says in words what a value must be.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec
import msgspec.inspect as types

from registry.model.validation.errors import Path, Violation, describe_value


@dataclass(frozen=True, slots=True)
class TypeCheck:
    """The rule for values of one JSON kind: what the value must be, and how to look inside it."""

    expected: str
    is_valid: Callable[[Any], bool]
    find_nested: Callable[[Any, Path], Iterator[Violation]] | None = None


@dataclass(frozen=True, slots=True)
class Validator:
    """What a value must be: in words, and by the exact Python type it was read as.

    By the exact type, because to Python True is an int.
    """

    expected: str
    checks_by_type: Mapping[type, TypeCheck]

    def find_violations(self, value: object, path: Path = None) -> Iterator[Violation]:
        """Yield every place in `value` that breaks the rule, in the order of its definition.

        Nothing is yielded exactly when `msgspec.convert` accepts the value.
        """
        branch = self.checks_by_type.get(type(value))
        if branch is None or not branch.is_valid(value):
            yield path, f"must be {(branch or self).expected}, not {describe_value(value)}"
        elif branch.find_nested is not None:
            yield from branch.find_nested(value, path)


def validator_for(schema: type[msgspec.Struct]) -> Validator:
    """Read the rule that a Struct and the annotations of its fields make."""
    return _build_validator(types.type_info(schema), "")


def _build_validator(kind: types.Type, expected: str) -> Validator:
    """Read one type; `expected` are the words for it where it has no description of its own."""
    match kind:
        case types.Metadata():
            return _build_validator(kind.type, (kind.extra_json_schema or {}).get("description", expected))
        case types.UnionType():
            rules = [_build_validator(each, expected) for each in kind.types]
            words = [rule.expected for rule in rules if type(None) not in rule.checks_by_type]
            branches = {sort: branch for rule in rules for sort, branch in rule.checks_by_type.items()}
            return Validator(expected or " or ".join(words), branches)
        case _:
            words_for, sorts, fits, look_inside = _PLAIN_TYPES[type(kind)](kind)
            branch = TypeCheck(expected or words_for, fits, look_inside)
            return Validator(branch.expected, dict.fromkeys(sorts, branch))


def _accept_any(_: object) -> bool:
    return True


def _check_length(kind: types.StrType | types.ListType | types.DictType) -> Callable[[Any], bool]:
    least, most = kind.min_length or 0, math.inf if kind.max_length is None else kind.max_length
    return lambda value: least <= len(value) <= most


def _check_text(kind: types.StrType) -> Callable[[str], bool]:
    has_length = _check_length(kind)
    if kind.pattern is None:
        return has_length
    search = re.compile(kind.pattern).search
    return lambda value: has_length(value) and search(value) is not None


def _check_number(kind: types.IntType | types.FloatType) -> Callable[[float], bool]:
    above, least = (-math.inf if bound is None else bound for bound in (kind.gt, kind.ge))
    below, most = (math.inf if bound is None else bound for bound in (kind.lt, kind.le))
    return lambda value: above < value < below and least <= value <= most


def _list_finder(item_validator: Validator) -> Callable[[list[Any], Path], Iterator[Violation]]:
    branches = item_validator.checks_by_type

    def look(items: list[Any], path: Path) -> Iterator[Violation]:
        for place, item in enumerate(items):
            # Most items are right and hold nothing: passing those over here is what keeps a large body cheap.
            branch = branches.get(type(item))
            if branch is None or branch.find_nested is not None or not branch.is_valid(item):
                yield from item_validator.find_violations(item, (path, place))

    return look


def _mapping_finder(
    key_validator: Validator, value_validator: Validator
) -> Callable[[dict[str, Any], Path], Iterator[Violation]]:
    fits_key = key_validator.checks_by_type[str].is_valid

    def look(items: dict[str, Any], path: Path) -> Iterator[Violation]:
        for key, item in items.items():
            if not fits_key(key):
                yield (path, key), f"must have as its key {key_validator.expected}"
            yield from value_validator.find_violations(item, (path, key))

    return look


def _struct_finder(kind: types.StructType) -> Callable[[dict[str, Any], Path], Iterator[Violation]]:
    fields = [(field.encode_name, field.required, _build_validator(field.type, "")) for field in kind.fields]

    def look(value: dict[str, Any], path: Path) -> Iterator[Violation]:
        for name, required, rule in fields:
            if name in value:
                yield from rule.find_violations(value[name], (path, name))
            elif required:
                yield (path, name), f"is required: {rule.expected}"

    return look


_PlainType: TypeAlias = tuple[
    str, tuple[type, ...], Callable[[Any], bool], Callable[[Any, Path], Iterator[Violation]] | None
]

# For each type that wraps no other: its words, the Python types of its values, the check, the way inside.
_PLAIN_TYPES: dict[type[types.Type], Callable[[Any], _PlainType]] = {
    types.AnyType: lambda _: ("any value", (str, int, float, bool, type(None), list, dict), _accept_any, None),
    types.BoolType: lambda _: ("true or false", (bool,), _accept_any, None),
    types.NoneType: lambda _: ("null", (type(None),), _accept_any, None),
    types.StrType: lambda kind: ("a string", (str,), _check_text(kind), None),
    types.LiteralType: lambda kind: ("a known word", (str,), frozenset(kind.values).__contains__, None),
    types.IntType: lambda kind: ("an integer", (int,), _check_number(kind), None),
    types.FloatType: lambda kind: ("a number", (int, float), _check_number(kind), None),
    types.ListType: lambda kind: (
        "a list",
        (list,),
        _check_length(kind),
        _list_finder(_build_validator(kind.item_type, "")),
    ),
    types.DictType: lambda kind: (
        "an object",
        (dict,),
        _check_length(kind),
        _mapping_finder(_build_validator(kind.key_type, ""), _build_validator(kind.value_type, "")),
    ),
    types.StructType: lambda kind: ("an object", (dict,), _accept_any, _struct_finder(kind)),
}
