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


class Version(NamedTuple):
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
    """The version in a comparison; of what is `x` or missing it has zeros: from the place `wild` on, 3 for none."""

    low: Version
    wild: int


Check: TypeAlias = Callable[[Version, Bound], bool]

# Numbers sort below names, and all of them below a release.
_NUMBER, _NAME, _END_OF_ALL = 0, 1, 2
_RELEASE: Final[tuple[Identifier, ...]] = ((_END_OF_ALL, 0, ""),)
_LARGEST: Final = 2**64 - 1
_MAX_LENGTH: Final = 256

_IDENTIFIERS = r"[0-9A-Za-z\-]+(?:\.[0-9A-Za-z\-]+)*"
_TAIL = rf"(?:-({_IDENTIFIERS}))?(?:\+{_IDENTIFIERS})?"
_VERSION = re.compile(rf"v?([0-9]+)(?:\.([0-9]+))?(?:\.([0-9]+))?{_TAIL}", re.ASCII)
_PART = r"[0-9xX*]+"
_WRITTEN = rf"v?{_PART}(?:\.{_PART})?(?:\.{_PART})?(?:-{_IDENTIFIERS})?(?:\+{_IDENTIFIERS})?"
_SIGN = r"=>|>=|=<|<=|!=|~>|[=><~^]"
_RANGE = re.compile(rf"\s*({_WRITTEN})\s+-\s+({_WRITTEN})\s*", re.ASCII)
_SIGNED = rf"(?:(?:{_SIGN})\s*)?{_WRITTEN}"
# Each blank can be read in one way only: with two, what cannot be read takes twice as long for each blank in it.
_GROUP = re.compile(rf"\s*{_SIGNED}(?:(?:\s*,\s*|\s+){_SIGNED})*\s*", re.ASCII)
_TERM = re.compile(rf"({_SIGN}|)\s*v?({_PART})(?:\.({_PART}))?(?:\.({_PART}))?{_TAIL}", re.ASCII)


@lru_cache(maxsize=4096)
def order(version: str) -> Version | None:
    """Return what a version sorts by, with missing numbers as 0; None for text that is none. Build is left out."""
    found = _VERSION.fullmatch(version) if len(version) <= _MAX_LENGTH else None
    return None if found is None else _version((found[1], found[2] or "0", found[3] or "0"), found[4])


@lru_cache(maxsize=1024)
def constraint(text: str) -> Callable[[str], bool]:
    """Return the test that a constraint stands for. What cannot be read stands for itself, character by character."""
    groups = _read(text)
    if groups is None:
        return lambda version: version == text

    def passes(version: str) -> bool:
        ordered = order(version)
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


def _read(text: str) -> tuple[tuple[bool, tuple[tuple[Check, Bound], ...]], ...] | None:
    """Return the alternatives, each with whether it names a pre-release; None for what cannot be read."""
    if len(text) > _MAX_LENGTH:
        return None
    groups = []
    for each in _RANGE.sub(r" >=\1, <=\2 ", text).split("||"):
        if _GROUP.fullmatch(each) is None:
            return None
        terms = list(_terms(each))
        if None in terms:
            return None
        read = tuple(term for term in terms if term is not None)
        groups.append((any(bound.low.is_prerelease for _, bound in read), read))
    return tuple(groups)


def _terms(group: str) -> Iterator[tuple[Check, Bound] | None]:
    for sign, major, minor, patch, prerelease in _TERM.findall(group):
        parts = (major, minor, patch)
        wild = next((place for place, part in enumerate(parts) if not part or part in "xX*"), len(parts))
        numbers = (*parts[:wild], "0", "0", "0")
        low = _version(numbers[:3], prerelease or None)
        yield None if low is None else (_CHECKS[sign], Bound(low, wild))


def _version(numbers: tuple[str, ...], prerelease: str | None) -> Version | None:
    """Return a version; None where a number is too large or a pre-release has a number with a leading zero."""
    if any(not part.isdigit() or int(part) > _LARGEST for part in numbers):
        return None
    names = [] if prerelease is None else prerelease.split(".")
    if any(name.isdigit() and len(name) > 1 and name[0] == "0" for name in names):
        return None
    suffix = tuple((_NUMBER, int(name), "") if name.isdigit() else (_NAME, 0, name) for name in names)
    major, minor, patch = map(int, numbers)
    return Version(major, minor, patch, suffix or _RELEASE)


def _tilde(version: Version, bound: Bound) -> bool:
    """Nothing may change left of the last number that is given; the third may, and so may all above 0.0.0."""
    low, wild = bound
    if version < low:
        return False
    if low[:3] == (0, 0, 0) and wild in (0, 3):
        return True
    return version[: min(wild, 2)] == low[: min(wild, 2)]


def _equal(version: Version, bound: Bound) -> bool:
    return version == bound.low if bound.wild == len(bound.low) - 1 else _tilde(version, bound)


def _unequal(version: Version, bound: Bound) -> bool:
    low, wild = bound
    return version != low if wild in (0, 3) else version[:wild] != low[:wild]


def _above(version: Version, bound: Bound) -> bool:
    low, wild = bound
    return version > low if wild in (0, 3) else version[:wild] > low[:wild]


def _at_most(version: Version, bound: Bound) -> bool:
    low, wild = bound
    return version <= low if wild in (0, 3) else version[:wild] <= low[:wild]


def _caret(version: Version, bound: Bound) -> bool:
    """Nothing may change left of the first number that is not 0, nor that number."""
    low, wild = bound
    if version < low:
        return False
    if low.major or wild == 1:
        return version.major == low.major
    if version.major or low.minor or wild == 2:  # noqa: PLR2004 - the place of the third number
        return version[:2] == low[:2]
    return version[:3] == low[:3]


_CHECKS: Final[Mapping[str, Check]] = {
    "": _equal,
    "=": _equal,
    "!=": _unequal,
    ">": _above,
    "<": lambda version, bound: version < bound.low,
    ">=": lambda version, bound: version >= bound.low,
    "=>": lambda version, bound: version >= bound.low,
    "<=": _at_most,
    "=<": _at_most,
    "~": _tilde,
    "~>": _tilde,
    "^": _caret,
}
