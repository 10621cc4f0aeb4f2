"""Label selectors: text to the labels an agent must carry."""

import re

from registry.errors import Detail, MalformedRequest

_TERM = re.compile(r"\s*([A-Za-z0-9._/-]+)\s*==?\s*([A-Za-z0-9._-]*)\s*")


def read_selector(text: str, field: str = "label_selector") -> tuple[tuple[str, str], ...]:
    """Read `key=value,key=value`. Raises MalformedRequest naming the term that cannot be read."""
    labels = []
    for term in text.split(","):
        found = _TERM.fullmatch(term)
        if found is None:
            problem = f"cannot read {term[:60]!r}; write key=value, several joined by commas"
            raise MalformedRequest(f"{field}: {problem}", [Detail(field, problem)])
        labels.append((found[1], found[2]))
    return tuple(labels)
