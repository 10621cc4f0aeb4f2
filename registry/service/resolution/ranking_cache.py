"""Rankings that are kept: all who want the same share one, until something changes for those who want it."""

from collections.abc import Mapping
from typing import Final

from registry.cache.view import View
from registry.concurrency.lru import WeightedLru
from registry.model.agent import Agent, Capability, Dependency
from registry.model.resolution import RankedProviders
from registry.service.resolution.graph import components_and_depths
from registry.service.resolution.match_policy import MatchPolicies, MatchPolicy
from registry.service.resolution.provider_match import ProviderMatcher, rank

# How much is kept of rankings, about, in bytes; and what one takes besides what was sent, and each provider in it.
_MAX_CACHE_BYTES: Final = 128 * 1024 * 1024
_RANKING_OVERHEAD_BYTES: Final = 2_000
_PROVIDER_BYTES: Final = 200
# How many times as long a schema is when it was read.
_PARSED_SCHEMA_SIZE_FACTOR: Final = 10
# No chain of required dependencies is followed further: twice as far as registrations may make one.
_MAX_FOLLOWED_DEPTH: Final = 128


class RankingCache:
    """Ranks providers, and knows which capabilities lack what they cannot do without.

    What leads back to itself, or on for too long, is never met. Registrations that would do so are refused, but
    whatever may stand in the store, the same comes out on every replica, and it ends.
    """

    def __init__(self, policies: MatchPolicies) -> None:
        self.policies = policies
        self._view: View | None = None
        self._cache: WeightedLru[object, tuple[ProviderMatcher, RankedProviders]] = WeightedLru(_MAX_CACHE_BYTES)
        self._component_of: Mapping[str, int] = {}
        self._too_deep: frozenset[str] = frozenset()
        self._graph_version = -1

    def rank_all(
        self, view: View, dependency: Dependency, namespace: str | None, policy: MatchPolicy, max_rejected: int
    ) -> RankedProviders:
        """Return a ranking with more of those that fell out, made for this call."""
        self._use_view(view)
        return rank(view, ProviderMatcher(dependency, namespace, policy), self._missing_in_current_view, max_rejected)

    def get(
        self, view: View, dependency: Dependency, namespace: str | None, policy: MatchPolicy | None = None
    ) -> RankedProviders:
        """Return the ranking as of the view's version, by default by the default policy."""
        self._use_view(view)
        policy = policy or self.policies.default
        key = (dependency.match_key, dependency.namespace or namespace, policy)
        found = self._cache.get(key)
        if found is None:
            wanted = ProviderMatcher(dependency, namespace, policy)
        elif view.last_change(dependency.capability) <= found[1].version:
            return found[1]
        else:
            wanted = found[0]
        ranking = rank(view, wanted, self._missing_in_current_view)
        self._cache.put(key, (wanted, ranking), _estimated_bytes(dependency, ranking))
        return ranking

    def missing_requirement(self, view: View, agent: Agent, capability: Capability) -> Dependency | None:
        """Return the first thing a capability cannot do without and nobody has for it; None where nothing is amiss."""
        self._use_view(view)
        return self._missing_in_current_view(agent, capability)

    def _missing_in_current_view(self, agent: Agent, capability: Capability) -> Dependency | None:
        """Return the same as of the view that is being looked at."""
        view, profile = self._view, agent.indexed
        for need in (*capability.dependencies, *profile.dependencies):
            if not need.required or view is None:
                continue
            self._update_dependency_graph(view)
            circle = self._component_of.get(capability.name)
            if capability.name in self._too_deep or (
                circle is not None and circle == self._component_of.get(need.capability)
            ):
                return need
            if not self.get(view, need, profile.namespace, self.policies.for_profile(profile)).providers:
                return need
        return None

    def _use_view(self, view: View) -> None:
        if view is not self._view:
            self._view = view
            self._cache.clear()
            self._graph_version = -1

    def _update_dependency_graph(self, view: View) -> None:
        """Find out which required dependencies lead back, and which lead on for too long."""
        if self._graph_version != view.edges_revision:
            graph = {each: sorted(needed) for each, needed in view.required_edges.items()}
            self._component_of, depths = components_and_depths(graph)
            self._too_deep = frozenset(name for name, depth in depths.items() if depth > _MAX_FOLLOWED_DEPTH)
            self._graph_version = view.edges_revision


def _estimated_bytes(dependency: Dependency, ranking: RankedProviders) -> int:
    """Return about how many bytes are kept with a ranking."""
    asked = _PARSED_SCHEMA_SIZE_FACTOR * dependency.extension_bytes
    tags = sum(_PROVIDER_BYTES if isinstance(tag, str) else _PROVIDER_BYTES * len(tag) for tag in dependency.tags or ())
    providers = sum(_PROVIDER_BYTES + len(each.extension) for each in ranking.providers)
    reasons = sum(_PROVIDER_BYTES + len(out.reason) for out in ranking.rejected_sample)
    return _RANKING_OVERHEAD_BYTES + asked + tags + providers + reasons
