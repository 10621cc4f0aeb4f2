"""What `registry.client` offers is what it says it offers."""

import types

import registry.client


def test_the_client_exports_exactly_what_is_there() -> None:
    """Every name that is no module is exported, and nothing else is."""
    there = {
        name
        for name, value in vars(registry.client).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }

    assert set(registry.client.__all__) == there
    assert len(set(registry.client.__all__)) == len(registry.client.__all__)


def test_what_is_exported_says_what_it_is() -> None:
    """Each class has a docstring of its own."""
    exported = {name: getattr(registry.client, name) for name in registry.client.__all__}

    assert {name for name, value in exported.items() if isinstance(value, type) and not value.__doc__} == set()
