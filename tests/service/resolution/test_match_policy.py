"""Whose rules are whose: the form an agent registered in decides how it finds others, never how it is found."""

import pytest

from registry.errors import MalformedRequest
from registry.model.agent import Profile, read_profile
from registry.service.resolution.match_policy import FLAT, PLAIN, RuleBook
from tests.support.builders import a_spec


def profile(*, flat: bool) -> Profile:
    """Return the profile of an agent of either form."""
    return read_profile(a_spec("a", flat={} if flat else None))


def test_the_form_decides() -> None:
    """Flat agents go by the rules their clients know."""
    book = RuleBook()

    assert book.of(profile(flat=False)) is PLAIN
    assert book.of(profile(flat=True)) is FLAT


def test_only_healthy_agents_serve_flat_ones() -> None:
    """Degraded ones serve the others, after the healthy."""
    assert set(PLAIN.alive) == {"healthy", "degraded"}
    assert set(FLAT.alive) == {"healthy"}


def test_namespaces_may_be_passed_over_by_flat_agents_alone() -> None:
    """As upstream passes over them; the registry's own form always isolates."""
    book = RuleBook(isolates=False)

    assert book.of(profile(flat=False)).isolates
    assert not book.of(profile(flat=True)).isolates
    assert not book.llm.isolates
    assert RuleBook().llm.isolates


def test_models_are_given_what_lacks_something() -> None:
    """And nothing else is different for them."""
    assert (FLAT.requires, RuleBook().llm.requires) == (True, False)
    assert RuleBook().llm.constraint is FLAT.constraint


@pytest.mark.parametrize(
    ("constraint", "version", "plain", "flat"),
    [
        (">=1.0.0", "1.5.0-rc.1", False, False),
        (">=1.0.0-0", "1.5.0-rc.1", False, True),
        ("<=1.2", "1.2.9", True, True),
        ("banana", "banana", None, True),
        ("==1.2.3", "1.2.3", True, False),
        ("=>1.2", "1.3.0", None, True),
    ],
)
def test_constraints_are_read_as_each_form_reads_them(
    constraint: str, version: str, *, plain: bool | None, flat: bool
) -> None:
    """What one cannot read is an error for the one and a name for the other."""
    if plain is None:
        with pytest.raises(MalformedRequest):
            PLAIN.constraint(constraint)
    else:
        assert PLAIN.constraint(constraint)(version) is plain
    assert FLAT.constraint(constraint)(version) is flat
