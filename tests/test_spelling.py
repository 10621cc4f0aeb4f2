"""A misspelt name is recognized if it nearly equals a known one."""

import pytest

from registry.spelling import NearNames

NAMES = NearNames(("capabilities", "endpoint", "labels", "tags", "name", "input_schema", "health_interval", "id"))


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("capabilites", "capabilities"),
        ("capability", "capabilities"),
        ("Capabilties", "capabilities"),
        ("endpont", "endpoint"),
        ("endpiont", "endpoint"),
        ("end-point", "endpoint"),
        ("endpoints", "endpoint"),
        ("endpoimt", "endpoint"),
        ("label", "labels"),
        ("tag", "tags"),
        ("Name", "name"),
        ("inputSchema", "input_schema"),
        ("healthInterval", "health_interval"),
        ("tgas", "tags"),
        ("tasg", "tags"),
        ("tga", "tags"),
        ("nmae", "name"),
        ("NAEM", "name"),
    ],
)
def test_a_nearly_equal_name_is_recognized(name: str, known: str) -> None:
    """One letter may be wrong; case, signs and the plural do not count; short names may have two exchanged letters."""
    assert NAMES.find(name) == known


@pytest.mark.parametrize(
    "name",
    [
        *("", "owner", "game", "tax", "idx", "xendpoint", "capabilities_of_the_agent", "end", "é" * 1_000_000),
        *("node", "team", "tier", "task", "tabs", "tang", "mane", "nape", "nae", "di", "stag", "atgs", "gats"),
    ],
)
def test_another_name_is_not(name: str) -> None:
    """A short name has the same letters, the first letter must be right, and a long name is not compared."""
    assert NAMES.find(name) is None
