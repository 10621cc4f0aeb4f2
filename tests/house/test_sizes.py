"""Files and functions that fit on a screen or a few."""

import ast
from pathlib import Path

from tests.support.lua_headers import LUA_FOLDER
from tests.support.source_code import PACKAGE, ROOT, parse_file

MODULE, FUNCTION, SCRIPT, INCLUDE = 300, 40, 80, 35

# What may be longer, each with its present length as its limit; it may only shrink. Empty is how it should be.
LONGER: dict[str, int] = {}

SOURCES = sorted(PACKAGE.rglob("*.py"))


def limit(name: str, usual: int) -> int:
    """Return how many lines this one may have."""
    return LONGER.get(name, usual)


def shown(path: Path) -> str:
    """Return a path as a person would write it."""
    return str(path.relative_to(ROOT))


def lines(path: Path) -> int:
    """Count a file's lines."""
    return len(path.read_text(encoding="utf-8").splitlines())


def functions(path: Path) -> dict[str, int]:
    """Return the length of each function from `def` to its end, by the names it is nested in."""
    found: dict[str, int] = {}

    def visit(node: ast.AST, inside: str) -> None:
        for child in ast.iter_child_nodes(node):
            name = f"{inside}{child.name}" if isinstance(child, (ast.ClassDef, *FUNCTIONS)) else inside
            if isinstance(child, FUNCTIONS):
                found[name] = (child.end_lineno or child.lineno) - child.lineno + 1
            visit(child, name + "." if name != inside else inside)

    visit(parse_file(path), f"{shown(path)}: ")
    return found


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def test_a_module_is_short() -> None:
    """One noun per file."""
    sizes = {shown(path): lines(path) for path in SOURCES}

    assert {name: count for name, count in sizes.items() if count > limit(name, MODULE)} == {}


def test_a_function_is_short() -> None:
    """With its docstring."""
    sizes = {name: count for path in SOURCES for name, count in functions(path).items()}

    assert {name: count for name, count in sizes.items() if count > limit(name, FUNCTION)} == {}


def test_a_script_is_short() -> None:
    """With its header; an include is one function."""
    scripts = {shown(path): (lines(path), SCRIPT) for path in LUA_FOLDER.glob("*.lua")}
    includes = {shown(path): (lines(path), INCLUDE) for path in (LUA_FOLDER / "include").glob("*.lua")}

    sizes = scripts | includes
    assert {name: count for name, (count, usual) in sizes.items() if count > limit(name, usual)} == {}


def test_an_exception_is_one_still() -> None:
    """What shrank under the usual limit leaves the table."""
    sizes = {shown(path): (lines(path), MODULE) for path in SOURCES}
    sizes |= {name: (count, FUNCTION) for path in SOURCES for name, count in functions(path).items()}

    assert {name for name in LONGER if name not in sizes or sizes[name][0] <= sizes[name][1]} == set()
