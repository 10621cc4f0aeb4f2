"""Version constraints: `^1.2`, `>=1.0,<2.0 || 3.x`, and the order of the versions they speak of.

One order for two worlds. Semantic versions compare as semver.org (11) says; Python's (PEP 440) stand among them:
`2.0.dev1 < 2.0-0 < 2.0a1 = 2.0-alpha.1 < 2.0rc1 = 2.0-rc.1 < 2.0 < 2.0.post1`, and a later epoch above all earlier.
What can be read as either is semver: `1.0-1` is a pre-release, and `1.0-rc1` one whose name is `rc1`.
"""

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from itertools import takewhile
from typing import Final, NamedTuple, NoReturn, TypeAlias

from packaging.version import Version

from registry.errors import Detail, MalformedRequest
from registry.model.validation.errors import describe_value

MAX_VERSION_CHARS: Final = 256
"""Characters of a constraint or a version."""
MAX_COMPARISONS: Final = 32
"""Comparisons in one constraint, all groups together."""

# What follows a version's numbers, one token each: rank, number, name. The ranks are the whole order: nothing more is
# above a development release and below a further identifier, and a release is above whatever leads up to it.
Suffix: TypeAlias = tuple[tuple[int, int, str], ...]
_DEV, _END, _NUMBER, _NAME, _RELEASE, _POST = range(6)
_RELEASE_SUFFIX: Final[Suffix] = ((_RELEASE, 0, ""), (_END, 0, ""))
_PEP_440_NAMES: Final = {"a": "alpha", "b": "beta", "rc": "rc"}


class VersionKey(NamedTuple):
    """What a version sorts by. `numbers` ends in no zero, so that `1`, `1.0` and `1.0.0` are one."""

    epoch: int
    numbers: tuple[int, ...]
    suffix: Suffix
    is_prerelease: bool


class Bound(NamedTuple):
    """The version in a comparison, with as many numbers as were given: `1.2` is (1, 2), `*` is ()."""

    epoch: int
    numbers: tuple[int, ...]
    suffix: Suffix
    is_prerelease: bool

    @property
    def is_exact(self) -> bool:
        """Whether it is one version, not all those that begin with its numbers."""
        return len(self.numbers) == _MAX_VERSION_NUMBERS or self.suffix != _RELEASE_SUFFIX

    @property
    def lower(self) -> VersionKey:
        """The version itself; of a partial one the first release."""
        return VersionKey(self.epoch, _strip_trailing_zeros(self.numbers), self.suffix, self.is_prerelease)

    @property
    def next_above(self) -> VersionKey:
        """What lies next above an exact one; above a partial one the next release it does not cover."""
        if self.is_exact:
            return self.lower._replace(suffix=(*self.suffix, (_END, 0, "")))
        return self.start_of_next(len(self.numbers) - 1)._replace(suffix=_RELEASE_SUFFIX, is_prerelease=False)

    def start_of_next(self, index: int) -> VersionKey:
        """Where the versions begin whose number at `index` is one more: below all of their pre-releases."""
        numbers = (*self.numbers[:index], self.numbers[index] + 1)
        return VersionKey(self.epoch, numbers, (), is_prerelease=True)


VersionPredicate: TypeAlias = Callable[[VersionKey], bool]
VersionPredicates: TypeAlias = tuple[VersionPredicate, ...]

_MAX_VERSION_NUMBERS: Final = 3
_IDENTIFIERS = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
_PRERELEASE_AND_BUILD = rf"(?:-(?P<pre>{_IDENTIFIERS}))?(?:\+{_IDENTIFIERS})?"
_SEMVER_PATTERN = re.compile(rf"v?(?P<numbers>[0-9]+(?:\.[0-9]+){{0,2}}){_PRERELEASE_AND_BUILD}")
_BOUND_PATTERN = re.compile(rf"v?(?P<numbers>(?:[0-9]+|[xX*])(?:\.(?:[0-9]+|[xX*])){{0,2}}){_PRERELEASE_AND_BUILD}")

# The `!` of an epoch (`2!1.0`) is not that of the comparison in `1!=2`.
_VERSION_TEXT = r"(?:v?[0-9]+!(?!=))?[0-9A-Za-z*][0-9A-Za-z*._+-]*"
_COMPARISON_PATTERN = re.compile(
    rf"(?:(?P<from>{_VERSION_TEXT})\s+-\s+(?P<to>{_VERSION_TEXT})|(?P<sign>>=|<=|==|!=|~=|~>|[<>=^~])?\s*(?P<bound>{_VERSION_TEXT}))"
    r"(?:\s*,\s*(?!$)|\s+|$|(?=[<>=!~^]))",
    re.ASCII,
)


