"""Match policies: the registration format selects the policy."""

from registry.compat.mcpmesh.spec_fields import McpMeshDependency
from registry.model.agent import decode_indexed_spec
from registry.service.resolution.match_policy import DEFAULT_POLICY, MatchPolicies, MatchPolicy
from tests.support.builders import a_spec


def test_the_format_selects_the_policy() -> None:
    """A format without a policy uses the default one."""
    other = MatchPolicy(isolate_namespaces=False)
    policies = MatchPolicies({"other": other})

    assert policies.for_spec(decode_indexed_spec(a_spec("a"))) is DEFAULT_POLICY
    assert policies.for_spec(decode_indexed_spec(a_spec("a", registration_format={"name": "other"}))) is other
    assert policies.for_spec(decode_indexed_spec(a_spec("a", registration_format={"name": "x"}))) is DEFAULT_POLICY


def test_the_default_policy_matches_no_schemas() -> None:
    """The schema fields belong to the mcp-mesh format."""
    assert DEFAULT_POLICY.schema_matcher(McpMeshDependency("c", schema_match_mode="strict")) is None
