"""Who can give what is needed: the one matcher of dependencies, and of whoever selects an agent."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from registry.cache.view import View
from registry.compat.mcpmesh.schema_match import SchemaNeed
from registry.errors import MalformedRequest
from registry.model.agent import Agent, Capability, Dependency
from registry.model.resolution import Out, Provider, Ranking, Stage
from registry.service.resolution.match_policy import PLAIN, Rules
from registry.service.resolution.tag_match import tag_needs

ANYWHERE: Final = "*"
# Of those that fell out, so many are kept with their reasons.
SHOWN: Final = 8

# What an agent's capability cannot do without and does not find, None where it finds everything.
Lacks = Callable[[Agent, Capability], Dependency | None]


@dataclass(frozen=True, slots=True)
class Fallen:
    """Why one capability of one agent is not what is wanted, and at which stage that was seen."""

    stage: Stage
    reason: str


class Wanted:
    """What is wanted of a provider. `namespace` is where to look, `*` or None anywhere."""

    def __init__(self, need: Dependency, namespace: str | None, rules: Rules = PLAIN) -> None:
        self.capability = need.capability
        asked = need.namespace or namespace
        self.rules = rules
        self._namespace = asked if rules.isolates and asked != ANYWHERE else None
        self._version = need.version or ""
        self._tags = tag_needs(need.tags or ())
        self._schema = SchemaNeed(*need.schema_wanted) if need.schema_wanted else None
        self._passes: Callable[[str], bool] | None = None
        self._unreadable = ""
        if self._version:
            try:
                self._passes = rules.constraint(self._version)
            except MalformedRequest as error:
                self._unreadable = str(error)

    def judge(self, agent: Agent, capability: Capability, position: int, lacks: Lacks) -> Provider | Fallen:
        """Tell whether a capability of the wanted name will do; the first stage that it fails at counts."""
        fallen = self.judge_agent(agent)
        if fallen is not None:
            return fallen
        if self.rules.requires and (lacking := lacks(agent, capability)) is not None:
            return Fallen("required", f"cannot do without {lacking.capability}, which nobody has for it")
        score, misfit = self.fit(capability)
        if misfit is not None:
            return misfit
        profile = agent.profile
        return Provider(
            agent_id=agent.id,
            endpoint=profile.endpoint,
            tool_name=capability.tool,
            version=capability.version,
            degraded=agent.status != "healthy",
            score=score,
            weight=capability.weight,
            zone=profile.zone,
            position=position,
            kwargs=bytes(capability.kwargs),
        )

    def fit(self, capability: Capability) -> tuple[int, Fallen | None]:
        """Tell how well the tags meet what is wanted, and which stage the capability fails at, however its agent is."""
        judged = self._tags.judge(frozenset(capability.tags))
        if judged.lacks is not None:
            return 0, Fallen("tags", judged.lacks)
        if self._unreadable:
            return 0, Fallen("version", self._unreadable)
        if self._passes is not None and not self._passes(capability.version):
            return 0, Fallen("version", f"has version {capability.version}, not {self._version}")
        if self._schema is not None and (misfit := self._schema.lacks(capability)) is not None:
            return 0, Fallen("schema", misfit)
        return judged.score, None

    def judge_agent(self, agent: Agent) -> Fallen | None:
        """Return which stage the agent itself fails at, whatever it has; None where it will do."""
        if agent.status not in self.rules.alive:
            return Fallen("health", f"is {agent.status}")
        if agent.draining:
            return Fallen("draining", "is draining")
        if self.is_elsewhere(agent):
            return Fallen("namespace", f"is in namespace {agent.profile.namespace}, not {self._namespace}")
        return None

    def is_elsewhere(self, agent: Agent) -> bool:
        """Tell whether an agent is in another namespace than the one to look in."""
        return self._namespace is not None and agent.profile.namespace != self._namespace

    def having(self, view: View) -> Iterator[tuple[Agent, int, Capability]]:
        """Return everybody who has the capability, by id."""
        for _, record in sorted(view.by_capability.get(self.capability, {}).items()):
            for position, capability in enumerate(record.agent.profile.capabilities):
                if capability.name == self.capability:
                    yield record.agent, position, capability

    def merit(self, provider: Provider) -> tuple[bool, int, bool, Any, str]:
        """Return what a provider is preferred for: health, then tags, then version; what is no version comes last."""
        ordered = self.rules.order(provider.version)
        known = ordered is not None
        return not provider.degraded, provider.score, known, ordered or (), "" if known else provider.version


def rank(view: View, wanted: Wanted, lacks: Lacks, shown: int = SHOWN) -> Ranking:
    """Rank everybody who has a capability: healthy before degraded, tag score, version, lowest id."""
    providers: list[Provider] = []
    fallen: Counter[Stage] = Counter()
    out: list[Out] = []
    for agent, position, capability in wanted.having(view):
        judged = wanted.judge(agent, capability, position, lacks)
        if isinstance(judged, Provider):
            providers.append(judged)
            continue
        fallen[judged.stage] += 1
        if len(out) < shown:
            fell = judged.stage, judged.reason, position
            out.append(Out(agent.id, capability.tool, capability.version, agent.status, *fell))
    # Stable, and they came by id: of equals the lowest id stays first.
    providers.sort(key=wanted.merit, reverse=True)
    return Ranking(tuple(providers), fallen, tuple(out), view.version)
