"""The project uses the words of docs/glossary.md and none of the retired ones."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.prose import GLOSSARY, SOURCES, Text, find_retired, retired_words, violations
from tests.support.source_code import CLIENT_PACKAGE, PACKAGE, ROOT, modules, parse_file

PLACES = [*SOURCES, "README.md", "CONTRIBUTING.md", "Makefile", "compose.yaml", "pyproject.toml"]

_CAPTION = re.compile(r"[A-Za-z`].{15,}\.")
# Names of limits without an object.
_VAGUE_LIMITS = {
    "AT_ONCE",
    "EVERY",
    "LARGEST",
    "LEAST",
    "LIMIT",
    "LONGEST",
    "MAX",
    "MIN",
    "MOST",
    "PATIENCE",
    "TIMEOUT",
}
# Rooms that serve other products, or have their settings and commands.
_ROOMS_OF_OTHER_PRODUCTS = {"cli", "compat", "config", "main"}
_OTHER_PRODUCTS = re.compile(r"meshctl|meshui|masterminds|flat form", re.IGNORECASE)


@pytest.mark.parametrize("place", PLACES)
def test_no_retired_word_is_used(place: str) -> None:
    """Each line of the report has the place, the word and its replacements."""
    found = violations(ROOT / place)

    assert not found, "\n" + "\n".join(found)


def test_a_retired_word_is_found() -> None:
    """In camel case, snake case and prose; longer words that contain it pass."""
    path = ROOT / "README.md"

    assert find_retired(Text(path, 1, "names", "BellRinger")) == ["bell"]
    assert find_retired(Text(path, 1, "names", "_was_told")) == ["told"]
    assert find_retired(Text(path, 1, "names", "label")) == []
    assert find_retired(Text(path, 1, "prose", "Whoever asks, is\ntold")) == ["whoever", "told"]
    assert find_retired(Text(path, 1, "prose", "An agent on hold")) == []


def test_no_word_is_both_a_term_and_retired() -> None:
    """The glossary does not contradict itself."""
    terms = set(
        re.findall(r"^\| ([\w -]+?) \|", GLOSSARY.read_text(encoding="utf-8").partition("## Retired")[0], re.MULTILINE)
    )

    assert terms & {word for row in retired_words() for word in row.words} == set()


@pytest.mark.parametrize("package", [PACKAGE, CLIENT_PACKAGE], ids=lambda package: package.name)
def test_each_room_has_a_caption(package: Path) -> None:
    """The docstring of each `__init__.py` is a sentence about the contents of the room."""
    captions = {
        name: (ast.get_docstring(parse_file(path)) or "").partition("\n")[0]
        for name, path in modules(package).items()
        if path.name == "__init__.py"
    }

    assert {name: caption for name, caption in captions.items() if not _CAPTION.fullmatch(caption)} == {}


@pytest.mark.parametrize("package", [PACKAGE, CLIENT_PACKAGE], ids=lambda package: package.name)
def test_a_limit_names_its_object_and_its_unit(package: Path) -> None:
    """A number is `_MAX_AGENTS_PER_CALL` or `_READ_TIMEOUT_S`, not `_MOST` or `_PATIENCE`."""
    vague = {
        f"{name}: {constant}"
        for name, path in modules(package).items()
        for constant in _numbers(parse_file(path))
        if constant.lstrip("_") in _VAGUE_LIMITS or constant.endswith(("_TIMEOUT", "_INTERVAL", "_PAUSE", "_DELAY"))
    }

    assert vague == set()


def _numbers(module: ast.Module) -> Iterator[str]:
    """Yield the names of the constants of a module whose value is a number."""
    for node in module.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=int() | float())):
                yield name
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=int() | float())):
                yield name
            case _:
                pass


def test_the_core_names_no_other_product() -> None:
    """Formats and endpoints of other products are in `compat`."""
    found = {
        name
        for name, path in modules().items()
        if name.partition(".")[0] not in _ROOMS_OF_OTHER_PRODUCTS
        and _OTHER_PRODUCTS.search(path.read_text(encoding="utf-8"))
    }

    assert found == set()
