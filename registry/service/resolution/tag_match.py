"""The tags a dependency wants: `t` must be there, `+t` is preferred, `-t` excludes, of a list inside one is enough."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

# What a tag that is there is worth, by the sign before it.
_SCORE_BY_SIGN: Final = {"": 5, "+": 10}

# The length of what is wanted, in characters, up to which it is kept.
_MAX_CACHED_CHARS: Final = 1_000

TagRequirement: TypeAlias = str | tuple[str, ...]
TagScore: TypeAlias = tuple[str, int]


class TagMatch(NamedTuple):
    """How well some tags meet what is wanted; `mismatch` says why they do not, None where they do."""

    score: int
    mismatch: str | None


class TagRequirements:
    """Judges the tags of providers. Case matters; what is said twice counts twice.

    A list is met by any member that is there and counts as much as the best of these; a `-` in it excludes as it does
    outside, and is nothing that could be met. Nothing, `+` and `-` alone ask for nothing, nor do lists of these.
    """

    def __init__(self, requirements: Sequence[TagRequirement]) -> None:
        excluded: list[str] = []
        self._required: list[tuple[TagScore, ...]] = []
        self._preferred: list[TagScore] = []
        for need in requirements:
            members = [_split_sign(tag) for tag in ((need,) if isinstance(need, str) else need)]
            members = [(sign, tag) for sign, tag in members if tag]
            excluded += [tag for sign, tag in members if sign == "-"]
            wanted = tuple((tag, _SCORE_BY_SIGN[sign]) for sign, tag in members if sign != "-")
            if isinstance(need, str) and members and members[0][0] == "+":
                self._preferred += wanted
            elif wanted or (members and not isinstance(need, str)):
                self._required.append(wanted)
        self._excluded = tuple(dict.fromkeys(excluded))

    def match(self, tags: AbstractSet[str]) -> TagMatch:
        """Return how well the tags of one provider meet what is wanted."""
        for tag in self._excluded:
            if tag in tags:
                return TagMatch(0, f"has the excluded tag {tag}")
        score = 0
        for group in self._required:
            best = max((worth for tag, worth in group if tag in tags), default=0)
            if not best:
                return TagMatch(0, _missing_tag_reason(group))
            score += best
        return TagMatch(score + sum(worth for tag, worth in self._preferred if tag in tags), None)

    def mismatch_details(self, tags: AbstractSet[str]) -> dict[str, list[str]]:
        """Return the tags because of which one provider will not do: all that are excluded, or missing, or one list."""
        if disallowed := [tag for tag in self._excluded if tag in tags]:
            return {"disallowed": disallowed}
        unmet = [[tag for tag, _ in group] for group in self._required if not any(tag in tags for tag, _ in group)]
        if missing := [group[0] for group in unmet if len(group) == 1]:
            return {"missing": missing}
        return {"missing_one_of": unmet[0]} if unmet else {}


def tag_requirements(requirements: tuple[TagRequirement, ...]) -> TagRequirements:
    """Return what judges by these needs; those that are not longer than usual are read once."""
    length = sum(len(need) if isinstance(need, str) else sum(map(len, need)) for need in requirements)
    return _parse_cached(requirements) if length <= _MAX_CACHED_CHARS else TagRequirements(requirements)


_parse_cached = lru_cache(maxsize=4096)(TagRequirements)


def _split_sign(tag: str) -> tuple[str, str]:
    """Split a tag into its sign and its name."""
    return (tag[0], tag[1:]) if tag[:1] in ("+", "-") and tag else ("", tag)


def _missing_tag_reason(group: tuple[TagScore, ...]) -> str:
    if not group:
        return "the tag group contains only exclusions and can never match"
    names = [tag for tag, _ in group]
    return f"is missing the tag {names[0]}" if len(names) == 1 else f"has none of the tags {', '.join(names)}"
