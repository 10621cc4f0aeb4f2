"""Selects one agent for one call, by the strategy that the request names."""

import secrets
from dataclasses import dataclass
from itertools import count
from typing import Final

from registry.cache.view import Record
from registry.concurrency.lru import WeightedLru
from registry.errors import NoProvider
from registry.model.agent import Dependency
from registry.model.resolution import Provider
from registry.service.discovery.discovery_service import Discovery, Freshness
from registry.service.resolution.agent_load_cache import LoadCache
from registry.service.resolution.late_providers import LateProviders
from registry.service.resolution.match_policy import DEFAULT_POLICY
from registry.service.resolution.ranking_cache import RankingCache
from registry.service.resolution.strategies import SelectionContext, choose

_MAX_ROUND_ROBIN_COUNTERS: Final = 4_096


@dataclass(frozen=True, slots=True)
class Selection:
    """The result of a selection: the chosen provider, and the number of providers it was chosen from."""

    provider: Provider
    record: Record
    candidates: int
    version: int
    staleness: float | None


class Selector:
    """Selects one provider of a capability. Round robin counts per replica: a load balancer spreads the callers."""

    def __init__(
        self,
        discovery: Discovery,
        ranking_cache: RankingCache,
        load_cache: LoadCache,
        late_providers: LateProviders,
    ) -> None:
        self._late_providers = late_providers
        self._discovery = discovery
        self._ranking_cache = ranking_cache
        self._load_cache = load_cache
        self._round_robin_counters: WeightedLru[object, count[int]] = WeightedLru(_MAX_ROUND_ROBIN_COUNTERS)

    async def select(
        self, dependency: Dependency, zone: str | None, freshness: Freshness, exclude: frozenset[str] = frozenset()
    ) -> Selection:
        """Select an agent that satisfies a dependency, in any namespace unless the dependency names one.

        Agents with an id in `exclude` are not selected. Raises NoProvider with the reason, MalformedRequest for a
        version constraint that cannot be parsed.
        """
        if dependency.version:
            DEFAULT_POLICY.parse_constraint(dependency.version)
        view, staleness = await self._discovery.view(freshness)
        strategy = dependency.strategy or "best"
        ranking = self._ranking_cache.get(view, dependency, None)
        if not staleness:
            await self._late_providers.refresh(view, [ranking])
            if strategy == "least_loaded":
                await self._load_cache.refresh(ranking.providers)
            ranking = self._ranking_cache.get(view, dependency, None)
        providers = ranking.providers
        if exclude:
            providers = tuple(each for each in providers if each.agent_id not in exclude)
        context = SelectionContext(
            seed=secrets.token_hex(8) if strategy in ("random", "weighted") else "",
            key=dependency.key or "",
            round_robin_index=self._next_round_robin_index(dependency) if strategy == "round_robin" else 0,
            zone=zone,
            loads=self._load_cache.by_agent,
        )
        chosen = choose(providers, strategy, context)
        if chosen is None:
            excluded = f"the call excludes all {len(ranking.providers)} agents that qualify"
            raise NoProvider(dependency.capability, excluded if ranking.providers else ranking.reason)
        # The agent is in the view: the ranking is of the same version.
        record = view.records[chosen.agent_id]
        return Selection(chosen, record, len(providers), view.version, staleness)

    def _next_round_robin_index(self, dependency: Dependency) -> int:
        key = dependency.match_key, dependency.namespace
        counter = self._round_robin_counters.get(key)
        if counter is None:
            counter = count()
            self._round_robin_counters.put(key, counter, 1)
        return next(counter)
