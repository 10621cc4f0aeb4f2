"""The match policy of each format: it decides how an agent finds providers, not how consumers find the agent."""

import pytest

from registry.compat.mcpmesh.match_policies import llm_policy, match_policies
from registry.compat.mcpmesh.registration import FORMAT_NAME
from registry.compat.mcpmesh.spec_fields import McpMeshDependency
from registry.errors import MalformedRequest
from registry.model.agent import Dependency, IndexedSpec, decode_indexed_spec
from registry.service.resolution.match_policy import MatchPolicies, MatchPolicy
from tests.support.builders import a_spec


def native_policy(policies: MatchPolicies) -> MatchPolicy:
    """Return the policy of an agent in the native format."""
    return policies.for_spec(_profile())


def mcpmesh_policy(policies: MatchPolicies) -> MatchPolicy:
    """Return the policy of an agent in the mcp-mesh format."""
    return policies.for_spec(_profile(registration_format={"name": FORMAT_NAME}))


def _profile(**fields: object) -> IndexedSpec:
    return decode_indexed_spec(a_spec("a", **fields))


def test_the_format_selects_the_policy() -> None:
    """Agents in the mcp-mesh format have their own policy."""
    policies = match_policies()

    assert native_policy(policies) is policies.default
    assert mcpmesh_policy(policies) is policies.by_format[FORMAT_NAME]
    assert native_policy(policies) is not mcpmesh_policy(policies)


def test_only_healthy_agents_serve_mcpmesh_agents() -> None:
    """Native agents may also get degraded providers, after the healthy ones."""
    policies = match_policies()

    assert set(native_policy(policies).selectable_statuses) == {"healthy", "degraded"}
    assert set(mcpmesh_policy(policies).selectable_statuses) == {"healthy"}


def test_only_mcpmesh_agents_may_ignore_namespaces() -> None:
    """They can do so as with upstream; the native format always isolates."""
    policies = match_policies(isolate_namespaces=False)

    assert native_policy(policies).isolate_namespaces
    assert not mcpmesh_policy(policies).isolate_namespaces
    assert not llm_policy(policies).isolate_namespaces
    assert llm_policy(match_policies()).isolate_namespaces


def test_language_models_get_capabilities_with_unresolved_dependencies() -> None:
    """Their other rules are the same."""
    policies = match_policies()
    mcpmesh, llm = mcpmesh_policy(policies), llm_policy(policies)

    assert (mcpmesh.check_required_dependencies, llm.check_required_dependencies) == (True, False)
    assert (llm.parse_constraint, llm.schema_matcher) == (mcpmesh.parse_constraint, mcpmesh.schema_matcher)


def test_both_formats_match_output_schemas() -> None:
    """The dependency must have the schema fields."""
    policies = match_policies()
    dependency = McpMeshDependency("c", schema_match_mode="strict", expected_schema_hash="h")

    for policy in native_policy(policies), mcpmesh_policy(policies):
        assert policy.schema_matcher(dependency) is not None
        assert policy.schema_matcher(Dependency("c")) is None


@pytest.mark.parametrize(
    ("constraint", "version", "native", "mcpmesh"),
    [
        (">=1.0.0", "1.5.0-rc.1", False, False),
        (">=1.0.0-0", "1.5.0-rc.1", False, True),
        ("<=1.2", "1.2.9", True, True),
        ("banana", "banana", None, True),
        ("==1.2.3", "1.2.3", True, False),
        ("=>1.2", "1.3.0", None, True),
    ],
)
def test_each_format_has_its_constraint_language(
    constraint: str, version: str, *, native: bool | None, mcpmesh: bool
) -> None:
    """A constraint that cannot be parsed is an error in the native format and matches its own text in the other."""
    policies = match_policies()
    if native is None:
        with pytest.raises(MalformedRequest):
            native_policy(policies).parse_constraint(constraint)
    else:
        assert native_policy(policies).parse_constraint(constraint)(version) is native
    assert mcpmesh_policy(policies).parse_constraint(constraint)(version) is mcpmesh
