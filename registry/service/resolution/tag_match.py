"""The tags a dependency wants: `t` must be there, `+t` is preferred, `-t` excludes, of a list inside one is enough."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

# What a tag that is there is worth, by the sign before it.
_WORTH: Final = {"": 5, "+": 10}

# The length of what is wanted, in characters, up to which it is kept.
_USUAL: Final = 1_000

TagNeed: TypeAlias = str | tuple[str, ...]
Worth: TypeAlias = tuple[str, int]


class Judged(NamedTuple):
    """How well some tags meet what is wanted; `lacks` says why they do not, None where they do."""

    score: int
    lacks: str | None


class TagNeeds:
    """Judges the tags of providers. Case matters; what is said twice counts twice.

    A list is met by any member that is there and counts as much as the best of these; a `-` in it excludes as it does
    outside, and is nothing that could be met. Nothing, `+` and `-` alone ask for nothing, nor do lists of these.
    """

    def __init__(self, needs: Sequence[TagNeed]) -> None:
        excluded: list[str] = []
        self._required: list[tuple[Worth, ...]] = []
        self._preferred: list[Worth] = []
        for need in needs:
            members = [_read(tag) for tag in ((need,) if isinstance(need, str) else need)]
            members = [(sign, tag) for sign, tag in members if tag]
            excluded += [tag for sign, tag in members if sign == "-"]
            wanted = tuple((tag, _WORTH[sign]) for sign, tag in members if sign != "-")
            if isinstance(need, str) and members and members[0][0] == "+":
                self._preferred += wanted
            elif wanted or (members and not isinstance(need, str)):
                self._required.append(wanted)
        self._excluded = tuple(dict.fromkeys(excluded))

    def judge(self, tags: AbstractSet[str]) -> Judged:
        """Return how well the tags of one provider meet what is wanted."""
        for tag in self._excluded:
            if tag in tags:
                return Judged(0, f"has the excluded tag {tag}")
        score = 0
        for group in self._required:
            best = max((worth for tag, worth in group if tag in tags), default=0)
            if not best:
                return Judged(0, _missing(group))
            score += best
        return Judged(score + sum(worth for tag, worth in self._preferred if tag in tags), None)

    def misses(self, tags: AbstractSet[str]) -> dict[str, list[str]]:
        """Return the tags because of which one provider will not do: all that are excluded, or missing, or one list."""
        if disallowed := [tag for tag in self._excluded if tag in tags]:
            return {"disallowed": disallowed}
        unmet = [[tag for tag, _ in group] for group in self._required if not any(tag in tags for tag, _ in group)]
        if missing := [group[0] for group in unmet if len(group) == 1]:
            return {"missing": missing}
        return {"missing_one_of": unmet[0]} if unmet else {}


def tag_needs(needs: tuple[TagNeed, ...]) -> TagNeeds:
    """Return what judges by these needs; those that are not longer than usual are read once."""
    length = sum(len(need) if isinstance(need, str) else sum(map(len, need)) for need in needs)
    return _read_once(needs) if length <= _USUAL else TagNeeds(needs)


_read_once = lru_cache(maxsize=4096)(TagNeeds)


def _read(tag: str) -> tuple[str, str]:
    """Split a tag into its sign and its name."""
    return (tag[0], tag[1:]) if tag[:1] in ("+", "-") and tag else ("", tag)


def _missing(group: tuple[Worth, ...]) -> str:
    if not group:
        return "no list of exclusions alone can be met"
    names = [tag for tag, _ in group]
    return f"lacks the tag {names[0]}" if len(names) == 1 else f"lacks each of the tags {', '.join(names)}"
