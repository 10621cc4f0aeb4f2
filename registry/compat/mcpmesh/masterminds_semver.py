"""Version constraints as Go's Masterminds/semver (v3) reads them: what the published mesh clients expect.

It differs from `constraints` in small ways that decide who is chosen: a pre-release passes any comparison of an
and-group in which one names a pre-release; `<=1.2` is all of 1.2; `^*` is 0.0.0 alone; what cannot be read is no error
but a name that only its equal meets.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

Identifier: TypeAlias = tuple[int, int, str]


class VersionKey(NamedTuple):
    """What a version sorts by. A release is above its pre-releases, a longer one of these above a shorter."""

    major: int
    minor: int
    patch: int
    prerelease: tuple[Identifier, ...]

    @property
    def is_prerelease(self) -> bool:
        """Whether it leads up to a release."""
        return self.prerelease != _RELEASE


class Bound(NamedTuple):
    """The version in a comparison.

    Numbers that are `x` or missing are 0; `wildcard_index` is the index of the first such number, 3 for none.
    """

    lower: VersionKey
    wildcard_index: int


Comparator: TypeAlias = Callable[[VersionKey, Bound], bool]

# Numbers sort below names, and all of them below a release.
_NUMBER, _NAME, _RELEASE_RANK = 0, 1, 2
_RELEASE: Final[tuple[Identifier, ...]] = ((_RELEASE_RANK, 0, ""),)
_MAX_VERSION_NUMBER: Final = 2**64 - 1
_MAX_VERSION_CHARS: Final = 256

_IDENTIFIERS = r"[0-9A-Za-z\-]+(?:\.[0-9A-Za-z\-]+)*"
_PRERELEASE_AND_BUILD = rf"(?:-({_IDENTIFIERS}))?(?:\+{_IDENTIFIERS})?"
_VERSION_PATTERN = re.compile(rf"v?([0-9]+)(?:\.([0-9]+))?(?:\.([0-9]+))?{_PRERELEASE_AND_BUILD}", re.ASCII)
_PART_TEXT = r"[0-9xX*]+"
_VERSION_TEXT = rf"v?{_PART_TEXT}(?:\.{_PART_TEXT})?(?:\.{_PART_TEXT})?(?:-{_IDENTIFIERS})?(?:\+{_IDENTIFIERS})?"
_OPERATOR_TEXT = r"=>|>=|=<|<=|!=|~>|[=><~^]"
_RANGE_PATTERN = re.compile(rf"\s*({_VERSION_TEXT})\s+-\s+({_VERSION_TEXT})\s*", re.ASCII)
_COMPARISON_TEXT = rf"(?:(?:{_OPERATOR_TEXT})\s*)?{_VERSION_TEXT}"
# Each blank can be read in one way only: with two, what cannot be read takes twice as long for each blank in it.
_GROUP_PATTERN = re.compile(rf"\s*{_COMPARISON_TEXT}(?:(?:\s*,\s*|\s+){_COMPARISON_TEXT})*\s*", re.ASCII)
_COMPARISON_PATTERN = re.compile(
    rf"({_OPERATOR_TEXT}|)\s*v?({_PART_TEXT})(?:\.({_PART_TEXT}))?(?:\.({_PART_TEXT}))?{_PRERELEASE_AND_BUILD}",
    re.ASCII,
)


@lru_cache(maxsize=4096)
def version_key(version: str) -> VersionKey | None:
    """Return what a version sorts by, with missing numbers as 0; None for text that is none. Build is left out."""
    found = _VERSION_PATTERN.fullmatch(version) if len(version) <= _MAX_VERSION_CHARS else None
    return None if found is None else _build_version((found[1], found[2] or "0", found[3] or "0"), found[4])


@lru_cache(maxsize=1024)
def parse_constraint(text: str) -> Callable[[str], bool]:
    """Return the test that a constraint stands for. What cannot be read stands for itself, character by character."""
    groups = _parse_groups(text)
    if groups is None:
        return lambda version: version == text

    def passes(version: str) -> bool:
        ordered = version_key(version)
        if ordered is None:
            return version == text
        for names_prerelease, terms in groups:
            if ordered.is_prerelease and not names_prerelease:
                continue
            # A loop, not all(): this runs for each candidate of each dependency.
            for check, bound in terms:
                if not check(ordered, bound):
                    break
            else:
                return True
        return False

    return passes


def _parse_groups(text: str) -> tuple[tuple[bool, tuple[tuple[Comparator, Bound], ...]], ...] | None:
    """Return the alternatives, each with whether it names a pre-release; None for what cannot be read."""
    if len(text) > _MAX_VERSION_CHARS:
        return None
    groups = []
    for each in _RANGE_PATTERN.sub(r" >=\1, <=\2 ", text).split("||"):
        if _GROUP_PATTERN.fullmatch(each) is None:
            return None
        terms = list(_parse_comparisons(each))
        if None in terms:
            return None
        read = tuple(term for term in terms if term is not None)
        groups.append((any(bound.lower.is_prerelease for _, bound in read), read))
    return tuple(groups)


def _parse_comparisons(group: str) -> Iterator[tuple[Comparator, Bound] | None]:
    for sign, major, minor, patch, prerelease in _COMPARISON_PATTERN.findall(group):
        parts = (major, minor, patch)
        wild = next((place for place, part in enumerate(parts) if not part or part in "xX*"), len(parts))
        numbers = (*parts[:wild], "0", "0", "0")
        low = _build_version(numbers[:3], prerelease or None)
        yield None if low is None else (_COMPARATORS[sign], Bound(low, wild))


def _build_version(numbers: tuple[str, ...], prerelease: str | None) -> VersionKey | None:
    """Return a version; None where a number is too large or a pre-release has a number with a leading zero."""
    if any(not part.isdigit() or int(part) > _MAX_VERSION_NUMBER for part in numbers):
        return None
    names = [] if prerelease is None else prerelease.split(".")
    if any(name.isdigit() and len(name) > 1 and name[0] == "0" for name in names):
        return None
    suffix = tuple((_NUMBER, int(name), "") if name.isdigit() else (_NAME, 0, name) for name in names)
    major, minor, patch = map(int, numbers)
    return VersionKey(major, minor, patch, suffix or _RELEASE)


def _tilde(version: VersionKey, bound: Bound) -> bool:
    """Nothing may change left of the last number that is given; the third may, and so may all above 0.0.0."""
    low, wild = bound
    if version < low:
        return False
    if low[:3] == (0, 0, 0) and wild in (0, 3):
        return True
    return version[: min(wild, 2)] == low[: min(wild, 2)]


def _equal(version: VersionKey, bound: Bound) -> bool:
    return version == bound.lower if bound.wildcard_index == len(bound.lower) - 1 else _tilde(version, bound)


def _not_equal(version: VersionKey, bound: Bound) -> bool:
    low, wild = bound
    return version != low if wild in (0, 3) else version[:wild] != low[:wild]


def _greater(version: VersionKey, bound: Bound) -> bool:
    low, wild = bound
    return version > low if wild in (0, 3) else version[:wild] > low[:wild]


def _at_most(version: VersionKey, bound: Bound) -> bool:
    low, wild = bound
    return version <= low if wild in (0, 3) else version[:wild] <= low[:wild]


def _caret(version: VersionKey, bound: Bound) -> bool:
    """Nothing may change left of the first number that is not 0, nor that number."""
    low, wild = bound
    if version < low:
        return False
    if low.major or wild == 1:
        return version.major == low.major
    if version.major or low.minor or wild == 2:  # noqa: PLR2004 - the place of the third number
        return version[:2] == low[:2]
    return version[:3] == low[:3]


_COMPARATORS: Final[Mapping[str, Comparator]] = {
    "": _equal,
    "=": _equal,
    "!=": _not_equal,
    ">": _greater,
    "<": lambda version, bound: version < bound.lower,
    ">=": lambda version, bound: version >= bound.lower,
    "=>": lambda version, bound: version >= bound.lower,
    "<=": _at_most,
    "=<": _at_most,
    "~": _tilde,
    "~>": _tilde,
    "^": _caret,
}
