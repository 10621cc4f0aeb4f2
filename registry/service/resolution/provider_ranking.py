"""Matches and ranks the providers of a capability, for dependencies and for the selection of an agent."""

from collections import Counter
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import Any, Final

from registry.cache.view import View
from registry.errors import MalformedRequest
from registry.model.agent import Agent, Capability, Dependency
from registry.model.dependency_graph import ANY_NAMESPACE
from registry.model.resolution import LatenessCheck, Provider, RankedProviders, RejectedCandidate, Stage
from registry.service.resolution.match_policy import DEFAULT_POLICY, MatchPolicy
from registry.service.resolution.tag_match import tag_requirements

# The number of rejected candidates that a ranking contains with their reasons.
MAX_REJECTED_SHOWN: Final = 8

# Returns the first unresolved required dependency of a capability, None if all are resolved.
FindMissingRequirement = Callable[[Agent, Capability], Dependency | None]


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a candidate was rejected as a provider: the stage of the match, and the reason."""

    stage: Stage
    reason: str


class ProviderMatcher:
    """Checks agents and capabilities against one dependency, in `namespace`; `*` or None stands for any namespace."""

    def __init__(self, dependency: Dependency, namespace: str | None, policy: MatchPolicy = DEFAULT_POLICY) -> None:
        self.capability = dependency.capability
        namespace = dependency.namespace or namespace
        self.policy = policy
        self._namespace = namespace if policy.isolate_namespaces and namespace != ANY_NAMESPACE else None
        self._version_constraint = dependency.version or ""
        self._tag_requirements = tag_requirements(dependency.tags or ())
        self._schema_mismatch = policy.schema_matcher(dependency)
        self._version_satisfies: Callable[[str], bool] | None = None
        self._constraint_error = ""
        if self._version_constraint:
            try:
                self._version_satisfies = policy.parse_constraint(self._version_constraint)
            except MalformedRequest as error:
                self._constraint_error = str(error)

    def match(
        self,
        agent: Agent,
        capability: Capability,
        position: int,
        missing_requirement: FindMissingRequirement,
        *,
        late: bool,
    ) -> Provider | Rejection:
        """Return a candidate capability as a provider, or the rejection by the first stage that it fails.

        `late` states that the agent's heartbeat is late.
        """
        rejection = self.reject_agent(agent)
        if rejection is not None:
            return rejection
        if self.policy.check_required_dependencies and (missing := missing_requirement(agent, capability)) is not None:
            return Rejection("required", f"required dependency {missing.capability} is unresolved")
        score, rejection = self.match_capability(capability)
        if rejection is not None:
            return rejection
        spec = agent.indexed
        return Provider(
            agent_id=agent.id,
            endpoint=spec.endpoint,
            tool_name=capability.tool_name,
            version=capability.version,
            degraded=agent.status != "healthy",
            score=score,
            weight=capability.weight,
            zone=spec.zone,
            position=position,
            extension=self.policy.provider_extension(capability),
            created=agent.created,
            late=late,
        )

    def match_capability(self, capability: Capability) -> tuple[int, Rejection | None]:
        """Return the tag score of a capability and its rejection, None if it matches; ignore the agent's state."""
        tags = self._tag_requirements.match(frozenset(capability.tags))
        if tags.mismatch is not None:
            return 0, Rejection("tags", tags.mismatch)
        if self._constraint_error:
            return 0, Rejection("version", self._constraint_error)
        if self._version_satisfies is not None and not self._version_satisfies(capability.version):
            return 0, Rejection("version", f"version {capability.version} does not satisfy {self._version_constraint}")
        if self._schema_mismatch is not None and (mismatch := self._schema_mismatch(capability)) is not None:
            return 0, Rejection("schema", mismatch)
        return tags.score, None

    def reject_agent(self, agent: Agent) -> Rejection | None:
        """Return the rejection of an agent for its status, draining or namespace; None if it is acceptable."""
        if agent.status not in self.policy.selectable_statuses:
            return Rejection("health", f"is {agent.status}")
        if agent.draining:
            return Rejection("draining", "is draining")
        if self.is_outside_namespace(agent):
            return Rejection("namespace", f"is in namespace {agent.indexed.namespace}, not {self._namespace}")
        return None

    def is_outside_namespace(self, agent: Agent) -> bool:
        """Return whether an agent is outside the namespace in which providers are searched."""
        return self._namespace is not None and agent.indexed.namespace != self._namespace

    def candidates(self, view: View) -> Iterator[tuple[Agent, int, Capability]]:
        """Yield each capability with the required name, its agent and its position, in the order of agent ids."""
        for _, record in sorted(view.by_capability.get(self.capability, {}).items()):
            for position, capability in enumerate(record.agent.indexed.capabilities):
                if capability.name == self.capability:
                    yield record.agent, position, capability

    def sort_key(self, provider: Provider) -> tuple[bool, int, bool, Any, str, bool, int]:
        """Return the sort key of a provider by health, tag score, version, lateness and time of registration.

        The best provider has the greatest key; an invalid version has a lower one than any version.
        """
        key = self.policy.version_key(provider.version)
        is_version = key is not None
        version = (key or (), "") if is_version else ((), provider.version)
        return not provider.degraded, provider.score, is_version, *version, not provider.late, provider.created


def rank(
    view: View,
    matcher: ProviderMatcher,
    missing_requirement: FindMissingRequirement,
    late_agents: Container[str] = frozenset(),
    max_rejected: int = MAX_REJECTED_SHOWN,
) -> RankedProviders:
    """Rank the providers of a capability: healthy before degraded, then by tag score and version.

    Of equal providers those in `late_agents` come last, then the one registered last is the first, then the lowest id.
    """
    providers: list[Provider] = []
    rejected_by_stage: Counter[Stage] = Counter()
    rejected: list[RejectedCandidate] = []
    for agent, position, capability in matcher.candidates(view):
        found = matcher.match(agent, capability, position, missing_requirement, late=agent.id in late_agents)
        if isinstance(found, Provider):
            providers.append(found)
            continue
        rejected_by_stage[found.stage] += 1
        if len(rejected) < max_rejected:
            candidate = agent.id, capability.tool_name, capability.version, agent.status
            rejected.append(RejectedCandidate(*candidate, found.stage, found.reason, position))
    # The sort is stable and candidates are in the order of their ids: among equal providers the lowest id stays first.
    providers.sort(key=matcher.sort_key, reverse=True)
    lateness = LatenessCheck() if len(providers) > 1 else None
    return RankedProviders(tuple(providers), rejected_by_stage, tuple(rejected), view.version, lateness)
