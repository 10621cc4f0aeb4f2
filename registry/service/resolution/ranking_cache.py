"""Rankings that are kept: all who want the same share one, until something changes for those who want it."""

from collections.abc import Mapping
from typing import Final

from registry.cache.view import View
from registry.concurrency.lru import Bounded
from registry.model.agent import Agent, Capability, Dependency
from registry.model.resolution import Ranking
from registry.service.resolution.graph import circles_and_depths
from registry.service.resolution.match_policy import PLAIN, RuleBook, Rules
from registry.service.resolution.provider_match import Wanted, rank

# How much is kept of rankings, about, in bytes; and what one takes besides what was sent, and each provider in it.
_MOST: Final = 128 * 1024 * 1024
_EACH: Final = 2_000
_EACH_PROVIDER: Final = 200
# How many times as long a schema is when it was read.
_READ: Final = 10
# No chain of required dependencies is followed further: twice as far as registrations may make one.
_LONGEST: Final = 128


class Rankings:
    """Ranks providers, and knows which capabilities lack what they cannot do without.

    What leads back to itself, or on for too long, is never met. Registrations that would do so are refused, but
    whatever may stand in the store, the same comes out on every replica, and it ends.
    """

    def __init__(self, book: RuleBook) -> None:
        self.book = book
        self._view: View | None = None
        self._kept: Bounded[object, tuple[Wanted, Ranking]] = Bounded(_MOST)
        self._circles: Mapping[str, int] = {}
        self._endless: frozenset[str] = frozenset()
        self._walked_at = -1

    def whole(self, view: View, need: Dependency, namespace: str | None, rules: Rules, shown: int) -> Ranking:
        """Return a ranking with more of those that fell out, made for this call."""
        self._look_at(view)
        return rank(view, Wanted(need, namespace, rules), self.lacks, shown)

    def get(self, view: View, need: Dependency, namespace: str | None, rules: Rules = PLAIN) -> Ranking:
        """Return the ranking as of the view's version."""
        self._look_at(view)
        key = (need.wanted, need.namespace or namespace, rules)
        found = self._kept.get(key)
        if found is None:
            wanted = Wanted(need, namespace, rules)
        elif view.moved(need.capability) <= found[1].version:
            return found[1]
        else:
            wanted = found[0]
        ranking = rank(view, wanted, self.lacks)
        self._kept.put(key, (wanted, ranking), _weight(need, ranking))
        return ranking

    def lacking(self, view: View, agent: Agent, capability: Capability) -> Dependency | None:
        """Return the first thing a capability cannot do without and nobody has for it; None where nothing is amiss."""
        self._look_at(view)
        return self.lacks(agent, capability)

    def lacks(self, agent: Agent, capability: Capability) -> Dependency | None:
        """Return the same as of the view that is being looked at."""
        view, profile = self._view, agent.profile
        for need in (*capability.dependencies, *profile.dependencies):
            if not need.required or view is None:
                continue
            self._walk(view)
            circle = self._circles.get(capability.name)
            if capability.name in self._endless or (
                circle is not None and circle == self._circles.get(need.capability)
            ):
                return need
            if not self.get(view, need, profile.namespace, self.book.of(profile)).providers:
                return need
        return None

    def _look_at(self, view: View) -> None:
        if view is not self._view:
            self._view = view
            self._kept.clear()
            self._walked_at = -1

    def _walk(self, view: View) -> None:
        """Find out which required dependencies lead back, and which lead on for too long."""
        if self._walked_at != view.edges_changed:
            graph = {each: sorted(needed) for each, needed in view.required.items()}
            self._circles, depths = circles_and_depths(graph)
            self._endless = frozenset(name for name, depth in depths.items() if depth > _LONGEST)
            self._walked_at = view.edges_changed


def _weight(need: Dependency, ranking: Ranking) -> int:
    """Return about how many bytes are kept with a ranking."""
    schema = need.schema_wanted
    asked = _READ * len(schema[2]) if schema is not None else 0
    tags = sum(_EACH_PROVIDER if isinstance(tag, str) else _EACH_PROVIDER * len(tag) for tag in need.tags or ())
    providers = sum(_EACH_PROVIDER + len(each.kwargs) for each in ranking.providers)
    reasons = sum(_EACH_PROVIDER + len(out.reason) for out in ranking.out)
    return _EACH + asked + tags + providers + reasons
