"""Checks of docs/: links have targets, commands run, and tables are complete."""

import inspect
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from mcp_mesh_client import errors as client_errors
from mcp_mesh_client.errors import ClientError

from registry import errors
from registry.api.error_responses import http_status
from registry.api.mcp.tools import TOOLS
from registry.errors import RegistryError
from registry.model.resolution import STAGE_DESCRIPTIONS
from registry.store.keys import Keys
from registry.store.redis.errors import UNAVAILABLE_REASONS
from tests.support.bash_shell import BashShell
from tests.support.replica import Replica
from tests.test_readme import ROOT, blocks, table

PAGES = sorted((ROOT / "docs").glob("*.md"))
ARCHITECTURE, ERRORS, MCP, SECURITY = (
    (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("architecture", "errors", "mcp", "security")
)
# Codes without an error class: those of the router and of the HTTP server, and internal errors.
CODES_WITHOUT_CLASS = {"not_found": 404, "method_not_allowed": 405, "request_timeout": 408, "internal_error": 500}


def rows(text: str, *headings: str) -> list[list[str]]:
    """Return the rows of all tables of a page whose header begins with these cells."""
    head = re.escape(" | ".join(headings))
    found = re.findall(rf"^\| {head}\b.*\n\| ---.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    lines = [line for each in found for line in each.splitlines()]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]


def named(cell: str) -> list[str]:
    """Return the texts in backticks in a cell."""
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_has_a_target(page: Path) -> None:
    """An existing file and, with an anchor, a heading in it."""
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", page.read_text(encoding="utf-8")):
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in headings}, anchor


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_named_file_exists(page: Path) -> None:
    """Moved code must be renamed in the pages."""
    for name in re.findall(r"`((?:registry|lua|tests|docs|deploy)/[\w./]*)`", page.read_text(encoding="utf-8")):
        assert (ROOT / name).exists(), name


def test_the_index_lists_every_page() -> None:
    """The README links to each page, too."""
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    for page in PAGES:
        assert page.name == "README.md" or f"]({page.name})" in index
        assert f"](docs/{page.name})" in readme


def test_every_attack_has_a_test() -> None:
    """The rows of the threat model are in order, each with links to test modules with tests."""
    found = rows(SECURITY, "row", "attack", "guard", "test")
    numbers = [int(number.removeprefix("T")) for number, *_ in found]

    assert numbers == sorted(set(numbers))
    for number, _, guard, tests in found:
        paths = [ROOT / "docs" / target for target in re.findall(r"\]\(([^)]+)\)", tests)]
        assert guard, number
        assert paths, number
        for path in paths:
            assert path.name.startswith("test_"), path
            assert re.search(r"^(?:async )?def test_", path.read_text(encoding="utf-8"), re.MULTILINE), path


def test_every_error_code_is_explained() -> None:
    """With its status; codes that no response contains have a table of their own."""
    kinds = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, RegistryError)}
    in_responses = {
        kind.code: http_status(kind.__new__(kind)) for kind in kinds if http_status(kind.__new__(kind)) != 500
    }
    explained = {named(code)[0]: int(status) for code, status, *_ in rows(ERRORS, "code", "status")}

    assert explained == in_responses | CODES_WITHOUT_CLASS
    never_sent = {name for code, *_ in rows(ERRORS, "code", "meaning") for name in named(code)}
    assert never_sent == {kind.code for kind in kinds} - in_responses.keys()


def test_the_page_and_the_readme_list_the_same_codes() -> None:
    """With the same statuses."""
    short = {cells[0].strip("`"): int(cells[1]) for cells in table("Errors", "code")}

    assert short == {named(code)[0]: int(status) for code, status, *_ in rows(ERRORS, "code", "status")}


def test_every_reason_is_explained() -> None:
    """Each reason derived from a reply of Redis or set by the registry is listed once."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "registry").rglob("*.py"))
    reasons = {*UNAVAILABLE_REASONS, *re.findall(r'\breason="(\w+)"', text), "unreachable"}
    explained = [name for cells in rows(ERRORS, "`reason`", "meaning") for name in named(cells[0])]

    assert sorted(explained) == sorted(reasons)


def test_the_tree_of_client_errors_matches_the_code() -> None:
    """Every class is below its base class, beside its built-in base."""
    tree: dict[str, tuple[str | None, str | None]] = {}
    path: list[str] = []
    for line in re.findall(r"^(?:[│ ]*[├└]── )?[A-Z]\w+.*$", tree_of_client_errors(), re.MULTILINE):
        branch, name = re.findall(r"^([│├└─ ]*)(\w+)", line)[0]
        builtin = re.findall(rf"{name} +([A-Z]\w+Error)\b", line)
        path = [*path[: len(branch) // 4], name]
        tree[name] = (path[-2] if len(path) > 1 else None, builtin[0] if builtin else None)

    kinds = {
        kind.__name__: kind
        for _, kind in inspect.getmembers(client_errors, inspect.isclass)
        if issubclass(kind, ClientError) and not kind.__name__.startswith("_")
    }
    assert tree.keys() == kinds.keys()
    for name, (above, builtin_name) in tree.items():
        assert above is None or kinds[above] in kinds[name].__mro__[1:]
        own = [base.__name__ for base in kinds[name].__bases__ if base.__module__ == "builtins"]
        if name != "ClientError":
            assert [builtin_name] == own or (builtin_name is None and not own), name


def tree_of_client_errors() -> str:
    """Return the block with the tree."""
    return next(block.text for block in blocks(ERRORS) if block.text.startswith("ClientError"))


def test_every_key_in_redis_is_explained() -> None:
    """The table lists exactly the keys of the store."""
    explained = {name for cells in rows(ARCHITECTURE, "key", "type") for name in named(cells[0])}

    assert explained == {*Keys("m").shared, "agent:<id>", "resolutions:<id>", "jobs_paused"}


def test_every_tool_is_explained() -> None:
    """Its annotations match those in the code."""
    annotations = {name: cells[1] for cells in rows(MCP, "tool", "annotated as") for name in named(cells[0])}

    assert annotations.keys() == {tool.name for tool in TOOLS}
    for tool in TOOLS:
        hints = tool.annotations
        destroys = hints.get("destructiveHint", False)
        words = (
            "Read only" if hints["readOnlyHint"] else "removes data|may overwrite" if destroys else "removes nothing"
        )
        assert re.search(words, annotations[tool.name]), tool.name


def test_every_stage_is_listed() -> None:
    """The stages that reject a candidate, in their order."""
    assert ", ".join(f"`{stage}`" for stage in STAGE_DESCRIPTIONS) in ARCHITECTURE


@pytest.mark.skipif(shutil.which("bash") is None or shutil.which("curl") is None, reason="needs bash and curl")
def test_commands_print_the_output_shown(tmp_path: Path) -> None:
    """The commands of docs/mcp.md, each followed by its output."""
    with (
        Replica(REGISTRY_DATA_DIR=str(tmp_path / "data"), LOG_LEVEL="warning") as replica,
        BashShell(ROOT, {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}) as shell,
    ):
        printed = None
        for block in blocks(MCP):
            if block.kind == "bash":
                printed = shell.run(localize(block.text, replica.url))
            elif printed is not None:
                assert block.text.strip() == printed
                printed = None


def localize(text: str, url: str) -> str:
    """Insert the URL and the interpreter of the test into a block."""
    return text.replace("localhost:8000", url.removeprefix("http://")).replace(".venv/bin/python", sys.executable)
