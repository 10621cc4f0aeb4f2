"""Finds every violation of a msgspec Struct in a document, with a text for each.

msgspec is fast, but stops at the first violation. A document that it rejected is validated again here, to report all
of them. The rules come from the annotations of the Struct; each has a `description` of the valid values.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec
import msgspec.inspect as types

from registry.model.validation.errors import Path, Violation, describe_value

# Finds the violations in the items or fields of a value.
NestedFinder: TypeAlias = Callable[[Any, Path], Iterator[Violation]]


@dataclass(frozen=True, slots=True)
class TypeCheck:
    """The rule for one JSON type: a description of valid values, a check, and the search for nested violations."""

    expected: str
    is_valid: Callable[[Any], bool]
    find_nested: NestedFinder | None = None


@dataclass(frozen=True, slots=True)
class Validator:
    """The rule for a value: its description, and a check for each exact Python type: True is an int in Python."""

    expected: str
    checks_by_type: Mapping[type, TypeCheck]

    def find_violations(self, value: object, path: Path = None) -> Iterator[Violation]:
        """Yield every violation in schema order; there are none if and only if `msgspec.convert` accepts the value."""
        check = self.checks_by_type.get(type(value))
        if check is None or not check.is_valid(value):
            # YAML reads 1.10 as the number 1.1, and `no` as false.
            hint = "; quote it" if check is None and str in self.checks_by_type and not _is_nested(value) else ""
            yield path, f"must be {(check or self).expected}, not {describe_value(value)}{hint}"
        elif check.find_nested is not None:
            yield from check.find_nested(value, path)


def _is_nested(value: object) -> bool:
    return value is None or isinstance(value, list | dict)


def validator_for(schema: type[msgspec.Struct]) -> Validator:
    """Return the validator for a msgspec Struct, built from the annotations of its fields."""
    return _build_validator(types.type_info(schema))


def _build_validator(kind: types.Type, expected: str = "") -> Validator:
    """Return the validator for a type; `expected` describes valid values if the type has no description."""
    match kind:
        case types.Metadata():
            return _build_validator(kind.type, (kind.extra_json_schema or {}).get("description", expected))
        case types.UnionType():
            validators = [_build_validator(each, expected) for each in kind.types]
            texts = [each.expected for each in validators if type(None) not in each.checks_by_type]
            checks = {value_type: check for each in validators for value_type, check in each.checks_by_type.items()}
            return Validator(expected or " or ".join(texts), checks)
        case _:
            text, value_types, is_valid, find_nested = _PLAIN_TYPES[type(kind)](kind)
            check = TypeCheck(expected or text, is_valid, find_nested)
            return Validator(check.expected, dict.fromkeys(value_types, check))


def _accept_any(_: object) -> bool:
    return True


def _check_length(kind: types.StrType | types.ListType | types.DictType) -> Callable[[Any], bool]:
    least, most = kind.min_length or 0, math.inf if kind.max_length is None else kind.max_length
    return lambda value: least <= len(value) <= most


def _check_text(kind: types.StrType) -> Callable[[str], bool]:
    has_valid_length = _check_length(kind)
    if kind.pattern is None:
        return has_valid_length
    search = re.compile(kind.pattern).search
    return lambda value: has_valid_length(value) and search(value) is not None


def _check_number(kind: types.IntType | types.FloatType) -> Callable[[float], bool]:
    above, least = (-math.inf if bound is None else bound for bound in (kind.gt, kind.ge))
    below, most = (math.inf if bound is None else bound for bound in (kind.lt, kind.le))
    return lambda value: above < value < below and least <= value <= most


def _list_finder(kind: types.ListType) -> NestedFinder:
    item_validator = _build_validator(kind.item_type)
    checks_by_type = item_validator.checks_by_type

    def find(items: list[Any], path: Path) -> Iterator[Violation]:
        for index, item in enumerate(items):
            # Most items are valid and not nested: skipping them here saves time in a large body.
            check = checks_by_type.get(type(item))
            if check is None or check.find_nested is not None or not check.is_valid(item):
                yield from item_validator.find_violations(item, (path, index))

    return find


def _mapping_finder(kind: types.DictType) -> NestedFinder:
    key_validator, value_validator = _build_validator(kind.key_type), _build_validator(kind.value_type)
    is_valid_key = key_validator.checks_by_type[str].is_valid

    def find(items: dict[str, Any], path: Path) -> Iterator[Violation]:
        for key, item in items.items():
            if not is_valid_key(key):
                yield (path, key), f"must have as its key {key_validator.expected}"
            yield from value_validator.find_violations(item, (path, key))

    return find


def _struct_finder(kind: types.StructType) -> NestedFinder:
    fields = [(field.encode_name, field.required, _build_validator(field.type)) for field in kind.fields]

    def find(value: dict[str, Any], path: Path) -> Iterator[Violation]:
        for name, required, validator in fields:
            if name in value:
                yield from validator.find_violations(value[name], (path, name))
            elif required:
                yield (path, name), f"is required: {validator.expected}"

    return find


_PlainType: TypeAlias = tuple[str, tuple[type, ...], Callable[[Any], bool], NestedFinder | None]

# For each type but Metadata and UnionType: its text, the Python types of its values, the check, and the nested search.
_PLAIN_TYPES: dict[type[types.Type], Callable[[Any], _PlainType]] = {
    types.AnyType: lambda _: ("any value", (str, int, float, bool, type(None), list, dict), _accept_any, None),
    types.BoolType: lambda _: ("true or false", (bool,), _accept_any, None),
    types.NoneType: lambda _: ("null", (type(None),), _accept_any, None),
    types.StrType: lambda kind: ("a string", (str,), _check_text(kind), None),
    types.LiteralType: lambda kind: ("a known word", (str,), frozenset(kind.values).__contains__, None),
    types.IntType: lambda kind: ("an integer", (int,), _check_number(kind), None),
    types.FloatType: lambda kind: ("a number", (int, float), _check_number(kind), None),
    types.ListType: lambda kind: ("a list", (list,), _check_length(kind), _list_finder(kind)),
    types.DictType: lambda kind: ("an object", (dict,), _check_length(kind), _mapping_finder(kind)),
    types.StructType: lambda kind: ("an object", (dict,), _accept_any, _struct_finder(kind)),
}
