"""Finds the known name that a misspelled one probably stands for."""

from collections.abc import Iterable, Iterator
from functools import lru_cache

# Similar names of fewer letters are often different words, such as `load` and `lead`.
_MIN_LETTERS = 5
_MAX_LETTERS = 40


class NearNames:
    """Finds a known name for a nearly equal one, in time proportional to its length.

    Case, `_`, `-` and the plural do not count, and one letter may be wrong, missing, added or exchanged with the next;
    in a name below five letters only exchanged. The first letter must be right: AUTH_TOKEN is not meant by OAUTH_TOKEN.
    """

    def __init__(self, known: Iterable[str]) -> None:
        self._by_variant: dict[str, str] = {}
        # Agents send the same unknown names with every registration.
        self._find_cached = lru_cache(maxsize=1024)(self._find)
        for name in known:
            stem = _stem(name)
            exchanged = (*_exchanged(stem), *_exchanged(_letters(name))) if len(stem) < _MIN_LETTERS else ()
            for variant in (*_variants(stem), *exchanged):
                self._by_variant.setdefault(variant, name)

    def find(self, name: str) -> str | None:
        """Return the known name that `name` nearly equals, None if there is none."""
        return self._find_cached(name) if len(name) <= _MAX_LETTERS else None

    def _find(self, name: str) -> str | None:
        stem = _stem(name)
        found = (self._by_variant.get(variant) for variant in _variants(stem))
        return next((known for known in found if known is not None and _stem(known)[:1] == stem[:1]), None)


def _letters(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _stem(name: str) -> str:
    letters = _letters(name)
    return f"{letters[:-3]}y" if letters.endswith("ies") else letters.removesuffix("s")


def _variants(stem: str) -> Iterator[str]:
    """Yield a stem, then all its variants without one letter: two similar stems have one of these in common."""
    yield stem
    if len(stem) >= _MIN_LETTERS:
        yield from (stem[:at] + stem[at + 1 :] for at in range(len(stem)))


def _exchanged(letters: str) -> Iterator[str]:
    """Yield a short name with two neighbouring letters exchanged, but not the first."""
    return (letters[:at] + letters[at + 1] + letters[at] + letters[at + 2 :] for at in range(1, len(letters) - 1))
