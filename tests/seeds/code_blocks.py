"""The fenced code blocks of a document."""

import re
from pathlib import Path
from typing import NamedTuple

DOCUMENTS_DIR = Path(__file__).parent
_FENCED_BLOCK = re.compile(r"^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


class CodeBlock(NamedTuple):
    """One code block: its language and its text."""

    language: str
    text: str


def code_blocks(document: str) -> list[CodeBlock]:
    """Return the code blocks of a document in this folder, in order."""
    text = (DOCUMENTS_DIR / document).read_text(encoding="utf-8")
    return [CodeBlock(found["kind"], found["text"]) for found in _FENCED_BLOCK.finditer(text)]


def find_code_block(document: str, containing: str) -> str:
    """Return the only block that contains a text."""
    (found,) = (each.text for each in code_blocks(document) if containing in each.text)
    return found
