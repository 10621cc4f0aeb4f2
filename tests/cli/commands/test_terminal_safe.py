"""Text for terminals: control characters are escaped, all other characters stay."""

import json

import pytest

from registry.cli.output.terminal_safe import escape_document, escape_terminal


@pytest.mark.parametrize("text", ["plain", "Grüße", "日本語", "😀 👩‍👩‍👧", "a\\x1b", "עברית"])
def test_harmless_text_is_unchanged(text: str) -> None:
    """This holds for all scripts."""
    assert escape_terminal(text) == text
    assert escape_document(text) == text


@pytest.mark.parametrize("code", [*range(0x20), *range(0x7F, 0xA0), 0x202E, 0x2066, 0x2028, 0xFEFF, 0xD800])
def test_a_control_character_is_shown_as_a_number(code: int) -> None:
    """In JSON the escaped text decodes to the same character."""
    shown = escape_terminal(f"a{chr(code)}b")

    assert shown in (f"a\\x{code:02x}b", f"a\\u{code:04x}b")
    document = escape_document(json.dumps(chr(code), ensure_ascii=False))
    assert document.isascii()
    assert document.isprintable()
    assert json.loads(document) == chr(code)
