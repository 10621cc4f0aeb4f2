"""Escapes control characters, which a terminal would execute."""

import re

# Control characters, characters that change the text direction, Unicode line separators, and lone surrogates.
_CONTROL_CHARACTERS = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
_UNSAFE_IN_LINE = re.compile(f"[\x00-\x1f{_CONTROL_CHARACTERS}]")
_UNSAFE_IN_DOCUMENT = re.compile(f"[{_CONTROL_CHARACTERS}]")


def escape_terminal(text: str) -> str:
    """Return a text as one line for a terminal, with control characters as escape sequences."""
    return _UNSAFE_IN_LINE.sub(lambda match: _escape(match[0], "\\x%02x"), text)


def escape_document(document: str) -> str:
    """Return an equivalent JSON or YAML document in which control characters are escaped."""
    return _UNSAFE_IN_DOCUMENT.sub(lambda match: _escape(match[0], "\\u%04x"), document)


def is_terminal_safe(text: str) -> bool:
    """Return whether a text can be printed to a terminal unchanged."""
    return _UNSAFE_IN_DOCUMENT.search(text) is None


def _escape(character: str, byte_format: str) -> str:
    code = ord(character)
    return (byte_format if code <= 0xFF else "\\u%04x") % code  # noqa: PLR2004 - one byte