@lru_cache(maxsize=4096)
def version_key(version: str) -> VersionKey | None:
    """Return what a version sorts by; None for text that is no version, or one longer than 256 characters.

    Read as semver where that is possible, with a leading `v`, leading zeros and missing numbers (they are 0) forgiven;
    otherwise by PEP 440 (packaging). Build and local version do not count: versions that differ in these are equal.
    """
    if len(version) > MAX_VERSION_CHARS:
        return None
    found = _SEMVER_PATTERN.fullmatch(version)
    if found is None:
        python = _parse_pep_440(version)
        return python.lower if python is not None else None
    numbers = tuple(map(int, found["numbers"].split(".")))
    return Bound(0, numbers, _semver_suffix(found["pre"]), found["pre"] is not None).lower


@lru_cache(maxsize=1024)
def parse_constraint(text: str) -> Callable[[str], bool]:
    """Return the test that a constraint stands for; what is no version passes none.

    `>= > <= < = == !=` and a version without a sign, which is `=`; `^`, `~` (also `~>`), x-ranges (`1.x`, `1.2.*`,
    `*`) and `1.2 - 2.0` as npm's node-semver defines them; `~=` as PEP 440 does. A comma or blank is and, `||` or;
    nothing is everything. A partial version is all that begins with it: `=1.2` is any 1.2.z, `>1.2` from 1.3.0,
    `!=1.2` no 1.2.z. A pre-release passes only where a comparison in the same and-group names a pre-release of the
    same numbers (npm's rule).

    Raises:
        MalformedRequest: it cannot be read, or has more than 256 characters or 32 comparisons. Says what is wrong.
    """
    if len(text) > MAX_VERSION_CHARS:
        _reject(f"has {len(text):,} characters, at most {MAX_VERSION_CHARS} are read")
    groups = [list(_parse_comparisons(group.strip())) for group in text.split("||")]
    if sum(map(len, groups)) > MAX_COMPARISONS:
        _reject(f"has more than {MAX_COMPARISONS} comparisons")
    alternatives = [(_named_prereleases(terms), _compile_comparisons(terms, _OPERATORS)) for terms in groups]

    def passes(version: str) -> bool:
        ordered = version_key(version)
        if ordered is None:
            return False
        for named, tests in alternatives:
            if ordered.is_prerelease and ordered[:2] not in named:
                continue
            # A loop, not all(): this runs for each capability that a query looks at, and a generator costs as much
            # as the comparisons.
            for test in tests:
                if not test(ordered):
                    break
            else:
                return True
        return False

    return passes


def _named_prereleases(comparisons: Iterable[tuple[str, Bound]]) -> frozenset[tuple[int, tuple[int, ...]]]:
    """Return epoch and numbers of the pre-releases that a group speaks of."""
    return frozenset(bound.lower[:2] for _, bound in comparisons if bound.is_prerelease)


def _compile_comparisons(
    comparisons: Iterable[tuple[str, Bound]], operators: Mapping[str, Callable[[Bound], VersionPredicates]]
) -> VersionPredicates:
    """Return what a group demands, by the meaning that a dialect gives each sign."""
    return tuple(test for sign, bound in comparisons for test in operators[sign](bound))


def _parse_comparisons(text: str) -> Iterator[tuple[str, Bound]]:
    """Yield the comparisons of one group, each as its sign and version."""
    while text:
        found = _COMPARISON_PATTERN.match(text)
        if found is None:
            _reject(f"cannot read {describe_value(text)}; {_SYNTAX_HINT}")
        if found["bound"] is None:
            yield ">=", _parse_bound(found["from"])
            yield "<=", _parse_bound(found["to"])
        else:
            bound = _parse_bound(found["bound"])
            if found["sign"] == "~=" and len(bound.numbers) < _MIN_COMPATIBLE_NUMBERS:
                _reject(f"~={found['bound']} needs at least two numbers, such as ~=1.4; for one, write ^1")
            yield found["sign"] or "=", bound
        text = text[found.end() :]


_MIN_COMPATIBLE_NUMBERS: Final = 2
_SYNTAX_HINT: Final = (
    "write a version such as 1.2.0, 1.2 or 1.x, before it one of >= > <= < = != ^ ~ ~= or nothing; "
    "a comma or a blank means and, || means or"
)


