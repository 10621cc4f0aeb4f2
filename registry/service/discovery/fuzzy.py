"""Approximate matching of names and texts, with a score.

Case is ignored, and `_`, `-`, `.` and blank are one separator. A text that contains the query always matches; otherwise
a name of 8 or more characters matches if its `rapidfuzz.fuzz.ratio` with the query is at least 85. That tolerates one
typing error: in a name of 8, a wrong letter or two swapped letters score 87.5, and a missing or an extra letter scores
more than 93.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final

from rapidfuzz import fuzz, process

MIN_RATIO: Final = 85.0
"""The minimum similarity, of 100, of a name that does not contain the query."""
MIN_NAME_LENGTH: Final = 8
"""The minimum length of such a name: a shorter name with one different letter is a different word."""

NAME_WEIGHT: Final = 1.0
"""The weight of a match in a name, in a search over several texts."""
TAG_WEIGHT: Final = 0.8
"""The weight of a match in a tag: below any match in a name, as the worst match scores 85 and the best 100."""
DESCRIPTION_WEIGHT: Final = 0.6
"""The weight of a match in a description: below any match in a tag."""

# Each kind of match has its own band of scores, so that a better kind always ranks higher. Within its band a match
# scores by the share of the text that the query covers, or by similarity.
_EXACT_SCORE = 100.0
_BAND_WIDTH = (_EXACT_SCORE - MIN_RATIO) / 4
_PREFIX_SCORE = _EXACT_SCORE - _BAND_WIDTH
_WORD_START_SCORE = _PREFIX_SCORE - _BAND_WIDTH
_SUBSTRING_SCORE = _WORD_START_SCORE - _BAND_WIDTH

# A shorter query cannot reach a ratio of 85: five letters in a name of 8 score 2 * 5 / (5 + 8), 77 of 100.
_MIN_QUERY_LENGTH = 6
# No name is longer. A longer text is prose, which would displace the names in the cache.
_MAX_CACHED_NAME_LENGTH = 253

_WORD_PATTERN = re.compile(r"[^\W_]+")
_LONG_WORD_PATTERN = re.compile(rf"[^\W_]{{{MIN_NAME_LENGTH},}}")


def normalize(text: str) -> str:
    """Return a text in the form used for comparisons: case folded, with every separator as an underscore."""
    return text.casefold().replace("-", "_").replace(".", "_").replace(" ", "_")


def name_score(query: str, name: str) -> float | None:
    """Return the similarity of a name to a query, 85 to 100, None if it does not match.

    100: equal. From 96.25: the name begins with the query. From 92.5: one of its words does. From 88.75: the name
    contains the query. From 85: the name is similar.
    """
    query, name = _normalized(query), _normalized(name)
    if query in name:
        return _containment_score(query, name)
    # Most names are excluded by their length, which is cheaper than a comparison.
    if len(query) < _MIN_QUERY_LENGTH or len(name) < MIN_NAME_LENGTH:
        return None
    ratio = fuzz.ratio(query, name, score_cutoff=MIN_RATIO)
    return _similarity_score(ratio) if ratio else None


def text_score(query: str, texts: Iterable[tuple[float, str]]) -> float | None:
    """Return the best weighted score of a query in several texts, None if the query matches none of the texts.

    A text is compared as a whole and word by word, so that a typing error in one word of a description is tolerated. A
    query of several words also matches if each word matches some text; its score is then their mean, if that is higher.
    """
    folded: dict[float, list[str]] = {}
    for weight, text in texts:
        folded.setdefault(weight, []).append(normalize(text))
    query = normalize(query)
    # The texts and their words that may be similar, collected once for all words of the query.
    candidates = {
        weight: [
            each for text in group if len(text) >= MIN_NAME_LENGTH for each in (text, *_LONG_WORD_PATTERN.findall(text))
        ]
        for weight, group in folded.items()
        if len(query) >= _MIN_QUERY_LENGTH
    }
    whole_score = _best_weighted_score(query, folded, candidates)
    words = dict.fromkeys(_WORD_PATTERN.findall(query))
    if len(words) < 2:  # noqa: PLR2004 - one word is the whole query
        return whole_score
    total = 0.0
    for word in words:
        word_score = _best_weighted_score(word, folded, candidates)
        if word_score is None:
            return whole_score
        total += word_score
    return max(whole_score or 0.0, total / len(words))


def _best_weighted_score(
    query: str, texts: Mapping[float, Sequence[str]], candidates: Mapping[float, Sequence[str]]
) -> float | None:
    """Return the best weighted score of a query; it is in a text, or similar to one of the candidates of a weight."""
    best = None
    for weight, group in texts.items():
        scores = [_containment_score(query, text) for text in group if query in text]
        if not scores and len(query) >= _MIN_QUERY_LENGTH:
            match = process.extractOne(query, candidates[weight], scorer=fuzz.ratio, score_cutoff=MIN_RATIO)
            scores = [] if match is None else [_similarity_score(match[1])]
        if scores:
            best = max(best or 0.0, weight * max(scores))
    return best


def _normalized(text: str) -> str:
    return _normalize_cached(text) if len(text) <= _MAX_CACHED_NAME_LENGTH else normalize(text)


_normalize_cached = lru_cache(maxsize=16_384)(normalize)


def _containment_score(query: str, name: str) -> float:
    """Score a name that contains the query."""
    if query == name:
        return _EXACT_SCORE
    covered = _BAND_WIDTH * len(query) / len(name)
    if name.startswith(query):
        return _PREFIX_SCORE + covered
    return (_WORD_START_SCORE if "_" + query in name else _SUBSTRING_SCORE) + covered


def _similarity_score(ratio: float) -> float:
    """Score a name that does not contain the query by its similarity ratio, scaled to the lowest score band."""
    return MIN_RATIO + (ratio - MIN_RATIO) / 4
