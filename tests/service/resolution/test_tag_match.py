"""Tags of a dependency: required, preferred and excluded tags, groups, scores."""

from typing import Any

import pytest

from registry.service.resolution.tag_match import tag_requirements

Tags = tuple[str, ...]
X, U, XU = ("x",), ("u",), ("x", "u")
NONE: Tags = ()

# Tags of the dependency, tags of the provider, the score; None without a match.
TABLE: list[tuple[tuple[Any, ...], Tags, int | None]] = [
    ((), NONE, 0),
    ((), XU, 0),
    (("x",), X, 5),
    (("x",), XU, 5),
    (("x",), NONE, None),
    (("x",), ("X",), None),
    (("x", "u"), XU, 10),
    (("x", "u"), X, None),
    (("x", "x"), X, 10),
    (("+x",), X, 10),
    (("+x",), NONE, 0),
    (("+x", "+x"), X, 20),
    (("-x",), X, None),
    (("-x",), U, 0),
    (("+u", "-u"), U, None),
    (("+u", "-u"), X, 0),
    (("u", "+x"), XU, 15),
    (("u", "+x"), U, 5),
    ((("x", "u"),), X, 5),
    ((("x", "u"),), XU, 5),
    ((("x", "u"),), NONE, None),
    ((("x", "+u"),), X, 5),
    ((("x", "+u"),), XU, 10),
    ((("+x",),), X, 10),
    ((("+x",),), NONE, None),
    ((("-x",),), NONE, None),
    ((("-x",),), X, None),
    ((("u", "-x"),), U, 5),
    ((("u", "-x"),), XU, None),
    ((("u", "-x"),), NONE, None),
    (("u", ("x", "+y")), XU, 10),
    (((),), NONE, 0),
    (("",), NONE, 0),
    (("+",), NONE, 0),
    (("-",), X, 0),
    ((("", "+", "-"),), NONE, 0),
    (("++x",), ("+x",), 10),
    (("-+x",), ("+x",), None),
]


@pytest.mark.parametrize(("required", "tags", "score"), TABLE, ids=str)
def test_each_row_has_its_score(required: tuple[str | tuple[str, ...], ...], tags: Tags, score: int | None) -> None:
    """A row without a match has a mismatch."""
    result = tag_requirements(required).match(frozenset(tags))

    assert (result.score if result.mismatch is None else None) == score


@pytest.mark.parametrize(
    ("required", "tags", "reason"),
    [
        (("x",), NONE, "is missing the tag x"),
        ((("x", "+u"),), NONE, "has none of the tags x, u"),
        (("-x",), X, "has the excluded tag x"),
        ((("-x",),), NONE, "the tag group contains only exclusions and can never match"),
    ],
)
def test_a_mismatch_has_a_reason(required: tuple[str | tuple[str, ...], ...], tags: Tags, reason: str) -> None:
    """The reason is text for humans."""
    assert tag_requirements(required).match(frozenset(tags)).mismatch == reason


@pytest.mark.parametrize(
    ("required", "tags", "details"),
    [
        (("a", "b", "+c"), ("b",), {"missing": ["a"]}),
        (("a", "b"), NONE, {"missing": ["a", "b"]}),
        (("a", "-x", "-y"), ("x", "y"), {"disallowed": ["x", "y"]}),
        ((("a", "+b"),), ("c",), {"missing_one_of": ["a", "b"]}),
        ((("a",), "b"), ("b",), {"missing": ["a"]}),
        (("a", ("b", "c")), ("a", "c"), {}),
    ],
    ids=str,
)
def test_a_mismatch_lists_its_tags(
    required: tuple[str | tuple[str, ...], ...], tags: Tags, details: dict[str, list[str]]
) -> None:
    """The details list the excluded tags, otherwise the missing ones, otherwise the first group without a match."""
    assert tag_requirements(required).mismatch_details(frozenset(tags)) == details


def test_long_requirements_are_matched_and_not_cached() -> None:
    """A thousand of them would fill the memory."""
    usual, long = ("x", ("y", "z")), ("x", tuple(f"y{at}" for at in range(1000)))

    assert tag_requirements(usual) is tag_requirements(usual)
    assert tag_requirements(long) is not tag_requirements(long)
    assert tag_requirements(long).match({"x", "y7"}) == tag_requirements(usual).match({"x", "y"})
