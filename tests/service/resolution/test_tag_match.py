"""Tags as dependencies want them: signs, lists inside, scores."""

from typing import Any

import pytest

from registry.service.resolution.tag_match import tag_requirements

Tags = tuple[str, ...]
X, U, XU = ("x",), ("u",), ("x", "u")
NONE: Tags = ()

# What is wanted, what is there, the score; None where it does not do.
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


@pytest.mark.parametrize(("needs", "tags", "score"), TABLE, ids=str)
def test_each_row_scores_as_promised(needs: tuple[str | tuple[str, ...], ...], tags: Tags, score: int | None) -> None:
    """What does not do says why."""
    judged = tag_requirements(needs).match(frozenset(tags))

    assert (judged.score if judged.mismatch is None else None) == score


@pytest.mark.parametrize(
    ("needs", "tags", "says"),
    [
        (("x",), NONE, "is missing the tag x"),
        ((("x", "+u"),), NONE, "has none of the tags x, u"),
        (("-x",), X, "has the excluded tag x"),
        ((("-x",),), NONE, "the tag group contains only exclusions and can never match"),
    ],
)
def test_what_does_not_do_says_why(needs: tuple[str | tuple[str, ...], ...], tags: Tags, says: str) -> None:
    """In words for people."""
    assert tag_requirements(needs).match(frozenset(tags)).mismatch == says


@pytest.mark.parametrize(
    ("needs", "tags", "misses"),
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
def test_what_does_not_do_tells_its_tags(
    needs: tuple[str | tuple[str, ...], ...], tags: Tags, misses: dict[str, list[str]]
) -> None:
    """Those that are excluded first, then all that are missing, then the first list of which none is there."""
    assert tag_requirements(needs).mismatch_details(frozenset(tags)) == misses


def test_what_is_very_long_is_judged_and_not_kept() -> None:
    """Else some thousand of these would be all the memory there is."""
    usual, long = ("x", ("y", "z")), ("x", tuple(f"y{at}" for at in range(1000)))

    assert tag_requirements(usual) is tag_requirements(usual)
    assert tag_requirements(long) is not tag_requirements(long)
    assert tag_requirements(long).match({"x", "y7"}) == tag_requirements(usual).match({"x", "y"})
