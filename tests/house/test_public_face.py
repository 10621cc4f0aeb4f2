"""What `mcp_mesh_client` offers is what it says it offers."""

import types

import mcp_mesh_client
from mcp_mesh_client.version import __version__

import registry


def test_the_client_exports_exactly_what_is_there() -> None:
    """Every name that is no module is exported, and nothing else is."""
    there = {
        name
        for name, value in vars(mcp_mesh_client).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }

    assert set(mcp_mesh_client.__all__) == there
    assert len(set(mcp_mesh_client.__all__)) == len(mcp_mesh_client.__all__)


def test_what_is_exported_says_what_it_is() -> None:
    """Each class has a docstring of its own."""
    exported = {name: getattr(mcp_mesh_client, name) for name in mcp_mesh_client.__all__}

    assert {name for name, value in exported.items() if isinstance(value, type) and not value.__doc__} == set()


def test_client_and_server_have_one_version() -> None:
    """They are released together, as two wheels."""
    assert __version__ == registry.__version__
