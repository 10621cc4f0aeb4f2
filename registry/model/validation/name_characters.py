"""Rules for the characters of names, so that two names which look equal are equal.

A name has no invisible and no undefined characters, and is in Unicode normalization form C. A capability or a tag does
not mix Latin, Greek and Cyrillic letters, of which many look alike.

Two invisible characters are part of correct spelling: a joiner where RFC 5892 allows it (IDNA, CONTEXTJ), as in
Persian and Hindi, and a variation selector after a symbol.
"""

import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from registry.model.validation.unicode_ranges import (
    CYRILLIC,
    EMOJI,
    GREEK,
    INVISIBLE,
    JOINING_LEFT,
    JOINING_RIGHT,
    LATIN,
    MARKS,
    VIRAMA,
)

_MAX_SHOWN_CHARS: Final = 60
# Each alternative begins with the character that it accepts, because the search for a literal is fast.
_VALID_CONTEXT = re.compile(
    rf"\u200c(?<=[{JOINING_LEFT}]\u200c)(?=[{MARKS}]*[{JOINING_RIGHT}])"
    rf"|\u200c(?<=[{VIRAMA}]\u200c)|\u200d(?<=[{VIRAMA}]\u200d)"
    rf"|\ufe0e(?<=[{EMOJI}]\ufe0e)|\ufe0f(?<=[{EMOJI}]\ufe0f)"
)
_VALID_AFTER_MARKS = re.compile(rf"([{JOINING_LEFT}][{MARKS}]+)\u200c(?=[{MARKS}]*[{JOINING_RIGHT}])")
_INVISIBLE = re.compile(f"[{INVISIBLE}]")
_REASONS: Final = {"Cf": "invisible", "Cn": f"undefined in Unicode {unicodedata.unidata_version}", "Co": "private-use"}

_SCRIPTS: Final = {"Latin": LATIN, "Greek": GREEK, "Cyrillic": CYRILLIC}
_LETTERS: Final = "".join(_SCRIPTS.values())


def _mixed(script: str) -> str:
    """Return a pattern for text from its first letter, which is of this script, to one of another script."""
    others = "".join(letters for name, letters in _SCRIPTS.items() if name != script)
    return rf"([{_SCRIPTS[script]}][^\n{others}]*[{others}])"


_GREEK_OR_CYRILLIC = re.compile(f"[{GREEK}{CYRILLIC}]")
_MIXED_SCRIPTS = re.compile(rf"^[^\n{_LETTERS}]*(?:{'|'.join(map(_mixed, _SCRIPTS))})", re.MULTILINE)


def are_valid_names(names: Sequence[str], *, one_script: bool) -> bool:
    """Return whether all names satisfy the rules; fast, because they are searched as one text.

    `one_script` is whether they must not mix letters, as capabilities and tags.
    """
    text = "\n".join(names)
    if text.isascii():
        return True
    visible = _without_valid_context(text)
    return (
        # Spaces other than U+0020 are allowed, although Python does not count them as printable.
        "".join(visible.split()).isprintable()
        and _INVISIBLE.search(visible) is None
        and unicodedata.is_normalized("NFC", text)
        and not (one_script and find_mixed_letters(text))
    )


def find_name_problem(name: str, *, one_script: bool) -> str | None:
    """Return the problem of a name that breaks a rule, with the code point; None for a valid name."""
    if name.isascii():
        return None
    for character in _without_valid_context(name):
        if (reason := _hidden_reason(character)) is not None:
            return f"must not contain {_describe(character)}, which is {reason}"
    if not unicodedata.is_normalized("NFC", name):
        start = name[:_MAX_SHOWN_CHARS]
        normalized = json.dumps(unicodedata.normalize("NFC", start))
        return f"must be in Unicode normalization form C (NFC): {normalized}, not {json.dumps(start)}"
    mixed = find_mixed_letters(name) if one_script else None
    return None if mixed is None else f"must not mix {mixed}, which can look alike"


def find_mixed_letters(text: str) -> str | None:
    """Return how a text mixes letters, such as `Latin letters with U+0430 …`; None if it is in one script."""
    # The first search is faster, and finds nothing in most texts.
    mixed = _MIXED_SCRIPTS.search(text) if _GREEK_OR_CYRILLIC.search(text) else None
    if mixed is None:
        return None
    script = list(_SCRIPTS)[(mixed.lastindex or 1) - 1]
    return f"{script} letters with {_describe(mixed[0][-1])}"


def hidden_characters(text: str) -> frozenset[int]:
    """Return the positions of the characters in a text that a name must not contain because a reader cannot see them.

    Control characters and line breaks are left out.
    """
    suspects = {each for each in set(text) if _hidden_reason(each) is not None}
    if not suspects:
        return frozenset()
    valid = {found.end() - 1 for pattern in (_VALID_CONTEXT, _VALID_AFTER_MARKS) for found in pattern.finditer(text)}
    return frozenset(at for at, each in enumerate(text) if each in suspects and at not in valid)


def _without_valid_context(text: str) -> str:
    """Remove the joiners and variation selectors that are part of correct spelling."""
    text = _VALID_CONTEXT.sub("", text)
    return _VALID_AFTER_MARKS.sub(r"\1", text) if "\u200c" in text else text


def _hidden_reason(character: str) -> str | None:
    return "invisible" if _INVISIBLE.match(character) else _REASONS.get(unicodedata.category(character))


def _describe(character: str) -> str:
    """Return a character by code point and name, such as `U+202E RIGHT-TO-LEFT OVERRIDE`."""
    return f"U+{ord(character):04X} {unicodedata.name(character, '')}".rstrip()
