"""Resolves the dependencies of agents to providers, and caches the result until a relevant capability changes."""

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Final

from registry.cache.view import Record, View
from registry.concurrency.cooperative_iteration import cooperative
from registry.model.agent import Agent, Dependency
from registry.model.resolution import CachedResolution, LatenessCheck, Provider, RankedProviders, ResolvedDependency
from registry.service.resolution.agent_load_cache import LoadCache
from registry.service.resolution.late_providers import LateProviders
from registry.service.resolution.ranking_cache import RankingCache
from registry.service.resolution.response_format import ResponseFormat
from registry.service.resolution.strategies import SelectionContext, choose

_MAX_ROUND_ROBIN_CAPABILITIES: Final = 1024
_NATIVE_RESPONSE_FORMAT: Final = ResponseFormat()

# The lateness checks of the rankings that a resolution was made with, in order.
Checks = dict[LatenessCheck, None]


class DependencyResolver:
    """Resolves the dependencies of agents from the cache; the only class that sets `Record.resolution`."""

    def __init__(
        self,
        ranking_cache: RankingCache,
        load_cache: LoadCache,
        late_providers: LateProviders,
        response_formats: Mapping[str, ResponseFormat] | None = None,
    ) -> None:
        self._ranking_cache = ranking_cache
        self._load_cache = load_cache
        self._late_providers = late_providers
        self._response_formats = response_formats or {}
        self._view: View | None = None
        self._round_robin_positions: dict[str, tuple[int, Mapping[str, int]]] = {}

    def resolve(self, view: View, record: Record) -> CachedResolution:
        """Return the resolved dependencies of an agent at the version of the view, with known loads and lateness."""
        cached = record.resolution
        if cached is not None:
            if cached.agent is not record.agent or (cached.version != view.version and not _is_current(view, cached)):
                # Another replica may have sent the agent a different resolution in the meantime.
                cached.sent_digest = ""
            elif not cached.depends_on_load and not any(check.outdated for check in cached.lateness_checks):
                cached.version = view.version
                return cached
        checks: Checks = {}
        resolved = tuple(self._resolve_dependencies(view, record.agent, checks))
        return self._cache_resolution(view, record, resolved, view.version, checks)

    def find_current(self, view: View, record: Record) -> CachedResolution | None:
        """Return the cached resolution of an agent if it is valid, None if the dependencies must be resolved again.

        This is a plain method because every heartbeat calls it.
        """
        cached = record.resolution
        if cached is None or cached.agent is not record.agent or cached.depends_on_load:
            return None
        if cached.version != view.version:
            if not _is_current(view, cached):
                return None
            cached.version = view.version
        if cached.lateness_checks:
            now = time.monotonic()
            for check in cached.lateness_checks:
                if check.outdated or check.valid_until <= now:
                    return None
        return cached

    def mark_sent(self, resolution: CachedResolution, digest: str) -> None:
        """Record the digest of the resolution that was last sent to the agent; empty if it is unknown."""
        resolution.sent_digest = digest

    async def resolve_async(self, view: View, record: Record) -> CachedResolution:
        """Resolve an agent's dependencies like `resolve`, but yield to the event loop between dependencies.

        The result may include changes of the meantime; the next call checks them again.
        """
        cached = record.resolution
        agent, version = record.agent, view.version
        if cached is not None and cached.agent is agent and (cached.version == version or _is_current(view, cached)):
            return self.resolve(view, record)
        prepare, checks = self._response_format(agent).prepare(view, agent), Checks()
        steps = cooperative(chain(self._resolve_dependencies(view, agent, checks), prepare))
        dependencies = [step async for step in steps if isinstance(step, ResolvedDependency)]
        if record.agent is not agent or record.resolution is not cached:
            # During this call the agent changed, or another call resolved its dependencies.
            return self.resolve(view, record)
        if cached is not None:
            cached.sent_digest = ""
        return self._cache_resolution(view, record, tuple(dependencies), version, checks)

    async def resolve_current(self, view: View, record: Record) -> CachedResolution:
        """Resolve an agent's dependencies with the current loads and late heartbeats of their providers.

        Raises StoreUnavailable.
        """
        resolution = await self.resolve_async(view, record)
        if not resolution.depends_on_load and not resolution.lateness_checks:
            return resolution
        agent = record.agent
        dependencies = agent.indexed.dependencies_by_function
        rankings = [self.ranking(view, agent, each) async for _, each in cooperative(dependencies)]
        rankings += self._response_format(agent).rankings(view, agent)
        await self._late_providers.refresh(view, rankings)
        for _, dependency in agent.indexed.dependencies_by_function if resolution.depends_on_load else ():
            if dependency.strategy == "least_loaded":
                await self._load_cache.refresh(self.ranking(view, agent, dependency).providers)
        return self.resolve(view, record)

    def ranking(self, view: View, agent: Agent, dependency: Dependency) -> RankedProviders:
        """Return the ranked providers of one dependency of an agent."""
        policy = self._ranking_cache.policies.for_spec(agent.indexed)
        return self._ranking_cache.get(view, dependency, agent.indexed.namespace, policy)

    def rankings_of(self, view: View, agent: Agent) -> Callable[[ResolvedDependency], RankedProviders]:
        """Return a function that ranks the providers of a resolved dependency of an agent."""
        return lambda resolved: self.ranking(view, agent, resolved.dependency)

    def rank_all(self, view: View, agent: Agent, dependency: Dependency, max_rejected: int) -> RankedProviders:
        """Rank the providers of one dependency of an agent without the cache, and include rejected candidates."""
        policy = self._ranking_cache.policies.for_spec(agent.indexed)
        return self._ranking_cache.rank_all(view, dependency, agent.indexed.namespace, policy, max_rejected)

    def choose_provider(
        self, view: View, agent: Agent, function: str, dependency: Dependency
    ) -> tuple[RankedProviders, Provider | None]:
        """Return the ranked providers of one dependency, and the provider chosen by its strategy."""
        ranking = self.ranking(view, agent, dependency)
        strategy = dependency.strategy or "best"
        if strategy == "best":
            return ranking, ranking.providers[0] if ranking.providers else None
        capability = dependency.capability
        index = self._round_robin_position(view, agent.id, capability) if strategy == "round_robin" else 0
        context = SelectionContext(
            seed=f"{agent.id}\0{function}\0{capability}",
            key=dependency.key or agent.id,
            round_robin_index=index,
            zone=agent.indexed.zone,
            loads=self._load_cache.by_agent,
        )
        return ranking, choose(ranking.providers, strategy, context)

    def _resolve_dependencies(self, view: View, agent: Agent, checks: Checks) -> Iterator[ResolvedDependency]:
        """Yield each dependency of an agent with its chosen provider; add the lateness checks of its ranking."""
        for function, dependency in agent.indexed.dependencies_by_function:
            ranking, provider = self.choose_provider(view, agent, function, dependency)
            if ranking.lateness is not None:
                checks[ranking.lateness] = None
            yield ResolvedDependency(function, dependency, provider, ranking.reason if provider is None else None)

    def _cache_resolution(
        self,
        view: View,
        record: Record,
        resolved: tuple[ResolvedDependency, ...],
        version: int,
        checks: Checks,
    ) -> CachedResolution:
        """Cache the resolution of an agent with its encoded response fields, which are reused if nothing changed."""
        agent, previous = record.agent, record.resolution
        depends_on_load = any(each.dependency.strategy == "least_loaded" for each in resolved)
        response_format = self._response_format(agent)
        other_keys = response_format.lookup_keys(agent)
        lookup_keys = tuple(dict.fromkeys((*(each.dependency.capability for each in resolved), *other_keys)))
        if (
            previous is not None
            and not other_keys
            and previous.dependencies == resolved
            and previous.agent.indexed is agent.indexed
        ):
            digest, fields = previous.digest, previous.encoded_fields
        else:
            digest, fields = response_format.encode(view, agent, resolved)
        for ranking in response_format.rankings(view, agent):
            if ranking.lateness is not None:
                checks[ranking.lateness] = None
        sent_digest = "" if previous is None else previous.sent_digest
        resolution = record.resolution = CachedResolution(
            agent, version, depends_on_load, lookup_keys, resolved, digest, fields, tuple(checks), sent_digest
        )
        return resolution

    def _response_format(self, agent: Agent) -> ResponseFormat:
        return self._response_formats.get(agent.indexed.format_name, _NATIVE_RESPONSE_FORMAT)

    def _round_robin_position(self, view: View, agent_id: str, capability: str) -> int:
        """Return the index of an agent among the round-robin consumers of a capability, oldest first."""
        if view is not self._view or len(self._round_robin_positions) > _MAX_ROUND_ROBIN_CAPABILITIES:
            self._view = view
            self._round_robin_positions.clear()
        cached = self._round_robin_positions.get(capability)
        if cached is None or view.last_change(capability) > cached[0]:
            consumers = [
                (record.agent.created, record.agent.id)
                for record in view.by_dependency.get(capability, {}).values()
                if capability in record.agent.indexed.round_robin
            ]
            positions = {consumer: index for index, (_, consumer) in enumerate(sorted(consumers))}
            cached = self._round_robin_positions[capability] = (view.version, positions)
        return cached[1].get(agent_id, 0)


def _is_current(view: View, resolution: CachedResolution) -> bool:
    # A loop, not all(): this runs for each heartbeat of an agent with dependencies.
    for key in resolution.lookup_keys:  # noqa: SIM110
        if view.last_change(key) > resolution.version:
            return False
    return True
