"""The rules for matching providers, which depend on the registration format of the consumer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from registry.model.agent import Capability, Dependency, IndexedSpec, Status
from registry.service import version_constraints

SchemaMismatch: TypeAlias = Callable[[Capability], str | None]
"""Returns the reason why the output schema of a capability does not match, None if it matches."""


@dataclass(frozen=True, slots=True, eq=False)
class MatchPolicy:
    """The rules by which providers are matched for consumers of one registration format.

    Policies are compared by identity, so each policy is created once. `selectable_statuses` are the statuses of agents
    that can be chosen. With `isolate_namespaces` agents outside the requested namespace are rejected, with
    `check_required_dependencies` capabilities with an unresolved required dependency. `parse_constraint` raises
    MalformedRequest for a version constraint that cannot be parsed; `version_key` returns None for text that is not a
    version. `schema_matcher` returns the schema check of a dependency, None if it accepts any schema.
    `provider_extension` returns the data of a capability that responses of the format add to a provider.
    """

    selectable_statuses: frozenset[Status] = frozenset({"healthy", "degraded"})
    isolate_namespaces: bool = True
    check_required_dependencies: bool = True
    parse_constraint: Callable[[str], Callable[[str], bool]] = version_constraints.parse_constraint
    version_key: Callable[[str], Any] = version_constraints.version_key
    schema_matcher: Callable[[Dependency], SchemaMismatch | None] = lambda _dependency: None
    provider_extension: Callable[[Capability], bytes] = lambda _capability: b""


DEFAULT_POLICY: Final = MatchPolicy()


@dataclass(frozen=True, slots=True)
class MatchPolicies:
    """The match policy of each registration format; `default` is for formats without a policy of their own."""

    by_format: Mapping[str, MatchPolicy]
    default: MatchPolicy = DEFAULT_POLICY

    def for_spec(self, spec: IndexedSpec) -> MatchPolicy:
        """Return the match policy for the dependencies of an agent, by its registration format."""
        return self.by_format.get(spec.format_name, self.default)
