"""What filters may say: statuses, label selectors, version constraints; everything else is refused with a hint."""

import pytest

from registry.errors import MalformedRequest
from registry.model.selector import read_selector
from registry.service.statuses import statuses
from registry.service.versions import constraint, order

WORDS = {
    "pending": ("pending",),
    "healthy": ("healthy",),
    "degraded": ("degraded",),
    "expired": ("expired",),
    "unhealthy": ("degraded", "expired"),
    "offline": ("expired",),
    "any": ("pending", "healthy", "degraded", "expired"),
}


@pytest.mark.parametrize(("word", "means"), WORDS.items())
def test_a_status_word_stands_for_statuses(word: str, means: tuple[str, ...]) -> None:
    """The four, two that stand for several, and `any`."""
    assert statuses(word, "status") == means


@pytest.mark.parametrize("word", ["", "Healthy", "all", "unknown", "healthy,degraded", "x" * 1000])
def test_another_status_word_is_refused_with_those_there_are(word: str) -> None:
    """The field is named, and the answer short."""
    with pytest.raises(MalformedRequest) as refused:
        statuses(word, "agent_status")

    (detail,) = refused.value.details
    assert detail.field == "agent_status"
    assert all(known in detail.problem for known in WORDS)
    assert len(detail.problem) < 250


SELECTORS = {
    "a=b": [("a", "b")],
    "a==b": [("a", "b")],
    " a = b ": [("a", "b")],
    "a=b,c=d": [("a", "b"), ("c", "d")],
    "a=b, c=d": [("a", "b"), ("c", "d")],
    "a=": [("a", "")],
    "a=,b=": [("a", ""), ("b", "")],
    "a=b,a=c": [("a", "b"), ("a", "c")],
    "app.kubernetes.io/name=x-1_2.3": [("app.kubernetes.io/name", "x-1_2.3")],
}


@pytest.mark.parametrize(("text", "labels"), SELECTORS.items())
def test_a_selector_is_pairs_that_must_all_hold(text: str, labels: list[tuple[str, str]]) -> None:
    """Blanks do not matter; one or two equals signs mean the same."""
    assert list(read_selector(text)) == labels


@pytest.mark.parametrize(
    "text", [",", "a=b,", ",a=b", "a=b,,c=d", "=b", "a=b=c", "a b=c", "a=b c", "a;b", "a=ü", "a===b", "a=b\n,c=d\x00"]
)
def test_a_selector_that_cannot_be_read_names_the_term(text: str) -> None:
    """Never half of it: what would be ignored is refused."""
    with pytest.raises(MalformedRequest) as refused:
        read_selector(text, "query.label_selector")

    (detail,) = refused.value.details
    assert detail.field == "query.label_selector"


# Each version passes every constraint in the first list and none in the second.
PASSES: dict[str, tuple[list[str], list[str]]] = {
    "1.2.0": (
        [">=1.0.0", ">=1.2.0", ">=1.2", "<=1.2.0", ">1.1.9", "<1.10", "=1.2.0", "==1.2", "1.2.0", "1.2", ">=1,<2"],
        [">1.2.0", "<1.2.0", ">=2", "=1.2.1", "1", ">=1,<1.2", ">=1.2.1"],
    ),
    "1.10.0": ([">1.9.0", ">=1.9 <2"], ["<1.9.0", "=1.1.0"]),
    "2.0.0-rc.1": (
        [">=2.0.0-alpha", "2.0.0-rc.1", "<2.0.0-rc.2", "<2.0.0-rc.10", ">2.0.0-1"],
        [">=1.0.0", "<2.0.0", ">=2.0.0", "2.0.0", ">=2.0.0-rc.2", ">2.0.0-rc.1.1"],
    ),
    "1": (["1.0.0", ">=1", "<=1.0"], [">1", "<1"]),
    "0.0.1": ([">0", ">=0.0.1"], [">=0.1"]),
    "1.0.0+build.5": (["1.0.0", ">=1.0.0", "=1.0.0+other"], [">1.0.0", "<1.0.0"]),
    "999999999.0.0": ([">=1"], ["<999999999"]),
    "not a version": ([], [">=0", "<1"]),
    "1.2.3.4": ([], [">=0"]),
}


@pytest.mark.parametrize(
    ("version", "text", "passes"),
    [
        (version, text, passes)
        for version, (passed, failed) in PASSES.items()
        for text, passes in [*((each, True) for each in passed), *((each, False) for each in failed)]
    ],
)
def test_a_constraint_holds_or_does_not(version: str, text: str, *, passes: bool) -> None:
    """Compared as numbers, a release above its pre-releases; those pass only where the constraint names one."""
    assert constraint(text)(version) is passes


@pytest.mark.parametrize(
    "text", [">=", "abc", ">=x", "1.2.3.4", ">= 1 x", "=>1", "<<1", ">=1;<2", "1.2.", "-1", ">1..2"]
)
def test_a_constraint_that_cannot_be_read_is_refused(text: str) -> None:
    """With the part that cannot be read and how to write it."""
    with pytest.raises(MalformedRequest) as refused:
        constraint(text)

    (detail,) = refused.value.details
    assert detail.field == "version_constraint"


def test_versions_sort_as_semver_has_it() -> None:
    """The order of semver.org, paragraph 11."""
    versions = [
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0-rc.1",
        "1.0.0",
        "2.0.0",
        "2.1.0",
        "2.1.1",
        "10.0.0",
    ]
    ordered = [order(version) for version in versions]

    assert None not in ordered
    assert sorted(ordered, key=lambda each: each or ((0, 0, 0), 0, ())) == ordered
    assert order("1.0.0") == order("1.0.0+build") == order("1") == order("v1.0")
