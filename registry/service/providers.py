"""Who can give what is needed: the one matcher of dependencies, and of whoever selects an agent."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from registry.cache.view import View
from registry.errors import MalformedRequest
from registry.model.agent import Agent, Capability, Dependency, Status
from registry.model.resolution import Out, Provider, Ranking, Stage
from registry.service.constraints import Ordered, constraint, order
from registry.service.tags import tag_needs

ANYWHERE: Final = "*"
# How many rankings are kept.
_MOST: Final = 16_384
# Of those that fell out, so many are kept with their reasons.
_SHOWN: Final = 8


@dataclass(frozen=True, slots=True)
class Rules:
    """In which ways those who ask differ; all else is the same for all.

    `alive` are the statuses of an agent that can be chosen; `isolates` tells whether an agent of another namespace than
    the one asked for falls out; `constraint` reads a version constraint and raises MalformedRequest.
    """

    alive: frozenset[Status] = frozenset({"healthy", "degraded"})
    isolates: bool = True
    constraint: Callable[[str], Callable[[str], bool]] = constraint


SEEDS: Final = Rules()


@dataclass(frozen=True, slots=True)
class Fallen:
    """Why one capability of one agent is not what is wanted, and at which stage that was seen."""

    stage: Stage
    reason: str


class Wanted:
    """What is wanted of a provider. `namespace` is where to look, `*` or None anywhere."""

    def __init__(self, need: Dependency, namespace: str | None, rules: Rules = SEEDS) -> None:
        self.capability = need.capability
        asked = need.namespace or namespace
        self._namespace = asked if rules.isolates and asked != ANYWHERE else None
        self._version = need.version or ""
        self._alive = rules.alive
        self._tags = tag_needs(need.tags or ())
        self._passes: Callable[[str], bool] | None = None
        self._unreadable = ""
        if self._version:
            try:
                self._passes = rules.constraint(self._version)
            except MalformedRequest as error:
                self._unreadable = str(error)

    def judge(self, agent: Agent, capability: Capability, position: int) -> Provider | Fallen:
        """Tell whether a capability of the wanted name will do; the first stage that it fails at counts."""
        fallen = self._judge_agent(agent)
        if fallen is not None:
            return fallen
        judged = self._tags.judge(frozenset(capability.tags))
        if judged.lacks is not None:
            return Fallen("tags", judged.lacks)
        if self._unreadable:
            return Fallen("version", self._unreadable)
        if self._passes is not None and not self._passes(capability.version):
            return Fallen("version", f"has version {capability.version}, not {self._version}")
        profile = agent.profile
        return Provider(
            agent_id=agent.id,
            endpoint=profile.endpoint,
            tool_name=capability.tool,
            version=capability.version,
            degraded=agent.status != "healthy",
            score=judged.score,
            weight=capability.weight,
            zone=profile.zone,
            position=position,
        )

    def _judge_agent(self, agent: Agent) -> Fallen | None:
        if agent.status not in self._alive:
            return Fallen("health", f"is {agent.status}")
        if agent.draining:
            return Fallen("draining", "is draining")
        if self._namespace is not None and agent.profile.namespace != self._namespace:
            return Fallen("namespace", f"is in namespace {agent.profile.namespace}, not {self._namespace}")
        return None

    def candidates(self, view: View) -> Iterator[tuple[Agent, Capability, Provider | Fallen]]:
        """Judge everybody who has the capability, by id."""
        for _, record in sorted(view.by_capability.get(self.capability, {}).items()):
            for position, capability in enumerate(record.agent.profile.capabilities):
                if capability.name == self.capability:
                    yield record.agent, capability, self.judge(record.agent, capability, position)


def _merit(provider: Provider) -> tuple[bool, int, bool, Ordered | tuple[()], str]:
    """Return what a provider is preferred for: health, then tags, then version; what is no version comes last."""
    ordered = order(provider.version)
    known = ordered is not None
    return not provider.degraded, provider.score, known, ordered or (), "" if known else provider.version


def rank(view: View, wanted: Wanted, shown: int = _SHOWN) -> Ranking:
    """Rank everybody who has a capability: healthy before degraded, tag score, version, lowest id."""
    providers: list[Provider] = []
    fallen: Counter[Stage] = Counter()
    out: list[Out] = []
    for agent, capability, judged in wanted.candidates(view):
        if isinstance(judged, Provider):
            providers.append(judged)
            continue
        fallen[judged.stage] += 1
        if len(out) < shown:
            out.append(Out(agent.id, capability.tool, capability.version, agent.status, judged.stage, judged.reason))
    # Stable, and they came by id: of equals the lowest id stays first.
    providers.sort(key=_merit, reverse=True)
    return Ranking(tuple(providers), fallen, tuple(out), view.version)


class Rankings:
    """Keeps rankings; all who want the same share one, until something changes for those who want the capability."""

    def __init__(self, rules: Rules = SEEDS) -> None:
        self._rules = rules
        self._view: View | None = None
        self._kept: OrderedDict[object, tuple[Wanted, Ranking]] = OrderedDict()

    def whole(self, view: View, need: Dependency, namespace: str | None, shown: int) -> Ranking:
        """Return a ranking with more of those that fell out, made for this call."""
        return rank(view, Wanted(need, namespace, self._rules), shown)

    def get(self, view: View, need: Dependency, namespace: str | None) -> Ranking:
        """Return the ranking as of the view's version."""
        if view is not self._view:
            self._view = view
            self._kept.clear()
        key = (need.capability, need.version, need.tags, need.namespace or namespace)
        found = self._kept.get(key)
        if found is None:
            wanted = Wanted(need, namespace, self._rules)
        elif view.moved(need.capability) <= found[1].version:
            self._kept.move_to_end(key)
            return found[1]
        else:
            wanted = found[0]
        ranking = rank(view, wanted)
        self._kept[key] = wanted, ranking
        self._kept.move_to_end(key)
        if len(self._kept) > _MOST:
            self._kept.popitem(last=False)
        return ranking
