"""Source code of the two packages, `registry` and `mcp_mesh_client`, as syntax trees and import graphs."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "registry"
CLIENT_PACKAGE = ROOT / "client" / "mcp_mesh_client"


def package_of(path: Path) -> Path:
    """Return the folder of the package that contains a file."""
    return next(package for package in (PACKAGE, CLIENT_PACKAGE) if path.is_relative_to(package))


def module_name(path: Path) -> str:
    """Return the dotted name of a module inside its package: `store.leader_lock`; '' for the package itself."""
    parts = path.relative_to(package_of(path)).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Return every module of a package by its dotted name."""
    return {module_name(path): path for path in sorted(package.rglob("*.py"))}


@cache
def parse_file(path: Path) -> ast.Module:
    """Parse one file."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported_names(path: Path) -> Iterator[str]:
    """Yield the dotted name of every import of a file, also a local one: `registry.store.leader_lock.Leadership`."""
    for node in ast.walk(parse_file(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports must be absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def internal_imports(path: Path) -> set[str]:
    """Return the modules of its own package that a file imports, by their names inside the package."""
    package = package_of(path)
    found = set()
    for name in imported_names(path):
        top, _, inside = name.partition(".")
        if top == package.name:
            found.add(inside if inside in modules(package) else inside.rpartition(".")[0])
    return found


def external_imports(path: Path) -> set[str]:
    """Return the top-level names of the packages that a file imports, except its own package."""
    return {name.partition(".")[0] for name in imported_names(path)} - {package_of(path).name}
