"""In which ways those who look for providers differ, by the form they registered in; all else is the same for all."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from registry.compat.mcpmesh import masterminds_semver
from registry.model.agent import IndexedSpec, Status
from registry.service import versions


@dataclass(frozen=True, slots=True, eq=False)
class MatchPolicy:
    """How providers are judged.

    `selectable_statuses` are the statuses of an agent that can be chosen; `isolate_namespaces` tells whether an agent
    of another namespace than
    the one asked for falls out, `check_required_dependencies` whether a capability falls out that lacks what it cannot
    do without;
    `parse_constraint` reads a version constraint and raises MalformedRequest, `version_key` a version and returns None
    for what is none.
    """

    selectable_statuses: frozenset[Status] = frozenset({"healthy", "degraded"})
    isolate_namespaces: bool = True
    check_required_dependencies: bool = True
    parse_constraint: Callable[[str], Callable[[str], bool]] = versions.parse_constraint
    version_key: Callable[[str], Any] = versions.version_key


DEFAULT_POLICY: Final = MatchPolicy()
MCPMESH_POLICY: Final = MatchPolicy(
    frozenset({"healthy"}),
    parse_constraint=masterminds_semver.parse_constraint,
    version_key=masterminds_semver.version_key,
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
