"""Version constraints such as `^1.2` or `>=1.0,<2.0 || 3.x`, and the order of versions.

Semantic versions compare as semver.org (11) defines. Python versions (PEP 440) are ordered among them: `2.0.dev1 <
2.0-0 < 2.0a1 = 2.0-alpha.1 < 2.0rc1 = 2.0-rc.1 < 2.0 < 2.0.post1`, and a version with a later epoch sorts above all
versions with an earlier one. Text that is valid in both forms is read as semver: `1.0-1` is a pre-release, and so is
`1.0-rc1`, with the name `rc1`.

A `Dialect` holds the rules that differ between constraint languages; this module has the default one.
"""

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import takewhile
from typing import Final, NamedTuple, NoReturn, TypeAlias

from packaging.version import Version

from registry.errors import Detail, MalformedRequest
from registry.model.validation.errors import describe_value

MAX_VERSION_CHARS: Final = 256
"""Maximum length of a constraint or a version."""
MAX_COMPARISONS: Final = 32
"""Maximum number of comparisons in one constraint, over all groups."""

# The tokens after the numbers of a version, each as (rank, number, name). Comparing them by rank gives the order of
# versions: the end of a suffix sorts above a development release and below another identifier, and a release sorts
# above its pre-releases.
Suffix: TypeAlias = tuple[tuple[int, int, str], ...]
_DEV, _END, _NUMBER, _NAME, _RELEASE, _POST = range(6)
_RELEASE_SUFFIX: Final[Suffix] = ((_RELEASE, 0, ""), (_END, 0, ""))
_PEP_440_NAMES: Final = {"a": "alpha", "b": "beta", "rc": "rc"}


class VersionKey(NamedTuple):
    """Sort key of a version; `numbers` has no trailing zeros, so that `1`, `1.0` and `1.0.0` are equal."""

    epoch: int
    numbers: tuple[int, ...]
    suffix: Suffix
    is_prerelease: bool


class Bound(NamedTuple):
    """The version in a comparison, with the numbers before the first wildcard: `1.2` and `1.2.x` are (1, 2)."""

    epoch: int
    numbers: tuple[int, ...]
    suffix: Suffix
    is_prerelease: bool

    @property
    def is_exact(self) -> bool:
        """Whether the bound is one exact version, not a prefix such as `1.2` that covers many versions."""
        return len(self.numbers) == _MAX_VERSION_NUMBERS or self.suffix != _RELEASE_SUFFIX

    @property
    def lower(self) -> VersionKey:
        """The sort key of the bound's own version, with zeros for missing numbers."""
        return VersionKey(self.epoch, _strip_trailing_zeros(self.numbers), self.suffix, self.is_prerelease)

    @property
    def next_above(self) -> VersionKey:
        """The smallest sort key above an exact version, or the next release that a partial version does not cover."""
        if self.is_exact:
            return self.lower._replace(suffix=(*self.suffix, (_END, 0, "")))
        return self.start_of_next(len(self.numbers) - 1)._replace(suffix=_RELEASE_SUFFIX, is_prerelease=False)

    def start_of_next(self, index: int) -> VersionKey:
        """Return a sort key just below all versions, even pre-releases, whose number at `index` is one higher."""
        numbers = (*self.numbers[:index], self.numbers[index] + 1)
        return VersionKey(self.epoch, numbers, (), is_prerelease=True)