def _parse_bound(text: str) -> Bound:
    found = _BOUND_PATTERN.fullmatch(text)
    if found is None:
        bound = _parse_pep_440(text)
        if bound is None:
            _reject(f"{describe_value(text)} is no version; {_SYNTAX_HINT}")
        if len(bound.numbers) > _MAX_VERSION_NUMBERS:
            _reject(f"{describe_value(text)} has more than three numbers")
        return bound
    parts = found["numbers"].split(".")
    given = tuple(int(part) for part in takewhile(str.isdigit, parts))
    if found["pre"] is not None and len(given) < len(parts):
        _reject(f"{describe_value(text)} has a pre-release after x or *; write numbers before it")
    return Bound(0, given, _semver_suffix(found["pre"]), found["pre"] is not None)


def _reject(problem: str) -> NoReturn:
    raise MalformedRequest(f"version_constraint: {problem}", [Detail("version_constraint", problem)])


def _semver_suffix(prerelease: str | None) -> Suffix:
    if prerelease is None:
        return _RELEASE_SUFFIX
    identifiers = prerelease.split(".")
    return (*((_NUMBER, int(each), "") if each.isdigit() else (_NAME, 0, each) for each in identifiers), (_END, 0, ""))


def _parse_pep_440(text: str) -> Bound | None:
    try:
        version = Version(text)
    # Not only InvalidVersion: Python refuses to read a number of too many digits.
    except ValueError:
        return None
    tokens = []
    if version.pre is not None:
        name, number = version.pre
        tokens = [(_NAME, 0, _PEP_440_NAMES[name]), (_NUMBER, number, "")]
    elif version.dev is None or version.post is not None:
        tokens = [(_RELEASE, 0, "")]
    if version.post is not None:
        tokens.append((_POST, version.post, ""))
    if version.dev is not None:
        tokens.append((_DEV, version.dev, ""))
    return Bound(version.epoch, version.release, (*tokens, (_END, 0, "")), version.is_prerelease)


def _strip_trailing_zeros(numbers: tuple[int, ...]) -> tuple[int, ...]:
    while numbers and numbers[-1] == 0:
        numbers = numbers[:-1]
    return numbers


def _at_least(lower: VersionKey) -> VersionPredicate:
    return partial(operator.le, lower)


def _below(upper: VersionKey) -> VersionPredicate:
    return partial(operator.gt, upper)


def _never(_: VersionKey) -> bool:
    return False


def _equal(bound: Bound) -> VersionPredicates:
    if not bound.numbers:
        return ()
    high = bound.next_above if bound.is_exact else bound.start_of_next(len(bound.numbers) - 1)
    return _at_least(bound.lower), _below(high)


def _not_equal(bound: Bound) -> VersionPredicates:
    if not bound.numbers:
        return (_never,)
    from_low, to_high = _equal(bound)
    return (lambda ordered: not (from_low(ordered) and to_high(ordered)),)


def _greater(bound: Bound) -> VersionPredicates:
    return (_at_least(bound.next_above),) if bound.numbers else (_never,)


def _less(bound: Bound) -> VersionPredicates:
    if not bound.numbers:
        return (_never,)
    # Below `1.2` is below all of 1.2, its pre-releases included.
    return (_below(bound.lower if bound.is_exact else bound.lower._replace(suffix=())),)


def _caret(bound: Bound) -> VersionPredicates:
    """Nothing may change left of the first number that is not 0, nor that number."""
    if not bound.numbers:
        return ()
    last = len(bound.numbers) - 1
    first = next((place for place, number in enumerate(bound.numbers) if number), last)
    return _at_least(bound.lower), _below(bound.start_of_next(first))


def _tilde(bound: Bound) -> VersionPredicates:
    """The second number may not change, nor the first one where it is the only one."""
    return (
        (_at_least(bound.lower), _below(bound.start_of_next(min(len(bound.numbers) - 1, 1)))) if bound.numbers else ()
    )


# One table per dialect: another one's `^` or `!=` is another table.
_OPERATORS: Final[Mapping[str, Callable[[Bound], VersionPredicates]]] = {
    ">=": lambda bound: (_at_least(bound.lower),),
    ">": _greater,
    "<=": lambda bound: _equal(bound)[1:],
    "<": _less,
    "=": _equal,
    "==": _equal,
    "!=": _not_equal,
    "^": _caret,
    "~": _tilde,
    "~>": _tilde,
    "~=": lambda bound: (_at_least(bound.lower), _below(bound.start_of_next(len(bound.numbers) - 2))),
}
