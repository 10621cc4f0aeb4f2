"""Version constraints as mesh clients know them: cell by cell as measured, and what holds of all."""

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
    """Return those of the versions that meet a constraint; a version that is not sent is the default."""
    passes = parse_constraint(text)
    return [version for version in versions if passes(version or DEFAULT_VERSION)]


@pytest.mark.parametrize("text", [text for text in CONSTRAINTS if text])
def test_a_constraint_passes_what_it_was_seen_to_pass(text: str) -> None:
    """Each row of the table; the row without a constraint is the matcher's, which asks nobody then."""
    assert passing(text) == [version for version, seen in zip(VERSIONS, CONSTRAINTS[text], strict=True) if seen == "1"]


def test_the_table_is_whole() -> None:
    """A cell for each version in each row, of ones and zeros."""
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
        (">=1.0.0", "1.0.0\n", False),
        ("", "", True),
        ("", "1.0.0", False),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_what_cannot_be_read_is_a_name(text: str, version: str, passes: bool) -> None:  # noqa: FBT001 - a cell
    """Too long, too large, in other digits: only its equal meets it, and nothing is an error."""
    assert parse_constraint(text)(version) is passes


NUMBERS = st.integers(0, 3)
RELEASES = st.builds("{}.{}.{}".format, NUMBERS, NUMBERS, NUMBERS)
PRERELEASES = st.builds("{}-{}".format, RELEASES, st.sampled_from(["0", "1", "10", "a", "a.1", "a.b", "rc-1"]))
ANY_VERSION = st.one_of(RELEASES, PRERELEASES)
SIGNS = st.sampled_from(["", "=", "!=", ">", "<", ">=", "<=", "=>", "=<", "~", "~>", "^"])
TERMS = st.builds("{}{}".format, SIGNS, ANY_VERSION)


@given(st.text(max_size=30), st.text(max_size=30))
def test_whatever_is_sent_is_judged(text: str, version: str) -> None:
    """No text is an error, as a version or as a constraint."""
    version_key(version)
    assert parse_constraint(text)(version) in (True, False)


@given(TERMS, TERMS, ANY_VERSION)
def test_and_and_or_are_what_they_say(one: str, other: str, version: str) -> None:
    """An alternative passes what either passes; a group passes no more than its parts, but for pre-releases.

    A group takes pre-releases as soon as one of its parts names one.
    """
    assert parse_constraint(f"{one} || {other}")(version) == (
        parse_constraint(one)(version) or parse_constraint(other)(version)
    )
    both = parse_constraint(f"{one}, {other}")(version)
    assert both == parse_constraint(f"{one} {other}")(version)
    if "-" not in version:
        assert both == (parse_constraint(one)(version) and parse_constraint(other)(version))


@given(ANY_VERSION, ANY_VERSION)
def test_comparisons_follow_the_order(bound: str, version: str) -> None:
    """Of what may be compared: a pre-release only with one."""
    low, given_ = version_key(bound), version_key(version)
    assert low is not None
    assert given_ is not None
    if given_.is_prerelease and not low.is_prerelease:
        assert not any(parse_constraint(sign + bound)(version) for sign in ("", ">", "<", ">=", "<=", "!=", "^", "~"))
        return
    assert parse_constraint(f">{bound}")(version) == (given_ > low)
    assert parse_constraint(f"<{bound}")(version) == (given_ < low)
    assert parse_constraint(f"!={bound}")(version) == (given_ != low) != parse_constraint(f"={bound}")(version)
    for sign in "^", "~":
        assert not parse_constraint(sign + bound)(version) or given_ >= low
    assert parse_constraint(f"{bound} - 3.3.3")(version) == (given_ >= low and given_ <= (version_key("3.3.3") or low))


@given(ANY_VERSION, st.sampled_from(["", "v"]), st.sampled_from(["", "+build.1"]))
def test_a_leading_v_and_a_build_change_nothing(version: str, before: str, after: str) -> None:
    """Neither in the order nor in a constraint."""
    assert version_key(before + version + after) == version_key(version)
    assert parse_constraint(f">={before}{version}{after}")(version)


def test_pre_releases_are_in_the_order_of_semver() -> None:
    """Numbers below names, a longer one above a shorter, all below the release."""
    rising = ["1.0.0-1", "1.0.0-2", "1.0.0-10", "1.0.0-a", "1.0.0-a.1", "1.0.0-a.b", "1.0.0-b", "1.0.0", "1.0.1-0"]

    assert sorted(rising, key=lambda version: version_key(version) or ()) == rising


@pytest.mark.parametrize("gap", ["  ", " \t", "   ", " ,  "])
def test_what_cannot_be_read_is_soon_known_to_be_so(gap: str) -> None:
    """One registration stood a replica still: each of many pairs of blanks could be read in two ways."""
    blanks = gap.join("1" * 50) + "!"

    passes = parse_constraint(blanks)

    assert passes(blanks)
    assert not passes("1.0.0")
