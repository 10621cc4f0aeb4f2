"""What an agent's dependencies resolve to, kept until something it looks for has changed."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Final

from registry.cache.view import Record, View
from registry.concurrency.cooperative import cooperative
from registry.model.agent import Agent, Dependency
from registry.model.resolution import CachedResolution, Provider, RankedProviders, ResolvedDependency
from registry.service.resolution.load_cache import LoadCache
from registry.service.resolution.ranking_cache import RankingCache
from registry.service.resolution.response_format import NativeResponseFormat, ResponseFormat
from registry.service.resolution.strategies import SelectionContext, choose

_MAX_ROUND_ROBIN_CAPABILITIES: Final = 1024
_NATIVE_RESPONSE_FORMAT: Final = NativeResponseFormat()


class DependencyResolver:
    """Resolves the dependencies of agents, from the indexes of a view."""

    def __init__(
        self,
        ranking_cache: RankingCache,
        load_cache: LoadCache,
        response_formats: Mapping[str, ResponseFormat] | None = None,
    ) -> None:
        self._ranking_cache = ranking_cache
        self._load_cache = load_cache
        self._response_formats = response_formats or {}
        self._view: View | None = None
        self._round_robin_positions: dict[str, tuple[int, Mapping[str, int]]] = {}

    def resolve(self, view: View, record: Record) -> CachedResolution:
        """Return what an agent's dependencies resolve to as of the view's version, by the loads that are known."""
        kept = record.resolution
        if kept is not None:
            if kept.agent is not record.agent or (kept.version != view.version and not _is_current(view, kept)):
                # Another replica may have told it something else in between, even if this is what was told last here.
                kept.sent_digest = ""
            elif not kept.depends_on_load:
                kept.version = view.version
                return kept
        return self._cache_resolution(
            view, record, kept, list(self._resolve_dependencies(view, record.agent)), view.version
        )

    def _cache_resolution(
        self,
        view: View,
        record: Record,
        previous: CachedResolution | None,
        picks: Sequence[ResolvedDependency],
        version: int,
    ) -> CachedResolution:
        resolution = record.resolution = self._build_resolution(view, record.agent, previous, tuple(picks), version)
        return resolution

    def mark_sent(self, resolution: CachedResolution, digest: str) -> None:
        """Record the digest of the resolution that the agent was sent last; empty if it is not known."""
        resolution.sent_digest = digest

    async def resolve_async(self, view: View, record: Record) -> CachedResolution:
        """Return the same, and let others have their turn in between: an agent may look for very much.

        What changes meanwhile may be seen, and is then looked at again the next time.
        """
        kept = record.resolution
        agent, version = record.agent, view.version
        if kept is not None and kept.agent is agent and (kept.version == version or _is_current(view, kept)):
            return self.resolve(view, record)
        steps = cooperative(
            chain(self._resolve_dependencies(view, agent), self._response_format(agent).prepare(view, agent))
        )
        picks = [step async for step in steps if isinstance(step, ResolvedDependency)]
        if record.agent is not agent or record.resolution is not kept:
            # It has changed meanwhile, or somebody else was here.
            return self.resolve(view, record)
        if kept is not None:
            kept.sent_digest = ""
        return self._cache_resolution(view, record, kept, picks, version)

    async def resolve_with_loads(self, view: View, record: Record) -> CachedResolution:
        """Return the same, by loads that are new enough where the agent chooses by them. Raises StoreUnavailable."""
        resolution = await self.resolve_async(view, record)
        if not resolution.depends_on_load:
            return resolution
        for _, need in _dependencies_by_function(record.agent):
            if need.strategy == "least_loaded":
                await self._load_cache.refresh(self.ranking(view, record.agent, need).providers)
        return self.resolve(view, record)

    def ranking(self, view: View, agent: Agent, dependency: Dependency) -> RankedProviders:
        """Return all who have what one dependency of an agent needs."""
        profile = agent.indexed
        return self._ranking_cache.get(
            view, dependency, profile.namespace, self._ranking_cache.policies.for_profile(profile)
        )

    def rank_all(self, view: View, agent: Agent, dependency: Dependency, max_rejected: int) -> RankedProviders:
        """Return the same with more of those that fell out, made for this call."""
        profile = agent.indexed
        return self._ranking_cache.rank_all(
            view, dependency, profile.namespace, self._ranking_cache.policies.for_profile(profile), max_rejected
        )

    def choose_provider(
        self, view: View, agent: Agent, function: str, dependency: Dependency
    ) -> tuple[RankedProviders, Provider | None]:
        """Return the ranking for one dependency, and who is chosen of it."""
        ranking = self.ranking(view, agent, dependency)
        strategy = dependency.strategy or "best"
        if strategy == "best":
            return ranking, ranking.providers[0] if ranking.providers else None
        asking = SelectionContext(
            seed=f"{agent.id}\0{function}\0{dependency.capability}",
            key=dependency.key or agent.id,
            round_robin_index=self._round_robin_position(view, agent.id, dependency.capability)
            if strategy == "round_robin"
            else 0,
            zone=agent.indexed.zone,
            loads=self._load_cache.by_agent,
        )
        return ranking, choose(ranking.providers, strategy, asking)

    def _resolve_dependencies(self, view: View, agent: Agent) -> Iterator[ResolvedDependency]:
        """Choose for one dependency after the other."""
        for function, need in _dependencies_by_function(agent):
            ranking, provider = self.choose_provider(view, agent, function, need)
            yield ResolvedDependency(function, need, provider, ranking.reason if provider is None else None)

    def _build_resolution(
        self,
        view: View,
        agent: Agent,
        previous: CachedResolution | None,
        resolved: tuple[ResolvedDependency, ...],
        version: int,
    ) -> CachedResolution:
        by_load = any(pick.dependency.strategy == "least_loaded" for pick in resolved)
        response_format = self._response_format(agent)
        other_keys = response_format.lookup_keys(agent)
        names = tuple(dict.fromkeys((*(pick.dependency.capability for pick in resolved), *other_keys)))
        if (
            previous is not None
            and not other_keys
            and previous.dependencies == resolved
            and previous.agent.indexed is agent.indexed
        ):
            digest, body = previous.digest, previous.encoded_fields
        else:
            digest, body = response_format.encode(view, agent, resolved)
        return CachedResolution(
            agent, version, by_load, names, resolved, digest, body, previous.sent_digest if previous else ""
        )

    def _response_format(self, agent: Agent) -> ResponseFormat:
        return self._response_formats.get(agent.indexed.format_name, _NATIVE_RESPONSE_FORMAT)

    def _round_robin_position(self, view: View, agent_id: str, capability: str) -> int:
        """Return the agent's place among those who take turns at a capability, in the order in which they came."""
        if view is not self._view or len(self._round_robin_positions) > _MAX_ROUND_ROBIN_CAPABILITIES:
            self._view = view
            self._round_robin_positions.clear()
        known = self._round_robin_positions.get(capability)
        if known is None or view.last_change(capability) > known[0]:
            takers = [
                (record.agent.created, record.agent.id)
                for record in view.by_dependency.get(capability, {}).values()
                if capability in record.agent.indexed.round_robin
            ]
            places = {taker: place for place, (_, taker) in enumerate(sorted(takers))}
            known = self._round_robin_positions[capability] = (view.version, places)
        return known[1].get(agent_id, 0)


def _is_current(view: View, resolution: CachedResolution) -> bool:
    # A loop, not all(): each heartbeat of an agent with dependencies comes by here.
    for name in resolution.lookup_keys:  # noqa: SIM110
        if view.last_change(name) > resolution.version:
            return False
    return True


def _dependencies_by_function(agent: Agent) -> Iterator[tuple[str, Dependency]]:
    """Return every dependency with the function that has it."""
    return ((function, need) for function, needs in agent.indexed.functions for need in needs)
