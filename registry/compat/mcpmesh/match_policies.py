"""The rules by which providers are matched with dependencies, for native agents and for mcp-mesh agents."""

from dataclasses import replace

from registry.compat.mcpmesh import masterminds_semver
from registry.compat.mcpmesh.registration import FORMAT_NAME
from registry.compat.mcpmesh.schema_match import schema_matcher
from registry.compat.mcpmesh.spec_fields import provider_kwargs
from registry.service.resolution.match_policy import MatchPolicies, MatchPolicy


def match_policies(*, isolate_namespaces: bool = True) -> MatchPolicies:
    """Return the rules for matching providers, for native agents and for agents in the mcp-mesh format.

    Without `isolate_namespaces` mcp-mesh agents search all namespaces. Output schemas are also matched for native
    agents, because their dependencies may contain the fields of the SDKs.
    """
    mcpmesh = MatchPolicy(
        selectable_statuses=frozenset({"healthy"}),
        isolate_namespaces=isolate_namespaces,
        parse_constraint=masterminds_semver.parse_constraint,
        version_key=masterminds_semver.version_key,
        schema_matcher=schema_matcher,
        provider_extension=provider_kwargs,
    )
    return MatchPolicies({FORMAT_NAME: mcpmesh}, default=MatchPolicy(schema_matcher=schema_matcher))


def llm_policy(policies: MatchPolicies) -> MatchPolicy:
    """Return the rules for matching tools and LLM providers, which ignore required dependencies."""
    return replace(policies.by_format[FORMAT_NAME], check_required_dependencies=False)
