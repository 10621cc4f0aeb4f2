"""Version constraints in the dialect of Go's Masterminds/semver (v3), which the published mcp-mesh SDKs expect.

It differs from the default dialect of `version_constraints` in ways that affect which provider is chosen: if a
comparison of an and-group names a pre-release, every pre-release can satisfy the group; `<=1.2` includes all of 1.2;
`^*` is 0.0.0 alone; a text that cannot be parsed is not an error, but matches only the identical text.
"""

import operator
import re
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Final

from registry.errors import MalformedRequest
from registry.service.version_constraints import (
    MAX_VERSION_CHARS,
    Bound,
    Dialect,
    VersionKey,
    VersionPredicates,
    at_least,
    below,
    compile_constraint,
    parse_semver,
    reject_constraint,
)

_MAX_VERSION_NUMBER: Final = 2**64 - 1
_VERSION_NUMBERS: Final = 3
_IDENTIFIERS = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
_VERSION_TEXT = rf"v?[0-9xX*]+(?:\.[0-9xX*]+){{0,2}}(?:-{_IDENTIFIERS})?(?:\+{_IDENTIFIERS})?"
_VERSION_PATTERN: Final = re.compile(_VERSION_TEXT)
_WILDCARD_PATTERN: Final = re.compile(r"(v?(?:[0-9]+\.)?[xX*])(?:\.[0-9xX*]+)+")
_RANGE_PATTERN: Final = re.compile(rf"\s*({_VERSION_TEXT})\s+-\s+({_VERSION_TEXT})\s*", re.ASCII)


@lru_cache(maxsize=4096)
def version_key(version: str) -> VersionKey | None:
    """Return the sort key of a version without its build part; None for a text that is not a version."""
    bound = parse_semver(version) if len(version) <= MAX_VERSION_CHARS else None
    return None if bound is None or not _is_valid(bound, version) else bound.lower


@lru_cache(maxsize=1024)
def parse_constraint(text: str) -> Callable[[str], bool]:
    """Parse a version constraint into a predicate; an invalid constraint matches only its own text."""
    if len(text) > MAX_VERSION_CHARS:
        return lambda version: version == text
    try:
        # As in the Go library, which replaces each range by text: two comparisons with blanks around them.
        matches = compile_constraint(_RANGE_PATTERN.sub(r" >=\1, <=\2 ", text), _DIALECT)
    except MalformedRequest:
        return lambda version: version == text
    # A version that cannot be parsed matches only its own text. One that can be parsed satisfies itself anyway.
    return lambda version: matches(version) or version == text


def _parse_bound(text: str) -> Bound:
    found = _WILDCARD_PATTERN.match(text)
    if found is not None and _VERSION_PATTERN.fullmatch(text):
        # The parts after the first wildcard are ignored; they may mix digits and wildcards, as in `*.1x`.
        text = found[1] + text[found.end() :]
    bound = parse_semver(text, wildcards=True)
    if bound is None or not _is_valid(bound, text):
        reject_constraint("is not a semantic version")
    return bound


def _is_valid(bound: Bound, text: str) -> bool:
    """Return whether a version has no number that is too large and no pre-release number with a leading zero."""
    _, _, prerelease = text.partition("+")[0].partition("-")
    return all(number <= _MAX_VERSION_NUMBER for number in bound.numbers) and not any(
        name.isdigit() and name[0] == "0" and name != "0" for name in prerelease.split(".")
    )


def _is_whole(bound: Bound) -> bool:
    """Return whether a bound is compared as one version, because all of its numbers are given or none."""
    return len(bound.numbers) in (0, _VERSION_NUMBERS)


def _same_prefix(bound: Bound, count: int) -> VersionPredicates:
    """Return the predicates for versions from the bound on with the same first `count` numbers."""
    padded = bound._replace(numbers=(*bound.numbers, 0, 0, 0)[:_VERSION_NUMBERS])
    return at_least(bound.lower), below(padded.start_of_next(count - 1))


def _equal(bound: Bound) -> VersionPredicates:
    return (partial(operator.eq, bound.lower),) if len(bound.numbers) == _VERSION_NUMBERS else _tilde(bound)


def _not_equal(bound: Bound) -> VersionPredicates:
    if _is_whole(bound):
        return (partial(operator.ne, bound.lower),)
    first = bound.lower._replace(suffix=(), is_prerelease=True)
    past_last = bound.start_of_next(len(bound.numbers) - 1)
    return (lambda key: not first <= key < past_last,)


def _greater(bound: Bound) -> VersionPredicates:
    if _is_whole(bound):
        return (partial(operator.lt, bound.lower),)
    return (at_least(bound.start_of_next(len(bound.numbers) - 1)),)


def _at_most(bound: Bound) -> VersionPredicates:
    if _is_whole(bound):
        return (partial(operator.ge, bound.lower),)
    return (below(bound.start_of_next(len(bound.numbers) - 1)),)


def _at_least(bound: Bound) -> VersionPredicates:
    return (at_least(bound.lower),)


def _tilde(bound: Bound) -> VersionPredicates:
    """Return the predicates of `~`: versions from the bound on with the same first number, and second if it has one."""
    if _is_whole(bound) and not any(bound.numbers):
        return _at_least(bound)
    return _same_prefix(bound, min(len(bound.numbers), 2))


def _caret(bound: Bound) -> VersionPredicates:
    """Return the predicates of `^`: versions from the bound on with equal numbers through the first that is not 0."""
    if any(bound.numbers[:1]) or len(bound.numbers) == 1:
        return _same_prefix(bound, 1)
    if any(bound.numbers[:2]) or len(bound.numbers) == 2:  # noqa: PLR2004 - major and minor
        return _same_prefix(bound, 2)
    return _same_prefix(bound, _VERSION_NUMBERS)


_DIALECT: Final = Dialect(
    parse_version=version_key,
    parse_bound=_parse_bound,
    operators={
        "=": _equal,
        "!=": _not_equal,
        ">": _greater,
        "<": lambda bound: (below(bound.lower),),
        ">=": _at_least,
        "=>": _at_least,
        "<=": _at_most,
        "=<": _at_most,
        "~": _tilde,
        "~>": _tilde,
        "^": _caret,
    },
    allows_prerelease=lambda named, _: bool(named),
    allow_empty_group=False,
    allow_adjacent=False,
    max_comparisons=None,
    blanks=" \t\n\r\f\v",
)
