"""The public names of `mcp_mesh_client`."""

import types

import mcp_mesh_client
from mcp_mesh_client.version import __version__

import registry


def test_the_client_exports_all_its_public_names() -> None:
    """`__all__` has exactly the names that are not modules."""
    there = {
        name
        for name, value in vars(mcp_mesh_client).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }

    assert set(mcp_mesh_client.__all__) == there
    assert len(set(mcp_mesh_client.__all__)) == len(mcp_mesh_client.__all__)


def test_each_exported_class_is_documented() -> None:
    """Each class has a docstring of its own."""
    exported = {name: getattr(mcp_mesh_client, name) for name in mcp_mesh_client.__all__}

    assert {name for name, value in exported.items() if isinstance(value, type) and not value.__doc__} == set()


def test_client_and_server_have_one_version() -> None:
    """The two wheels are released together."""
    assert __version__ == registry.__version__
