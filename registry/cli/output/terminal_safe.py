"""Text from elsewhere, made harmless: a terminal obeys what it is shown."""

import re

# Control characters of either kind, what turns the direction of writing around, line ends that are none to a terminal,
# and halves of surrogate pairs.
_CONTROL_CHARACTERS = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
_UNSAFE_IN_LINE = re.compile(f"[\x00-\x1f{_CONTROL_CHARACTERS}]")
_UNSAFE_IN_DOCUMENT = re.compile(f"[{_CONTROL_CHARACTERS}]")


def escape_terminal(text: str) -> str:
    """Return text for one line of a terminal: what would be obeyed is shown by its number."""
    return _UNSAFE_IN_LINE.sub(lambda found: _escape(found[0], "\\x%02x"), text)


def escape_document(document: str) -> str:
    """Return JSON, or YAML in double quotes, with the same meaning and nothing in it that would be obeyed."""
    return _UNSAFE_IN_DOCUMENT.sub(lambda found: _escape(found[0], "\\u%04x"), document)


def is_terminal_safe(text: str) -> bool:
    """Tell whether text can be shown as it is, on one line or more."""
    return _UNSAFE_IN_DOCUMENT.search(text) is None


def _escape(character: str, byte_format: str) -> str:
    code = ord(character)
    return (byte_format if code <= 0xFF else "\\u%04x") % code  # noqa: PLR2004 - one byte
