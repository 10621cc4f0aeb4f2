"""Names describe their objects."""

import ast
import re

from tests.support.lua_headers import LUA_FOLDER
from tests.support.source_code import ROOT, parse_file

VAGUE_WORDS = {"util", "utils", "helper", "helpers", "manager", "managers", "base", "common", "impl", "misc"}
NAMED = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

SOURCES = sorted(
    path
    for room in ("registry", "client", "tests", "benchmarks", "deploy", "examples")
    for path in (ROOT / room).rglob("*.py")
)


def words(name: str) -> set[str]:
    """Split a name in snake case or camel case into its words."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def test_a_name_is_specific() -> None:
    """No folder, module, class or function has a name that fits any code."""
    for path in SOURCES:
        places = [part.removesuffix(".py") for part in path.relative_to(ROOT).parts]
        names = places + [node.name for node in ast.walk(parse_file(path)) if isinstance(node, NAMED)]

        assert {name for name in names if words(name) & VAGUE_WORDS} == set(), path


def test_a_script_name_is_specific() -> None:
    """It is in lower snake case."""
    names = {path.stem for path in LUA_FOLDER.rglob("*.lua")}

    assert {name for name in names if not re.fullmatch(r"[a-z]+(_[a-z]+)*", name) or words(name) & VAGUE_WORDS} == set()
