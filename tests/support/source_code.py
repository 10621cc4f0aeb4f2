"""The package's own source, as syntax trees: what the house rules look at."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "registry"


def module_name(path: Path) -> str:
    """Return the dotted name of a module inside the package: `store.link`, `api` for a package, '' for the top one."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    """Return every module of the package by its name."""
    return {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def parse_file(path: Path) -> ast.Module:
    """Parse one file."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported_names(path: Path) -> Iterator[str]:
    """Yield the full dotted name of everything a file imports, wherever in it: `registry.store.redis.pipeline.Link`."""
    for node in ast.walk(parse_file(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports name the package in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def internal_imports(path: Path) -> set[str]:
    """Return the modules of the package a file imports, by their names here."""
    found = set()
    for name in imported_names(path):
        if name == "registry" or name.startswith("registry."):
            inside = name.removeprefix("registry").removeprefix(".")
            found.add(inside if inside in modules() else inside.rpartition(".")[0])
    return found


def external_imports(path: Path) -> set[str]:
    """Return the top-level names a file imports from elsewhere."""
    return {name.partition(".")[0] for name in imported_names(path)} - {"registry"}
