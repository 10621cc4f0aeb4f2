"""Text for terminals: control and hidden characters are escaped, all other characters stay."""

import json

import pytest
import yaml  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from registry.cli.output.terminal_safe import escape_document, escape_terminal, is_terminal_safe


@pytest.mark.parametrize(
    "text",
    ["plain", "Grüße", "日本語", "😀 ⚙\ufe0f", "a\\x1b", "עברית", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"],
)
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


@pytest.mark.parametrize(
    "code", [0xAD, 0x200B, 0x200C, 0x200D, 0x2060, 0x202E, 0x0378, 0xE000, 0x3164, 0xE0041, 0x10FFFD]
)
def test_a_hidden_character_is_shown_by_its_code_point(code: int) -> None:
    """It is invisible, undefined or private. In JSON and in YAML the escaped text decodes to the same character."""
    text = f"p{chr(code)}ay"

    shown = escape_terminal(text)

    assert shown in (f"p\\x{code:02x}ay", f"p\\u{code:04x}ay", f"p\\U{code:08x}ay")
    document = escape_document(json.dumps(text, ensure_ascii=False))
    assert document.isascii()
    assert json.loads(document) == text
    assert yaml.safe_load(escape_document(f'"{text}"', is_json=False)) == text


@given(st.text())
def test_any_text_is_shown_without_hidden_characters(text: str) -> None:
    """What is shown can be printed unchanged."""
    assert is_terminal_safe(escape_terminal(text))
    assert json.loads(escape_document(json.dumps(text, ensure_ascii=False))) == text
