"""Names that are nearly what was asked for, best first.

Case does not count, and `_`, `-`, `.` and blank are one separator. A text that holds the query always matches; else a
name of 8 or more characters does whose `rapidfuzz.fuzz.ratio` with the query is at least 85. That forgives one slip: a
wrong letter or two swapped ones in a name of 8 make 87.5, a missing or an extra one more than 93.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from rapidfuzz import fuzz, process

LEAST_RATIO: Final = 85.0
"""How alike a name must be that does not hold the query, of 100."""
LEAST_LENGTH: Final = 8
"""How long such a name must be: in a short one, another letter makes another word."""

NAME_WEIGHT: Final = 1.0
"""What a match in a name counts in a search over several texts."""
TAG_WEIGHT: Final = 0.8
"""What a match in a tag counts: less than any in a name, as the worst match scores 85 and the best 100."""
DESCRIPTION_WEIGHT: Final = 0.6
"""What a match in a description counts: less than any in a tag."""

# Each kind of match has a band of its own, so that a better kind is always ahead. Within its band a match is the higher
# the more of the text the query covers, or the more alike the two are.
_EXACT = 100.0
_BAND = (_EXACT - LEAST_RATIO) / 4
_PREFIX = _EXACT - _BAND
_WORD = _PREFIX - _BAND
_INSIDE = _WORD - _BAND

# With fewer letters no ratio can reach 85: five of them in a name of 8 make 2 * 5 / (5 + 8), 77 of 100.
_LEAST_QUERY = 6
# The longest name there is. What is longer is prose, and would fill the memory kept for names.
_LONGEST_NAME = 253

_ANY_WORD = re.compile(r"[^\W_]+")
_LONG_WORD = re.compile(rf"[^\W_]{{{LEAST_LENGTH},}}")


def fold(text: str) -> str:
    """Return a text as it is compared: without case, every separator an underscore."""
    return text.casefold().replace("-", "_").replace(".", "_").replace(" ", "_")


def matches(query: str, name: str) -> float | None:
    """Return how near a name is to a query, 85 to 100, None where that is not near enough.

    100 is the query itself. From 96.25 the name begins with it, from 92.5 one of its words does, from 88.75 it holds
    the query, and from 85 it is alike.
    """
    query, name = _folded(query), _folded(name)
    if query in name:
        return _holding(query, name)
    # Most names are told apart by lengths alone, which is cheaper than to compare them.
    if len(query) < _LEAST_QUERY or len(name) < LEAST_LENGTH:
        return None
    ratio = fuzz.ratio(query, name, score_cutoff=LEAST_RATIO)
    return _alike(ratio) if ratio else None


def best(query: str, texts: Iterable[tuple[float, str]]) -> float | None:
    """Return the best weighted score of a query in some texts, each with its weight; None where it matches none.

    A text counts as a whole and word by word, so a slip in one word of a description is forgiven too. A query of
    several words also matches where each of them matches some text; its score is then their mean, if that is better.
    """
    folded = [(weight, fold(text)) for weight, text in texts]
    query = fold(query)
    found = _best(query, folded)
    words = dict.fromkeys(_ANY_WORD.findall(query))
    if len(words) < 2:  # noqa: PLR2004 - one word is the whole query
        return found
    total = 0.0
    for word in words:
        of_word = _best(word, folded)
        if of_word is None:
            return found
        total += of_word
    return max(found or 0.0, total / len(words))


def _best(query: str, folded: Iterable[tuple[float, str]]) -> float | None:
    return max((weight * found for weight, text in folded if (found := _in_text(query, text))), default=None)


def _in_text(query: str, text: str) -> float | None:
    if query in text:
        return _holding(query, text)
    if len(query) < _LEAST_QUERY or len(text) < LEAST_LENGTH:
        return None
    near = process.extractOne(query, [text, *_LONG_WORD.findall(text)], scorer=fuzz.ratio, score_cutoff=LEAST_RATIO)
    return None if near is None else _alike(near[1])


def _folded(text: str) -> str:
    return _kept(text) if len(text) <= _LONGEST_NAME else fold(text)


_kept = lru_cache(maxsize=16_384)(fold)


def _holding(query: str, name: str) -> float:
    """Score a name that holds the query."""
    if query == name:
        return _EXACT
    covered = _BAND * len(query) / len(name)
    if name.startswith(query):
        return _PREFIX + covered
    return (_WORD if "_" + query in name else _INSIDE) + covered


def _alike(ratio: float) -> float:
    """Score a name that does not: its ratio, 85 to 100, pressed into the lowest band."""
    return LEAST_RATIO + (ratio - LEAST_RATIO) / 4
