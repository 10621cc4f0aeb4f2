"""Names that describe a thing."""

import ast
import re

from tests.support.lua_headers import LUA_FOLDER
from tests.support.source_code import ROOT, parse_file

SAY_NOTHING = {"util", "utils", "helper", "helpers", "manager", "managers", "base", "common", "impl", "misc"}
NAMED = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

SOURCES = sorted(
    path
    for room in ("registry", "client", "tests", "benchmarks", "deploy", "examples")
    for path in (ROOT / room).rglob("*.py")
)


def words(name: str) -> set[str]:
    """Split a name into its words, snake or camel."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def test_a_name_says_something() -> None:
    """No folder, module, class or function has a name that fits any code."""
    for path in SOURCES:
        places = [part.removesuffix(".py") for part in path.relative_to(ROOT).parts]
        names = places + [node.name for node in ast.walk(parse_file(path)) if isinstance(node, NAMED)]

        assert {name for name in names if words(name) & SAY_NOTHING} == set(), path


def test_a_script_is_named_for_what_it_does() -> None:
    """In lower snake case."""
    names = {path.stem for path in LUA_FOLDER.rglob("*.lua")}

    assert {name for name in names if not re.fullmatch(r"[a-z]+(_[a-z]+)*", name) or words(name) & SAY_NOTHING} == set()