VersionPredicate: TypeAlias = Callable[[VersionKey], bool]
VersionPredicates: TypeAlias = tuple[VersionPredicate, ...]
ReleaseNumbers: TypeAlias = tuple[int, tuple[int, ...]]
"""Epoch and numbers of a version."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """The rules that differ between constraint languages.

    `parse_version` returns None for text that is not a version; `parse_bound` raises MalformedRequest. `operators` maps
    each sign of the language to the tests that a comparison stands for. `allows_prerelease` decides whether a
    pre-release can satisfy a group, given the release numbers of the pre-releases that the group names.
    """

    parse_version: Callable[[str], VersionKey | None]
    parse_bound: Callable[[str], Bound]
    operators: Mapping[str, Callable[[Bound], VersionPredicates]]
    allows_prerelease: Callable[[frozenset[ReleaseNumbers], VersionKey], bool]
    allow_empty_group: bool
    """Whether a group without comparisons is valid; every release satisfies it."""
    allow_adjacent: bool
    """Whether two comparisons may follow each other without a comma or a blank: `>=1<2`."""
    max_comparisons: int | None
    blanks: str | None = None
    """The characters to strip around a group; None for all whitespace."""


_MAX_VERSION_NUMBERS: Final = 3
_IDENTIFIERS = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
_PRERELEASE_AND_BUILD = rf"(?:-(?P<pre>{_IDENTIFIERS}))?(?:\+{_IDENTIFIERS})?"
_SEMVER_PATTERN = re.compile(rf"v?(?P<numbers>[0-9]+(?:\.[0-9]+){{0,2}}){_PRERELEASE_AND_BUILD}")
_BOUND_PATTERN = re.compile(rf"v?(?P<numbers>(?:[0-9]+|[xX*])(?:\.(?:[0-9]+|[xX*])){{0,2}}){_PRERELEASE_AND_BUILD}")

# The `!` of an epoch (`2!1.0`) is not that of the comparison in `1!=2`.
_VERSION_TEXT = r"(?:v?[0-9]+!(?!=))?[0-9A-Za-z*][0-9A-Za-z*._+-]*"
_COMPARISON_PATTERN = re.compile(
    rf"(?:(?P<from>{_VERSION_TEXT})\s+-\s+(?P<to>{_VERSION_TEXT})|(?P<sign>>=|<=|=>|=<|==|!=|~=|~>|[<>=^~])?\s*(?P<bound>{_VERSION_TEXT}))"
    r"(?:\s*,\s*(?!$)|\s+|$|(?=[<>=!~^]))",
    re.ASCII,
)


@lru_cache(maxsize=4096)
def version_key(version: str) -> VersionKey | None:
    """Return the sort key of a version, None for text that is not a version or is longer than 256 characters.

    The text is read as semver if possible; a leading `v`, leading zeros and missing numbers (they are 0) are accepted.
    Otherwise it is read by PEP 440 (packaging). Build and local version are ignored.
    """
    if len(version) > MAX_VERSION_CHARS:
        return None
    bound = parse_semver(version) or _parse_pep_440(version)
    return None if bound is None else bound.lower


@lru_cache(maxsize=1024)
def parse_constraint(text: str) -> Callable[[str], bool]:
    """Parse a version constraint into a function that returns whether a version satisfies the constraint.

    Text that is not a version never satisfies a constraint. `>= > <= < = == !=` and a version without a sign, which is
    `=`; `^`, `~` (also `~>`), x-ranges (`1.x`, `1.2.*`, `*`) and `1.2 - 2.0` as npm's node-semver defines them; `~=` as
    PEP 440 defines it. A comma or blank is and, `||` is or; an empty constraint matches every release. A partial
    version stands for all versions that begin with it: `=1.2` is any 1.2.z, `>1.2` is from 1.3.0, `!=1.2` is no 1.2.z.
    A pre-release matches only if a comparison in the same and-group names a pre-release of the same numbers (npm's
    rule).

    Raises MalformedRequest with the reason if it cannot be parsed, or has more than 256 characters or 32 comparisons.
    """
    if len(text) > MAX_VERSION_CHARS:
        reject_constraint(f"has {len(text):,} characters; the maximum is {MAX_VERSION_CHARS}")
    return compile_constraint(text, _DEFAULT_DIALECT)


def compile_constraint(text: str, dialect: Dialect) -> Callable[[str], bool]:
    """Parse a version constraint by the rules of a dialect into a predicate. Raises MalformedRequest."""
    groups = [list(_parse_comparisons(group.strip(dialect.blanks), dialect)) for group in text.split("||")]
    if dialect.max_comparisons is not None and sum(map(len, groups)) > dialect.max_comparisons:
        reject_constraint(f"has more than {dialect.max_comparisons} comparisons")
    # For each group the pre-releases that it names, and the tests that a version must pass.
    alternatives = [
        (
            frozenset(bound.lower[:2] for _, bound in group if bound.is_prerelease),
            tuple(test for sign, bound in group for test in dialect.operators[sign](bound)),
        )
        for group in groups
    ]
    parse_version, allows_prerelease = dialect.parse_version, dialect.allows_prerelease

    def matches(version: str) -> bool:
        key = parse_version(version)
        if key is None:
            return False
        for named, tests in alternatives:
            if key.is_prerelease and not allows_prerelease(named, key):
                continue
            # A loop, not all(): this runs for each candidate of a query or dependency, and a generator costs as much
            # as the comparisons.
            for test in tests:
                if not test(key):
                    break
            else:
                return True
        return False

    return matches


def _parse_comparisons(text: str, dialect: Dialect) -> Iterator[tuple[str, Bound]]:
    """Yield the comparisons of one group of a constraint, each as its sign and version."""
    if not text and not dialect.allow_empty_group:
        reject_constraint(f"has an empty group; {_SYNTAX_HINT}")
    while text:
        found = _COMPARISON_PATTERN.match(text)
        if found is None or (found["sign"] or "=") not in dialect.operators:
            reject_constraint(f"cannot parse {describe_value(text)}; {_SYNTAX_HINT}")
        if found["bound"] is None:
            yield ">=", dialect.parse_bound(found["from"])
            yield "<=", dialect.parse_bound(found["to"])
        else:
            bound = dialect.parse_bound(found["bound"])
            if found["sign"] == "~=" and len(bound.numbers) < _MIN_COMPATIBLE_NUMBERS:
                reject_constraint(f"~={found['bound']} needs at least two numbers, such as ~=1.4; for one, write ^1")
            yield found["sign"] or "=", bound
        rest = text[found.end() :]
        if rest and found.end() == max(found.end("bound"), found.end("to")) and not dialect.allow_adjacent:
            reject_constraint(f"cannot parse {describe_value(text)}; {_SYNTAX_HINT}")
        text = rest


_MIN_COMPATIBLE_NUMBERS: Final = 2
_SYNTAX_HINT: Final = (
    "write a version such as 1.2.0, 1.2 or 1.x, optionally after one of >= > <= < = != ^ ~ ~=; "
    "a comma or a space means and, || means or"
)


def _parse_bound(text: str) -> Bound:
    bound = parse_semver(text, wildcards=True)
    if bound is not None:
        if bound.is_prerelease and parse_semver(text) is None:
            reject_constraint(f"{describe_value(text)} has a pre-release after x or *; write numbers before it")
        return bound
    bound = _parse_pep_440(text)
    if bound is None:
        reject_constraint(f"{describe_value(text)} is not a version; {_SYNTAX_HINT}")
    if len(bound.numbers) > _MAX_VERSION_NUMBERS:
        reject_constraint(f"{describe_value(text)} has more than three numbers")
    return bound


def parse_semver(text: str, *, wildcards: bool = False) -> Bound | None:
    """Parse a semantic version, in which `x` or `*` may replace numbers; return None for any other text."""
    found = (_BOUND_PATTERN if wildcards else _SEMVER_PATTERN).fullmatch(text)
    if found is None:
        return None
    numbers = tuple(int(part) for part in takewhile(str.isdigit, found["numbers"].split(".")))
    return Bound(0, numbers, _semver_suffix(found["pre"]), found["pre"] is not None)


def reject_constraint(problem: str) -> NoReturn:
    """Raise the error for a version constraint that cannot be parsed."""
    raise MalformedRequest(f"version_constraint: {problem}", [Detail("version_constraint", problem)])


def _semver_suffix(prerelease: str | None) -> Suffix:
    if prerelease is None:
        return _RELEASE_SUFFIX
    identifiers = prerelease.split(".")
    return (*((_NUMBER, int(each), "") if each.isdigit() else (_NAME, 0, each) for each in identifiers), (_END, 0, ""))


def _parse_pep_440(text: str) -> Bound | None:
    try:
        version = Version(text)
    # ValueError includes InvalidVersion, and Python's error for a number with too many digits.
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


def at_least(lower: VersionKey) -> VersionPredicate:
    """Return the predicate that accepts versions equal to or above `lower`."""
    return partial(operator.le, lower)


def below(upper: VersionKey) -> VersionPredicate:
    """Return the predicate that accepts versions below `upper`."""
    return partial(operator.gt, upper)


def _never(_: VersionKey) -> bool:
    return False


def _equal(bound: Bound) -> VersionPredicates:
    if not bound.numbers:
        return ()
    high = bound.next_above if bound.is_exact else bound.start_of_next(len(bound.numbers) - 1)
    return at_least(bound.lower), below(high)


def _not_equal(bound: Bound) -> VersionPredicates:
    if not bound.numbers:
        return (_never,)
    from_low, to_high = _equal(bound)
    return (lambda key: not (from_low(key) and to_high(key)),)


def _greater(bound: Bound) -> VersionPredicates:
    return (at_least(bound.next_above),) if bound.numbers else (_never,)


def _less(bound: Bound) -> VersionPredicates:
    if not bound.numbers:
        return (_never,)
    # `<1.2` excludes every 1.2.z, pre-releases included.
    return (below(bound.lower if bound.is_exact else bound.lower._replace(suffix=())),)


def _caret(bound: Bound) -> VersionPredicates:
    """Return the predicates of `^`: versions from the bound on with equal numbers through the first that is not 0."""
    if not bound.numbers:
        return ()
    last = len(bound.numbers) - 1
    first = next((place for place, number in enumerate(bound.numbers) if number), last)
    return at_least(bound.lower), below(bound.start_of_next(first))


def _tilde(bound: Bound) -> VersionPredicates:
    """Return the predicates of `~`: versions from the bound on with the same first number, and second if it has one."""
    return (at_least(bound.lower), below(bound.start_of_next(min(len(bound.numbers) - 1, 1)))) if bound.numbers else ()


_OPERATORS: Final[Mapping[str, Callable[[Bound], VersionPredicates]]] = {
    ">=": lambda bound: (at_least(bound.lower),),
    ">": _greater,
    "<=": lambda bound: _equal(bound)[1:],
    "<": _less,
    "=": _equal,
    "==": _equal,
    "!=": _not_equal,
    "^": _caret,
    "~": _tilde,
    "~>": _tilde,
    "~=": lambda bound: (at_least(bound.lower), below(bound.start_of_next(len(bound.numbers) - 2))),
}

_DEFAULT_DIALECT: Final = Dialect(
    parse_version=version_key,
    parse_bound=_parse_bound,
    operators=_OPERATORS,
    allows_prerelease=lambda named, key: key[:2] in named,
    allow_empty_group=True,
    allow_adjacent=True,
    max_comparisons=MAX_COMPARISONS,
)
