"""Who can give what is needed: the one matcher of dependencies, and of whoever selects an agent."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from registry.cache.view import View
from registry.errors import MalformedRequest
from registry.model.agent import Agent, Capability, Dependency
from registry.model.resolution import Provider, RankedProviders, RejectedCandidate, Stage
from registry.service.resolution.match_policy import DEFAULT_POLICY, MatchPolicy
from registry.service.resolution.tag_match import tag_requirements

ANY_NAMESPACE: Final = "*"
# Of those that fell out, so many are kept with their reasons.
MAX_REJECTED_SHOWN: Final = 8

# What an agent's capability cannot do without and does not find, None where it finds everything.
FindMissingRequirement = Callable[[Agent, Capability], Dependency | None]


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why one capability of one agent is not what is wanted, and at which stage that was seen."""

    stage: Stage
    reason: str


class ProviderMatcher:
    """What is wanted of a provider. `namespace` is where to look, `*` or None anywhere."""

    def __init__(self, dependency: Dependency, namespace: str | None, policy: MatchPolicy = DEFAULT_POLICY) -> None:
        self.capability = dependency.capability
        asked = dependency.namespace or namespace
        self.policy = policy
        self._namespace = asked if policy.isolate_namespaces and asked != ANY_NAMESPACE else None
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
        self, agent: Agent, capability: Capability, position: int, missing_requirement: FindMissingRequirement
    ) -> Provider | Rejection:
        """Tell whether a capability of the wanted name will do; the first stage that it fails at counts."""
        fallen = self.reject_agent(agent)
        if fallen is not None:
            return fallen
        if self.policy.check_required_dependencies and (lacking := missing_requirement(agent, capability)) is not None:
            return Rejection("required", f"required dependency {lacking.capability} is unresolved")
        score, misfit = self.match_capability(capability)
        if misfit is not None:
            return misfit
        profile = agent.indexed
        return Provider(
            agent_id=agent.id,
            endpoint=profile.endpoint,
            tool_name=capability.tool_name,
            version=capability.version,
            degraded=agent.status != "healthy",
            score=score,
            weight=capability.weight,
            zone=profile.zone,
            position=position,
            extension=self.policy.provider_extension(capability),
        )

    def match_capability(self, capability: Capability) -> tuple[int, Rejection | None]:
        """Tell how well the tags meet what is wanted, and which stage the capability fails at, however its agent is."""
        judged = self._tag_requirements.match(frozenset(capability.tags))
        if judged.mismatch is not None:
            return 0, Rejection("tags", judged.mismatch)
        if self._constraint_error:
            return 0, Rejection("version", self._constraint_error)
        if self._version_satisfies is not None and not self._version_satisfies(capability.version):
            return 0, Rejection("version", f"version {capability.version} does not satisfy {self._version_constraint}")
        if self._schema_mismatch is not None and (mismatch := self._schema_mismatch(capability)) is not None:
            return 0, Rejection("schema", mismatch)
        return judged.score, None

    def reject_agent(self, agent: Agent) -> Rejection | None:
        """Return which stage the agent itself fails at, whatever it has; None where it will do."""
        if agent.status not in self.policy.selectable_statuses:
            return Rejection("health", f"is {agent.status}")
        if agent.draining:
            return Rejection("draining", "is draining")
        if self.is_outside_namespace(agent):
            return Rejection("namespace", f"is in namespace {agent.indexed.namespace}, not {self._namespace}")
        return None

    def is_outside_namespace(self, agent: Agent) -> bool:
        """Tell whether an agent is in another namespace than the one to look in."""
        return self._namespace is not None and agent.indexed.namespace != self._namespace

    def candidates(self, view: View) -> Iterator[tuple[Agent, int, Capability]]:
        """Return everybody who has the capability, by id."""
        for _, record in sorted(view.by_capability.get(self.capability, {}).items()):
            for position, capability in enumerate(record.agent.indexed.capabilities):
                if capability.name == self.capability:
                    yield record.agent, position, capability

    def sort_key(self, provider: Provider) -> tuple[bool, int, bool, Any, str]:
        """Return what a provider is preferred for: health, then tags, then version; what is no version comes last."""
        ordered = self.policy.version_key(provider.version)
        known = ordered is not None
        return not provider.degraded, provider.score, known, ordered or (), "" if known else provider.version


def rank(
    view: View,
    matcher: ProviderMatcher,
    missing_requirement: FindMissingRequirement,
    max_rejected: int = MAX_REJECTED_SHOWN,
) -> RankedProviders:
    """Rank everybody who has a capability: healthy before degraded, tag score, version, lowest id."""
    providers: list[Provider] = []
    fallen: Counter[Stage] = Counter()
    out: list[RejectedCandidate] = []
    for agent, position, capability in matcher.candidates(view):
        judged = matcher.match(agent, capability, position, missing_requirement)
        if isinstance(judged, Provider):
            providers.append(judged)
            continue
        fallen[judged.stage] += 1
        if len(out) < max_rejected:
            fell = judged.stage, judged.reason, position
            out.append(RejectedCandidate(agent.id, capability.tool_name, capability.version, agent.status, *fell))
    # Stable, and they came by id: of equals the lowest id stays first.
    providers.sort(key=matcher.sort_key, reverse=True)
    return RankedProviders(tuple(providers), fallen, tuple(out), view.version)
