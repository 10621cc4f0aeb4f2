"""Limits on the length of files, functions and Lua scripts."""

import ast
from pathlib import Path

from tests.support.lua_headers import LUA_FOLDER
from tests.support.source_code import CLIENT_PACKAGE, PACKAGE, ROOT, parse_file

MAX_MODULE_LINES, MAX_FUNCTION_LINES, MAX_SCRIPT_LINES, MAX_INCLUDE_LINES = 400, 60, 200, 40

# Exceptions, each with its present length as its limit: they may only shrink.
LONGER: dict[str, int] = {}

SOURCES = sorted(path for package in (PACKAGE, CLIENT_PACKAGE) for path in package.rglob("*.py"))


def limit(name: str, usual: int) -> int:
    """Return the limit of a file or function."""
    return LONGER.get(name, usual)


def shown(path: Path) -> str:
    """Return a path relative to the repository."""
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
    """A module has one subject."""
    sizes = {shown(path): lines(path) for path in SOURCES}

    assert {name: count for name, count in sizes.items() if count > limit(name, MAX_MODULE_LINES)} == {}


def test_a_function_is_short() -> None:
    """Its docstring counts."""
    sizes = {name: count for path in SOURCES for name, count in functions(path).items()}

    assert {name: count for name, count in sizes.items() if count > limit(name, MAX_FUNCTION_LINES)} == {}


def test_a_script_is_short() -> None:
    """Its header counts; an include is one function."""
    scripts = {shown(path): (lines(path), MAX_SCRIPT_LINES) for path in LUA_FOLDER.glob("*.lua")}
    includes = {shown(path): (lines(path), MAX_INCLUDE_LINES) for path in (LUA_FOLDER / "include").glob("*.lua")}

    sizes = scripts | includes
    assert {name: count for name, (count, usual) in sizes.items() if count > limit(name, usual)} == {}


def test_each_exception_is_needed() -> None:
    """A file or function below the usual limit leaves the table."""
    sizes = {shown(path): (lines(path), MAX_MODULE_LINES) for path in SOURCES}
    sizes |= {name: (count, MAX_FUNCTION_LINES) for path in SOURCES for name, count in functions(path).items()}

    assert {name for name in LONGER if name not in sizes or sizes[name][0] <= sizes[name][1]} == set()
