"""Tag requirements of a dependency: `t` is required, `+t` preferred, `-t` excluded; one tag of a list is enough."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

# The score of a matching tag by its sign.
_SCORE_BY_SIGN: Final = {"": 5, "+": 10}

# Longer requirements are not cached.
_MAX_CACHED_CHARS: Final = 1_000

TagRequirement: TypeAlias = str | tuple[str, ...]
TagScore: TypeAlias = tuple[str, int]


class TagMatch(NamedTuple):
    """The tag score of a provider; `mismatch` is the reason why its tags do not match, None if they match."""

    score: int
    mismatch: str | None


class TagRequirements:
    """The tag requirements of a dependency, which match and score the tags of providers.

    Tags are case-sensitive; repeated requirements count repeatedly. A list matches if any of its tags is present, with
    the score of its best tag; `-t` excludes inside a list as it does outside, and does not satisfy the list. Empty
    strings, `+` and `-` alone, and lists of these require nothing.
    """

    def __init__(self, requirements: Sequence[TagRequirement]) -> None:
        excluded: list[str] = []
        self._required: list[tuple[TagScore, ...]] = []
        self._preferred: list[TagScore] = []
        for requirement in requirements:
            members = [_split_sign(tag) for tag in ((requirement,) if isinstance(requirement, str) else requirement)]
            members = [(sign, tag) for sign, tag in members if tag]
            excluded += [tag for sign, tag in members if sign == "-"]
            accepted = tuple((tag, _SCORE_BY_SIGN[sign]) for sign, tag in members if sign != "-")
            if isinstance(requirement, str) and members and members[0][0] == "+":
                self._preferred += accepted
            elif accepted or (members and not isinstance(requirement, str)):
                self._required.append(accepted)
        self._excluded = tuple(dict.fromkeys(excluded))

    def match(self, tags: AbstractSet[str]) -> TagMatch:
        """Return the score of one provider's tags, or the first requirement that they do not satisfy."""
        for tag in self._excluded:
            if tag in tags:
                return TagMatch(0, f"has the excluded tag {tag}")
        score = 0
        for group in self._required:
            best = max((points for tag, points in group if tag in tags), default=0)
            if not best:
                return TagMatch(0, _missing_tag_reason(group))
            score += best
        return TagMatch(score + sum(points for tag, points in self._preferred if tag in tags), None)

    def mismatch_details(self, tags: AbstractSet[str]) -> dict[str, list[str]]:
        """Return the tags that reject a provider: excluded ones; without these missing ones, or one unmatched list."""
        if disallowed := [tag for tag in self._excluded if tag in tags]:
            return {"disallowed": disallowed}
        unmatched = [[tag for tag, _ in group] for group in self._required if not any(tag in tags for tag, _ in group)]
        if missing := [group[0] for group in unmatched if len(group) == 1]:
            return {"missing": missing}
        return {"missing_one_of": unmatched[0]} if unmatched else {}


def tag_requirements(requirements: tuple[TagRequirement, ...]) -> TagRequirements:
    """Return the parsed tag requirements of a dependency, from a cache unless they are unusually long."""
    length = sum(len(each) if isinstance(each, str) else sum(map(len, each)) for each in requirements)
    return _parse_cached(requirements) if length <= _MAX_CACHED_CHARS else TagRequirements(requirements)


_parse_cached = lru_cache(maxsize=4096)(TagRequirements)


def _split_sign(tag: str) -> tuple[str, str]:
    """Split a tag requirement into its sign and its tag."""
    return (tag[0], tag[1:]) if tag[:1] in ("+", "-") and tag else ("", tag)


def _missing_tag_reason(group: tuple[TagScore, ...]) -> str:
    if not group:
        return "the tag group contains only exclusions and can never match"
    names = [tag for tag, _ in group]
    return f"is missing the tag {names[0]}" if len(names) == 1 else f"has none of the tags {', '.join(names)}"
