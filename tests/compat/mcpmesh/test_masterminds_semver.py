"""Version constraints of mcp-mesh: a table of measured results, and general properties."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.compat.mcpmesh.masterminds_semver import parse_constraint, version_key
from registry.model.registration.schema import DEFAULT_VERSION

TABLE: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "versions.json").read_text(encoding="utf-8"))
VERSIONS: list[str] = TABLE["versions"]
CONSTRAINTS: dict[str, str] = TABLE["constraints"]


def passing(text: str, versions: list[str] = VERSIONS) -> list[str]:
    """Return the versions that satisfy a constraint; an empty version is the default one."""
    passes = parse_constraint(text)
    return [version for version in versions if passes(version or DEFAULT_VERSION)]


@pytest.mark.parametrize("text", [text for text in CONSTRAINTS if text])
def test_a_constraint_passes_the_measured_versions(text: str) -> None:
    """The row without a constraint is left out; the provider matcher handles it."""
    assert passing(text) == [
        version for version, measured in zip(VERSIONS, CONSTRAINTS[text], strict=True) if measured == "1"
    ]


def test_the_table_is_complete() -> None:
    """Each row has a cell for each version, which is 0 or 1."""
    assert {len(row) for row in CONSTRAINTS.values()} == {len(VERSIONS)}
    assert set("".join(CONSTRAINTS.values())) == {"0", "1"}
    assert set(CONSTRAINTS[""]) == {"1"}


@pytest.mark.parametrize(
    ("text", "version", "passes"),
    [
        ("x" * 257, "x" * 257, True),
        ("1.0.0-" + "a" * 300, "1.0.0-" + "a" * 300, True),
        (">=1", "1." + "0" * 300, False),
        (">= 1.0.0" + " " * 300, "1.0.0", False),
        (">=1 ||", ">=1 ||", True),
        (">=1 ||", "1.0.0", False),
        ("18446744073709551615", "18446744073709551615.0.0", True),
        ("18446744073709551616", "18446744073709551616", True),
        ("^1", "\u0661.0.0", False),
        ("\u0661", "1.0.0", False),
        ("1.0.0\n", "1.0.0", True),
        ("1.0.0\u00a0", "1.0.0", False),
        (">=1.0.0", "1.0.0\n", False),
        ("", "", True),
        ("", "1.0.0", False),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_an_invalid_constraint_matches_its_own_text(text: str, version: str, passes: bool) -> None:  # noqa: FBT001 - a cell
    """It may be too long, too large or have non-ASCII digits; it is never an error."""
    assert parse_constraint(text)(version) is passes


@pytest.mark.parametrize(
    ("text", "same"),
    [("*.1x", "*"), (">=1.*.1x", ">=1.*"), (">=x.xx.2*-rc+b", ">=x-rc"), ("1.x1.2", None), ("*.1x.2.3", None)],
)
def test_the_parts_after_a_wildcard_are_ignored(text: str, same: str | None) -> None:
    """They must still be digits and wildcards, and at most three parts in all; otherwise the text is invalid."""
    assert passing(text) == ([] if same is None else passing(same))
    assert same is None or passing(text)


NUMBERS = st.integers(0, 3)
RELEASES = st.builds("{}.{}.{}".format, NUMBERS, NUMBERS, NUMBERS)
PRERELEASES = st.builds("{}-{}".format, RELEASES, st.sampled_from(["0", "1", "10", "a", "a.1", "a.b", "rc-1"]))
ANY_VERSION = st.one_of(RELEASES, PRERELEASES)
OPERATORS = st.sampled_from(["", "=", "!=", ">", "<", ">=", "<=", "=>", "=<", "~", "~>", "^"])
TERMS = st.builds("{}{}".format, OPERATORS, ANY_VERSION)


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_text_is_accepted(text: str, version: str) -> None:
    """No text raises an error, as a version or as a constraint."""
    version_key(version)
    assert parse_constraint(text)(version) in (True, False)


@given(TERMS, TERMS, ANY_VERSION)
def test_and_and_or_combine_constraints(one: str, other: str, version: str) -> None:
    """An alternative passes the versions that either passes, a group those that all of its parts pass.

    A group passes pre-releases as soon as one of its parts names one.
    """
    assert parse_constraint(f"{one} || {other}")(version) == (
        parse_constraint(one)(version) or parse_constraint(other)(version)
    )
    both = parse_constraint(f"{one}, {other}")(version)
    assert both == parse_constraint(f"{one} {other}")(version)
    if "-" not in version:
        assert both == (parse_constraint(one)(version) and parse_constraint(other)(version))


@given(ANY_VERSION, ANY_VERSION)
def test_comparisons_follow_the_order_of_versions(bound: str, version: str) -> None:
    """A pre-release is compared only with a pre-release."""
    low, other = version_key(bound), version_key(version)
    assert low is not None
    assert other is not None
    if other.is_prerelease and not low.is_prerelease:
        assert not any(
            parse_constraint(operator + bound)(version) for operator in ("", ">", "<", ">=", "<=", "!=", "^", "~")
        )
        return
    assert parse_constraint(f">{bound}")(version) == (other > low)
    assert parse_constraint(f"<{bound}")(version) == (other < low)
    assert parse_constraint(f"!={bound}")(version) == (other != low) != parse_constraint(f"={bound}")(version)
    for operator in "^", "~":
        assert not parse_constraint(operator + bound)(version) or other >= low
    assert parse_constraint(f"{bound} - 3.3.3")(version) == (other >= low and other <= (version_key("3.3.3") or low))


@given(ANY_VERSION, st.sampled_from(["", "v"]), st.sampled_from(["", "+build.1"]))
def test_a_leading_v_and_a_build_change_nothing(version: str, before: str, after: str) -> None:
    """They affect neither the order nor a constraint."""
    assert version_key(before + version + after) == version_key(version)
    assert parse_constraint(f">={before}{version}{after}")(version)


def test_pre_releases_are_in_the_order_of_semver() -> None:
    """Numbers sort below names, shorter ones below longer ones, and all below the release."""
    rising = ["1.0.0-1", "1.0.0-2", "1.0.0-10", "1.0.0-a", "1.0.0-a.1", "1.0.0-a.b", "1.0.0-b", "1.0.0", "1.0.1-0"]

    assert sorted(rising, key=lambda version: version_key(version) or ()) == rising


@pytest.mark.parametrize("gap", ["  ", " \t", "   ", " ,  "])
def test_an_invalid_constraint_is_rejected_quickly(gap: str) -> None:
    """A pattern with many ambiguous blanks made one registration block a replica."""
    constraint = gap.join("1" * 50) + "!"

    passes = parse_constraint(constraint)

    assert passes(constraint)
    assert not passes("1.0.0")
