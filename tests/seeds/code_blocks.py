"""The fenced blocks of a document."""

import re
from pathlib import Path
from typing import NamedTuple

DOCUMENTS_DIR = Path(__file__).parent
_FENCED_BLOCK = re.compile(r"^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


class CodeBlock(NamedTuple):
    """One block: what stands behind the fence, and what stands inside."""

    language: str
    text: str


def code_blocks(document: str) -> list[CodeBlock]:
    """Return the fenced blocks of a document that lies beside this file, in order."""
    text = (DOCUMENTS_DIR / document).read_text(encoding="utf-8")
    return [CodeBlock(found["kind"], found["text"]) for found in _FENCED_BLOCK.finditer(text)]


def find_code_block(document: str, containing: str) -> str:
    """Return the one block that contains a text."""
    (found,) = (each.text for each in code_blocks(document) if containing in each.text)
    return found
