"""A cache of ranked providers, shared by all consumers whose dependencies have equal conditions."""

from collections.abc import Container, Mapping
from typing import Final

from registry.cache.view import View
from registry.concurrency.lru import WeightedLru
from registry.model.agent import Agent, Capability, Dependency
from registry.model.resolution import RankedProviders
from registry.service.resolution.graph import components_and_depths, counts_as_capability
from registry.service.resolution.match_policy import MatchPolicies, MatchPolicy
from registry.service.resolution.provider_ranking import ProviderMatcher, rank

# The size of a ranking is estimated.
_MAX_CACHE_BYTES: Final = 128 * 1024 * 1024
_RANKING_OVERHEAD_BYTES: Final = 2_000
_PROVIDER_BYTES: Final = 200
# A parsed schema takes about ten times its length.
_PARSED_SCHEMA_SIZE_FACTOR: Final = 10
# Required dependencies are followed up to twice the depth that registrations may have.
_MAX_FOLLOWED_DEPTH: Final = 128


class RankingCache:
    """Ranks the providers of dependencies, and finds capabilities with an unresolved required dependency.

    A required dependency in a cycle, or nested too deep, is never satisfied. Registrations with such dependencies are
    rejected. If the store has such data, the computation terminates with the same result on every replica.
    `late_agents` are the agents whose heartbeat is late; a ranking that it contradicts is marked as outdated.
    """

    def __init__(self, policies: MatchPolicies, late_agents: Container[str] = frozenset()) -> None:
        self.policies = policies
        self._late_agents = late_agents
        self._view: View | None = None
        self._cache: WeightedLru[object, tuple[ProviderMatcher, RankedProviders]] = WeightedLru(_MAX_CACHE_BYTES)
        self._component_of: Mapping[str, int] = {}
        self._too_deep: frozenset[str] = frozenset()
        self._graph_version = -1

    def rank_all(
        self, view: View, dependency: Dependency, namespace: str | None, policy: MatchPolicy, max_rejected: int
    ) -> RankedProviders:
        """Rank the providers of a dependency without the cache, and include rejected candidates."""
        self._use_view(view)
        matcher = ProviderMatcher(dependency, namespace, policy)
        return rank(view, matcher, self._missing_in_current_view, self._late_agents, max_rejected)

    def get(
        self, view: View, dependency: Dependency, namespace: str | None, policy: MatchPolicy | None = None
    ) -> RankedProviders:
        """Return the ranked providers of a dependency at the version of the view, from the cache if possible."""
        self._use_view(view)
        policy = policy or self.policies.default
        key = (dependency.match_key, dependency.namespace or namespace, policy)
        found = self._cache.get(key)
        if found is None:
            matcher = ProviderMatcher(dependency, namespace, policy)
        elif view.last_change(dependency.capability) <= found[1].version and not found[1].outdated:
            return found[1]
        else:
            matcher = found[0]
        ranking = rank(view, matcher, self._missing_in_current_view, self._late_agents)
        self._cache.put(key, (matcher, ranking), _estimated_bytes(dependency, ranking))
        return ranking

    def missing_requirement(self, view: View, agent: Agent, capability: Capability) -> Dependency | None:
        """Return the first unresolved required dependency of a capability, None if all are resolved."""
        self._use_view(view)
        return self._missing_in_current_view(agent, capability)

    def _missing_in_current_view(self, agent: Agent, capability: Capability) -> Dependency | None:
        """Return the first unresolved required dependency of a capability in the view of the current call."""
        view, spec = self._view, agent.indexed
        for dependency in (*capability.dependencies, *spec.dependencies):
            if not dependency.required or view is None:
                continue
            self._update_dependency_graph(view)
            node = spec.capability_node(capability.name)
            cycle = self._component_of.get(node)
            if node in self._too_deep or (
                cycle is not None and cycle == self._component_of.get(spec.dependency_node(dependency))
            ):
                return dependency
            if not self.get(view, dependency, spec.namespace, self.policies.for_spec(spec)).providers:
                return dependency
        return None

    def _use_view(self, view: View) -> None:
        if view is not self._view:
            self._view = view
            self._cache.clear()
            self._graph_version = -1

    def _update_dependency_graph(self, view: View) -> None:
        """Compute the dependency cycles and the too deeply nested capabilities, if dependencies have changed."""
        if self._graph_version != view.edges_revision:
            graph = {each: sorted(required) for each, required in view.required_edges.items()}
            self._component_of, depths = components_and_depths(graph, lambda node: counts_as_capability(graph, node))
            self._too_deep = frozenset(name for name, depth in depths.items() if depth > _MAX_FOLLOWED_DEPTH)
            self._graph_version = view.edges_revision


def _estimated_bytes(dependency: Dependency, ranking: RankedProviders) -> int:
    """Return the approximate memory size of a cached ranking."""
    schema = _PARSED_SCHEMA_SIZE_FACTOR * dependency.extension_bytes
    tags = sum(_PROVIDER_BYTES if isinstance(tag, str) else _PROVIDER_BYTES * len(tag) for tag in dependency.tags or ())
    providers = sum(_PROVIDER_BYTES + len(each.extension) for each in ranking.providers)
    reasons = sum(_PROVIDER_BYTES + len(each.reason) for each in ranking.rejected_sample)
    return _RANKING_OVERHEAD_BYTES + schema + tags + providers + reasons
