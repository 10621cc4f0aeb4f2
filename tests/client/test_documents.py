"""The README describes the client completely."""

import importlib
import inspect
import re

import pytest
from mcp_mesh_client import ClientError, RegistryClient, errors
from mcp_mesh_client import __all__ as exported
from mcp_mesh_client.agent import env
from mcp_mesh_client.config import TOKEN_ENV, URL_ENV, ClientConfig, ClientOptions
from mcp_mesh_client.keep_alive import DEFAULT_INTERVAL_S

from tests.test_readme import section, table


def test_the_readme_lists_exactly_the_public_methods() -> None:
    """Each method has its own row."""
    rows = [re.findall(r"^`(\w+)\(", cells[0])[0] for cells in table("Python client", "method")]
    public = {name for name, _ in inspect.getmembers(RegistryClient, inspect.isfunction) if not name.startswith("_")}

    assert sorted(rows) == sorted(public)


def test_the_readme_lists_all_errors_with_their_builtin_bases() -> None:
    """Every exported error has a row with the built-in exception that also catches it."""
    rows = {cells[0].strip("`"): cells[1].strip("`") for cells in table("Python client", "error")}
    kinds = [kind for name in exported if inspect.isclass(kind := getattr(errors, name, None))]
    expected = {
        kind.__name__: next(base.__name__ for base in kind.__mro__ if base.__module__ == "builtins")
        for kind in kinds
        if kind is not ClientError
    }

    assert rows == expected


def test_the_readme_lists_all_options_with_their_defaults() -> None:
    """The order is that of the code."""
    rows = {cells[0].strip("`"): cells[1].strip("`") for cells in table("Python client", "option")}
    defaults = ClientConfig(("http://a",))

    assert list(rows) == list(ClientOptions.__annotations__)
    assert {name: rows[name] for name in rows if name != "security_contexts"} == {
        name: str(value).lower() if isinstance(value := getattr(defaults, name), bool) else f"{value:g}"
        for name in rows
        if name != "security_contexts"
    }
    for name in (URL_ENV, TOKEN_ENV):
        assert f"`{name}`" in section("Python client")


def test_the_readme_lists_all_variables_with_their_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of the client and those of agents."""
    names = {value for name, value in vars(env).items() if name.endswith("_ENV")} | {TOKEN_ENV}
    for name in names:
        monkeypatch.delenv(name, raising=False)
    rows = {cells[0].strip("`"): cells[1].strip("`") for cells in table("Python client", "variable")}
    environment = env.read_environment()

    assert rows.keys() == names
    assert rows["MCP_MESH_CALL_TIMEOUT"] == f"{environment.call_timeout:g}"
    assert rows["MCP_MESH_HEALTH_INTERVAL"] == f"{DEFAULT_INTERVAL_S:g}"
    assert rows["MCP_MESH_AUTO_RUN"] == str(environment.auto_run).lower()
    assert rows["MCP_MESH_OVERRIDE"] == str(environment.overrides).lower()


def test_every_import_of_the_guides_has_an_equivalent() -> None:
    """Each equivalent can be imported."""
    for _, ours in table("Names in the guides", "in the guides"):
        found = re.fullmatch(r"`from ([\w.]+) import (\w+)`", ours)
        if found is not None:
            assert hasattr(importlib.import_module(found[1]), found[2]), ours
