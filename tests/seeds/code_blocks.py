"""The fenced blocks of a document."""

import re
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent
_BLOCK = re.compile(r"^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One block: what stands behind the fence, and what stands inside."""

    kind: str
    text: str


def blocks(document: str) -> list[Block]:
    """Return the fenced blocks of a document that lies beside this file, in order."""
    text = (FOLDER / document).read_text(encoding="utf-8")
    return [Block(found["kind"], found["text"]) for found in _BLOCK.finditer(text)]


def block(document: str, containing: str) -> str:
    """Return the one block that contains a text."""
    (found,) = (each.text for each in blocks(document) if containing in each.text)
    return found
