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

from registry.model.validation.errors import Finding, Path, shown


@dataclass(frozen=True, slots=True)
class Branch:
    """The rule for values of one JSON kind: what the value must be, and how to look inside it."""

    expected: str
    fits: Callable[[Any], bool]
    look_inside: Callable[[Any, Path], Iterator[Finding]] | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """What a value must be: in words, and by the exact Python type it was read as.

    By the exact type, because to Python True is an int.
    """

    expected: str
    branches: Mapping[type, Branch]

    def find_problems(self, value: object, path: Path = None) -> Iterator[Finding]:
        """Yield every place in `value` that breaks the rule, in the order of its definition.

        Nothing is yielded exactly when `msgspec.convert` accepts the value.
        """
        branch = self.branches.get(type(value))
        if branch is None or not branch.fits(value):
            yield path, f"must be {(branch or self).expected}, not {shown(value)}"
        elif branch.look_inside is not None:
            yield from branch.look_inside(value, path)


def read_rule(form: type[msgspec.Struct]) -> Rule:
    """Read the rule that a Struct and the annotations of its fields make."""
    return _read(types.type_info(form), "")


def _read(kind: types.Type, expected: str) -> Rule:
    """Read one type; `expected` are the words for it where it has no description of its own."""
    match kind:
        case types.Metadata():
            return _read(kind.type, (kind.extra_json_schema or {}).get("description", expected))
        case types.UnionType():
            rules = [_read(each, expected) for each in kind.types]
            words = [rule.expected for rule in rules if type(None) not in rule.branches]
            branches = {sort: branch for rule in rules for sort, branch in rule.branches.items()}
            return Rule(expected or " or ".join(words), branches)
        case _:
            words_for, sorts, fits, look_inside = _PLAIN[type(kind)](kind)
            branch = Branch(expected or words_for, fits, look_inside)
            return Rule(branch.expected, dict.fromkeys(sorts, branch))


def _anything(_: object) -> bool:
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


def _look_in_list(rule: Rule) -> Callable[[list[Any], Path], Iterator[Finding]]:
    branches = rule.branches

    def look(items: list[Any], path: Path) -> Iterator[Finding]:
        for place, item in enumerate(items):
            # Most items are right and hold nothing: passing those over here is what keeps a large body cheap.
            branch = branches.get(type(item))
            if branch is None or branch.look_inside is not None or not branch.fits(item):
                yield from rule.find_problems(item, (path, place))

    return look


def _look_in_mapping(key_rule: Rule, rule: Rule) -> Callable[[dict[str, Any], Path], Iterator[Finding]]:
    fits_key = key_rule.branches[str].fits

    def look(items: dict[str, Any], path: Path) -> Iterator[Finding]:
        for key, item in items.items():
            if not fits_key(key):
                yield (path, key), f"must have as its key {key_rule.expected}"
            yield from rule.find_problems(item, (path, key))

    return look


def _look_in_struct(kind: types.StructType) -> Callable[[dict[str, Any], Path], Iterator[Finding]]:
    fields = [(field.encode_name, field.required, _read(field.type, "")) for field in kind.fields]

    def look(value: dict[str, Any], path: Path) -> Iterator[Finding]:
        for name, required, rule in fields:
            if name in value:
                yield from rule.find_problems(value[name], (path, name))
            elif required:
                yield (path, name), f"is required: {rule.expected}"

    return look


_Plain: TypeAlias = tuple[str, tuple[type, ...], Callable[[Any], bool], Callable[[Any, Path], Iterator[Finding]] | None]

# For each type that wraps no other: its words, the Python types of its values, the check, the way inside.
_PLAIN: dict[type[types.Type], Callable[[Any], _Plain]] = {
    types.AnyType: lambda _: ("any value", (str, int, float, bool, type(None), list, dict), _anything, None),
    types.BoolType: lambda _: ("true or false", (bool,), _anything, None),
    types.NoneType: lambda _: ("null", (type(None),), _anything, None),
    types.StrType: lambda kind: ("a string", (str,), _check_text(kind), None),
    types.LiteralType: lambda kind: ("a known word", (str,), frozenset(kind.values).__contains__, None),
    types.IntType: lambda kind: ("an integer", (int,), _check_number(kind), None),
    types.FloatType: lambda kind: ("a number", (int, float), _check_number(kind), None),
    types.ListType: lambda kind: (
        "a list",
        (list,),
        _check_length(kind),
        _look_in_list(_read(kind.item_type, "")),
    ),
    types.DictType: lambda kind: (
        "an object",
        (dict,),
        _check_length(kind),
        _look_in_mapping(_read(kind.key_type, ""), _read(kind.value_type, "")),
    ),
    types.StructType: lambda kind: ("an object", (dict,), _anything, _look_in_struct(kind)),
}
