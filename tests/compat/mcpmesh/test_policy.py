"""Whose rules are whose: the form an agent registered in decides how it finds others, never how it is found."""

import pytest

from registry.errors import MalformedRequest
from registry.model.agent import IndexedSpec, decode_indexed_spec
from registry.service.resolution.match_policy import DEFAULT_POLICY, MCPMESH_POLICY, MatchPolicies
from tests.support.builders import a_spec


def profile(*, mcpmesh: bool) -> IndexedSpec:
    """Return the profile of an agent of either form."""
    return decode_indexed_spec(a_spec("a", registration_format={"name": "mcp-mesh"} if mcpmesh else None))


def test_the_form_decides() -> None:
    """Flat agents go by the rules their clients know."""
    book = MatchPolicies()

    assert book.for_profile(profile(mcpmesh=False)) is DEFAULT_POLICY
    assert book.for_profile(profile(mcpmesh=True)) is MCPMESH_POLICY


def test_only_healthy_agents_serve_flat_ones() -> None:
    """Degraded ones serve the others, after the healthy."""
    assert set(DEFAULT_POLICY.selectable_statuses) == {"healthy", "degraded"}
    assert set(MCPMESH_POLICY.selectable_statuses) == {"healthy"}


def test_namespaces_may_be_passed_over_by_flat_agents_alone() -> None:
    """As upstream passes over them; the registry's own form always isolates."""
    book = MatchPolicies(isolate_namespaces=False)

    assert book.for_profile(profile(mcpmesh=False)).isolate_namespaces
    assert not book.for_profile(profile(mcpmesh=True)).isolate_namespaces
    assert not book.llm.isolate_namespaces
    assert MatchPolicies().llm.isolate_namespaces


def test_models_are_given_what_lacks_something() -> None:
    """And nothing else is different for them."""
    assert (MCPMESH_POLICY.check_required_dependencies, MatchPolicies().llm.check_required_dependencies) == (
        True,
        False,
    )
    assert MatchPolicies().llm.parse_constraint is MCPMESH_POLICY.parse_constraint


@pytest.mark.parametrize(
    ("constraint", "version", "plain", "mcpmesh"),
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
    constraint: str, version: str, *, plain: bool | None, mcpmesh: bool
) -> None:
    """What one cannot read is an error for the one and a name for the other."""
    if plain is None:
        with pytest.raises(MalformedRequest):
            DEFAULT_POLICY.parse_constraint(constraint)
    else:
        assert DEFAULT_POLICY.parse_constraint(constraint)(version) is plain
    assert MCPMESH_POLICY.parse_constraint(constraint)(version) is mcpmesh
