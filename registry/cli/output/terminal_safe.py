"""Escapes the characters that a terminal would execute or not show."""

import re
from collections.abc import Callable

# Control characters, Unicode line separators, and lone surrogates.
_CONTROL_CHARACTERS = "\x7f-\x9f\u2028\u2029\ud800-\udfff"
_UNSAFE_IN_LINE = re.compile(f"[\x00-\x1f{_CONTROL_CHARACTERS}]")
_UNSAFE_IN_DOCUMENT = re.compile(f"[{_CONTROL_CHARACTERS}]")
_MAX_BYTE, _MAX_BMP = 0xFF, 0xFFFF


def escape_terminal(text: str) -> str:
    """Return a text as one line for a terminal, with control and hidden characters as escape sequences."""
    return _UNSAFE_IN_LINE.sub(lambda match: _escape_in_line(match[0]), _escape_hidden(text, _escape_in_line))


def escape_document(document: str, *, is_json: bool = True) -> str:
    """Return an equivalent JSON or YAML document in which control and hidden characters are escaped."""
    escape = _escape_in_json if is_json else _escape_in_line
    return _UNSAFE_IN_DOCUMENT.sub(lambda match: _escape_in_json(match[0]), _escape_hidden(document, escape))


def is_terminal_safe(text: str) -> bool:
    """Return whether a text can be printed to a terminal unchanged."""
    return _UNSAFE_IN_DOCUMENT.search(text) is None and not _hidden_characters(text)


def _escape_hidden(text: str, escape: Callable[[str], str]) -> str:
    hidden = _hidden_characters(text)
    if not hidden:
        return text
    return "".join(escape(each) if at in hidden else each for at, each in enumerate(text))


def _hidden_characters(text: str) -> frozenset[int]:
    """Return the positions of characters that are invisible, undefined or private, as no new name contains them."""
    if text.isascii():
        return frozenset()
    from registry.model.validation.name_characters import hidden_characters

    return hidden_characters(text)


def _escape_in_line(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code <= _MAX_BYTE else f"\\u{code:04x}" if code <= _MAX_BMP else f"\\U{code:08x}"


def _escape_in_json(character: str) -> str:
    """Return the escape sequence of JSON: UTF-16, so a pair for a character above U+FFFF; YAML reads it as well."""
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
