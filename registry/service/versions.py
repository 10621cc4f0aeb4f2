"""Version constraints: `>=1.0.0`, several joined by commas or blanks, all of which must hold."""

import operator
import re
from collections.abc import Callable
from functools import lru_cache

from registry.errors import Detail, MalformedRequest

# Compares like semver: numbers, then a release above its pre-releases, then the pre-release part by part.
Ordered = tuple[tuple[int, int, int], int, tuple[tuple[int, int, str], ...]]

_VERSION = re.compile(r"v?(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?")
_TERM = re.compile(r"(>=|<=|==|>|<|=)?\s*([^\s,<>=]+)")
_HOLDS: dict[str, Callable[[Ordered, Ordered], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
    "=": operator.eq,
    "==": operator.eq,
    "": operator.eq,
}


@lru_cache(maxsize=4096)
def order(version: str) -> Ordered | None:
    """Return what a version sorts by, None for text that is no version. Missing numbers are 0."""
    found = _VERSION.fullmatch(version)
    if found is None:
        return None
    numbers = (int(found[1]), int(found[2] or 0), int(found[3] or 0))
    parts = found[4].split(".") if found[4] else []
    return numbers, int(not parts), tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts)


@lru_cache(maxsize=1024)
def constraint(text: str) -> Callable[[str], bool]:
    """Return the test that a constraint stands for. Raises MalformedRequest for one that cannot be read.

    A pre-release passes only where the constraint names one itself.
    """
    terms: list[tuple[Callable[[Ordered, Ordered], bool], Ordered]] = []
    rest = text.strip()
    while rest:
        found = _TERM.match(rest)
        bound = order(found[2]) if found else None
        if found is None or bound is None:
            problem = f"cannot read {rest[:60]!r}; write for example >=1.0.0 or >=1.0.0,<2.0.0"
            raise MalformedRequest(f"version_constraint: {problem}", [Detail("version_constraint", problem)])
        terms.append((_HOLDS[found[1] or ""], bound))
        rest = rest[found.end() :].lstrip(" ,\t")
    names_prerelease = any(bound[2] for _, bound in terms)

    def passes(version: str) -> bool:
        ordered = order(version)
        if ordered is None or (ordered[2] and not names_prerelease):
            return False
        return all(holds(ordered, bound) for holds, bound in terms)

    return passes
