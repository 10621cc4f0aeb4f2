"""In which ways those who look for providers differ, by the form they registered in; all else is the same for all."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from registry.compat.mcpmesh import masterminds_semver
from registry.compat.mcpmesh.schema_match import schema_matcher
from registry.compat.mcpmesh.spec import provider_kwargs
from registry.model.agent import Capability, Dependency, IndexedSpec, Status
from registry.service import versions


@dataclass(frozen=True, slots=True, eq=False)
class MatchPolicy:
    """How providers are judged.

    `selectable_statuses` are the statuses of an agent that can be chosen; `isolate_namespaces` tells whether an agent
    of another namespace than
    the one asked for falls out, `check_required_dependencies` whether a capability falls out that lacks what it cannot
    do without;
    `parse_constraint` reads a version constraint and raises MalformedRequest, `version_key` a version and returns None
    for what is none. `schema_matcher` returns the schema check of a dependency, None if it accepts any schema.
    `provider_extension` returns the data of a capability that responses of this format add to a provider.
    """

    selectable_statuses: frozenset[Status] = frozenset({"healthy", "degraded"})
    isolate_namespaces: bool = True
    check_required_dependencies: bool = True
    parse_constraint: Callable[[str], Callable[[str], bool]] = versions.parse_constraint
    version_key: Callable[[str], Any] = versions.version_key
    schema_matcher: Callable[[Dependency], Callable[[Capability], str | None] | None] = lambda _dependency: None
    provider_extension: Callable[[Capability], bytes] = lambda _capability: b""


DEFAULT_POLICY: Final = MatchPolicy(schema_matcher=schema_matcher)
MCPMESH_POLICY: Final = MatchPolicy(
    frozenset({"healthy"}),
    parse_constraint=masterminds_semver.parse_constraint,
    version_key=masterminds_semver.version_key,
    schema_matcher=schema_matcher,
    provider_extension=provider_kwargs,
)


class MatchPolicies:
    """Knows whose rules are which. Without `isolate_namespaces` agents in flat form find others in any namespace."""

    def __init__(self, *, isolate_namespaces: bool = True) -> None:
        self._mcpmesh = MCPMESH_POLICY if isolate_namespaces else replace(MCPMESH_POLICY, isolate_namespaces=False)
        self.llm = replace(self._mcpmesh, check_required_dependencies=False)
        """The rules by which tools and providers are found for language models."""

    def for_profile(self, profile: IndexedSpec) -> MatchPolicy:
        """Return the rules of an agent."""
        return DEFAULT_POLICY if profile.format is None else self._mcpmesh
