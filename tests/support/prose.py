"""The words of the project: where each stands, and which of them are retired (docs/glossary.md).

`python -m tests.support.prose PATH...` prints the retired words below the paths.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from tests.support.source_code import ROOT

Kind = Literal["names", "prose"]

GLOSSARY = ROOT / "docs" / "glossary.md"

# Texts of other authors, and the page that lists the words.
EXCLUDED = ("tests/seeds/", "docs/glossary.md", "CHANGELOG.md", "tests/support/prose.py")
SUFFIXES = {".py", ".lua", ".md", ".yaml", ".toml", ".sh", ".cfg", ".tpl"}
SOURCES = ("registry", "client", "lua", "tests", "benchmarks", "deploy", "examples", "docs")
SKIPPED = {"__pycache__", ".venv", "golden", "vendor"}

# Function names that the seeds print.
QUOTED_NAMES = {"farewell"}


@dataclass(frozen=True, slots=True)
class Retired:
    """One row of the table of retired words: a pattern for each kind of text, and the words to use."""

    words: tuple[str, ...]
    kinds: frozenset[str]
    replacement: str


@dataclass(frozen=True, slots=True)
class Text:
    """A name or a piece of prose, and where it stands."""

    path: Path
    line: int
    kind: Kind
    value: str


@cache
def retired_words() -> tuple[Retired, ...]:
    """Read the table of retired words."""
    table = GLOSSARY.read_text(encoding="utf-8").partition("\n## Retired words\n")[2]
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in table.splitlines() if "|" in line]
    return tuple(
        Retired(tuple(words.split(", ")), frozenset(kinds.split(", ")), replacement)
        for words, kinds, replacement in rows[2:]
    )


@cache
def _pattern(kind: Kind) -> re.Pattern[str]:
    words = [word for row in retired_words() if kind in row.kinds for word in row.words]
    return re.compile(rf"\b({'|'.join(map(re.escape, sorted(words, key=len, reverse=True)))})\b", re.IGNORECASE)


def replacement_of(word: str, kind: Kind) -> str:
    """Return the words to use instead."""
    return next(row.replacement for row in retired_words() if kind in row.kinds and word.lower() in row.words)


def words_of(name: str) -> str:
    """Split a name into its words, snake or camel: `HeartbeatResult` is `heartbeat result`."""
    return " ".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)).lower()


def find_retired(text: Text) -> list[str]:
    """Return the retired words in one text."""
    if text.value in QUOTED_NAMES:
        return []
    value = words_of(text.value) if text.kind == "names" else re.sub(r"\s+", " ", text.value)
    return [match[1].lower() for match in _pattern(text.kind).finditer(value)]


def files(*below: Path) -> list[Path]:
    """Return the files of the project whose words count, below the paths or all of them."""
    roots = below or (*(ROOT / name for name in SOURCES), *ROOT.glob("*.md"), *ROOT.glob("*.yaml"))
    found = (path for root in roots for path in (root.rglob("*") if root.is_dir() else [root]))
    return sorted(
        path
        for path in found
        if (path.suffix in SUFFIXES or path.name == "Dockerfile")
        and not SKIPPED & set(path.parts)
        and not str(path.relative_to(ROOT)).startswith(EXCLUDED)
    )


def texts(path: Path) -> Iterator[Text]:
    """Yield the names and the prose of one file."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from _python_texts(path, source)
        return
    if path.suffix == ".md":
        for number, line in enumerate(_without_code(source).splitlines(), 1):
            yield Text(path, number, "prose", line)
        return
    for number, line in enumerate(source.splitlines(), 1):
        comment = re.search(r"(?:^|\s)(?:--|#)\s(.*)", line)
        if comment is not None:
            yield Text(path, number, "prose", comment[1])


def _without_code(markdown: str) -> str:
    """Blank out code blocks, code spans and link targets; the lines stay where they are."""
    blocks = re.sub(r"^```.*?^```", lambda block: "\n" * block[0].count("\n"), markdown, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`|\]\([^)\n]*\)", "", blocks)


def _python_texts(path: Path, source: str) -> Iterator[Text]:
    yield Text(path, 1, "names", path.stem)
    product = "tests" not in path.relative_to(ROOT).parts
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield Text(path, node.lineno, "names", node.name)
            case ast.arg():
                yield Text(path, node.lineno, "names", node.arg)
            case ast.Name(id=name, ctx=ast.Store()):
                yield Text(path, node.lineno, "names", name)
            case ast.Attribute(attr=name, ctx=ast.Store()):
                yield Text(path, node.lineno, "names", name)
            case ast.Constant(value=str(value)) if product or _is_docstring(value):
                yield Text(path, node.lineno, "prose", re.sub(r"`[^`]*`", "", value))
            case _:
                pass
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Text(path, token.start[0], "prose", re.sub(r"`[^`]*`", "", token.string))


def _is_docstring(value: str) -> bool:
    """Return whether a string of a test is a sentence of ours; other strings are data."""
    return value[:1].isupper() and value.rstrip().endswith(".")


def violations(*below: Path) -> list[str]:
    """Return every retired word as `path:line: word -> use`."""
    return [
        f"{text.path.relative_to(ROOT)}:{text.line}: {word!r} in {text.value.strip()[:80]!r}"
        f" -> {replacement_of(word, text.kind)}"
        for path in files(*below)
        for text in texts(path)
        for word in find_retired(text)
    ]


if __name__ == "__main__":
    found = violations(*(Path(name).resolve() for name in sys.argv[1:]))
    sys.stdout.write("\n".join([*found, f"{len(found)} retired words", ""]))
