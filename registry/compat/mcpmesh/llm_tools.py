"""Finds the tools and the provider of functions that work with a language model."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, takewhile
from operator import attrgetter
from typing import Any, Final, NamedTuple

from registry.cache.view import View
from registry.compat.mcpmesh.llm_filters import BEST_MATCH, WILDCARD, LlmFilter, parse_filter, parse_provider
from registry.compat.mcpmesh.registration_response import (
    MAX_PROVIDER_DETAIL_BYTES,
    LlmResolution,
    provider_entry,
    provider_resolution,
    tool_entry,
    tool_resolutions,
)
from registry.compat.mcpmesh.spec_fields import McpMeshCapability, McpMeshDependency, llm_functions
from registry.concurrency.lru import WeightedLru
from registry.model.agent import ABSENT, Agent, Capability, Dependency, IndexedSpec, LookupKey
from registry.model.resolution import Provider, RankedProviders
from registry.service.resolution.match_policy import MatchPolicy
from registry.service.resolution.provider_ranking import ProviderMatcher
from registry.service.resolution.ranking_cache import RankingCache

# More tools than any model can use; the second limit is for all functions of an agent together.
_MAX_TOOLS_PER_FUNCTION: Final = 1_000
_MAX_TOOLS_PER_AGENT: Final = 10_000
# Further filter entries of an agent are ignored.
_MAX_FILTER_ENTRIES: Final = 200
# The size of the cached matches is estimated.
_MAX_CACHE_BYTES: Final = 64 * 1024 * 1024
_ENTRY_OVERHEAD_BYTES: Final = 2_000
_MATCH_BYTES: Final = 200


class ToolMatch(NamedTuple):
    """A tool that matches an entry of a tool filter, with its tag score."""

    agent: Agent
    capability: Capability
    score: int


class LlmToolFinder:
    """Finds the tools and LLM providers of functions, and caches the matches of each filter entry."""

    def __init__(self, ranking_cache: RankingCache, policy: MatchPolicy) -> None:
        self._ranking_cache = ranking_cache
        self._policy = policy
        self._view: View | None = None
        self._cache: WeightedLru[object, tuple[int, Sequence[ToolMatch]]] = WeightedLru(_MAX_CACHE_BYTES)

    def fill_cache(self, view: View, agent: Agent) -> Iterator[object]:
        """Find the tools and providers of an agent's functions one by one, and cache them for `find`."""
        for _, tool_filter, dependency in _llm_functions(agent):
            for entry in tool_filter.entries if tool_filter is not None else ():
                yield self._cached_matches(view, agent.indexed, entry)
            if dependency is not None:
                yield self._best_provider(view, agent, dependency)

    def provider_rankings(self, view: View, agent: Agent) -> Iterator[RankedProviders]:
        """Yield the ranked LLM providers of each function of an agent that delegates to one."""
        for _, _, dependency in _llm_functions(agent):
            if dependency is not None:
                yield self._ranked_providers(view, agent, dependency)

    def lookup_keys(self, agent: Agent) -> tuple[LookupKey, ...]:
        """Return the keys by which the tools and LLM providers of an agent's functions are found."""
        keys: list[LookupKey] = []
        for _, tool_filter, dependency in _llm_functions(agent):
            if tool_filter is not None:
                keys += [_lookup_key(entry) for entry in tool_filter.entries]
            if dependency is not None:
                keys.append(dependency.capability)
        return tuple(keys)

    def find(self, view: View, agent: Agent) -> LlmResolution:
        """Return the tools and LLM providers of an agent's functions, in the form that responses contain."""
        tools: dict[str, list[dict[str, Any]]] = {}
        providers: dict[str, dict[str, Any]] = {}
        budget = _ResponseBudget()
        for capability, tool_filter, dependency in _llm_functions(agent):
            if tool_filter is not None:
                by_name = self._tools_by_name(self._matches_by_entry(view, agent, tool_filter), tool_filter.mode)
                found = takewhile(budget.take_tool, by_name.values())
                tools[capability.tool_name] = [tool_entry(each.agent, each.capability) for each in found]
            if dependency is not None:
                chosen = self._best_provider(view, agent, dependency)
                if chosen is not None and budget.take_bytes(len(chosen[0].extension)):
                    providers[capability.tool_name] = provider_entry(*chosen)
        return LlmResolution(tools, providers)

    def resolutions(self, view: View, agent: Agent) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return LLM providers and tools as list rows, also unresolved ones; a tool for each entry that it matches."""
        providers: list[dict[str, Any]] = []
        tools: list[dict[str, Any]] = []
        for function, tool_filter, dependency in _llm_functions(agent):
            if dependency is not None:
                chosen = self._best_provider(view, agent, dependency)
                providers.append(
                    provider_resolution(function.tool_name, dependency, None if chosen is None else chosen[0])
                )
            if tool_filter is None:
                continue
            matches = self._matches_by_entry(view, agent, tool_filter)
            by_name = self._tools_by_name(matches, tool_filter.mode)
            for entry, found in zip(tool_filter.entries, matches, strict=True):
                names = dict.fromkeys(each.capability.tool_name for each in found)
                selected = [(by_name[name].agent, by_name[name].capability) for name in names if name in by_name]
                tools += tool_resolutions(
                    function.tool_name, entry, tool_filter.mode, selected[: max(0, _MAX_TOOLS_PER_AGENT - len(tools))]
                )
        return providers, tools

    def _matches_by_entry(self, view: View, agent: Agent, tool_filter: LlmFilter) -> Sequence[Sequence[ToolMatch]]:
        """Return the matching tools for each entry of a tool filter; of a wildcard only those of other agents."""
        matches = [self._cached_matches(view, agent.indexed, entry) for entry in tool_filter.entries]
        if tool_filter.mode != WILDCARD or not matches:
            return matches
        # All matches of a wildcard have the same score, so they are in the order of their agents.
        own = _agent_order(agent)
        first, end = (find(matches[0], own, key=_match_order) for find in (bisect_left, bisect_right))
        return [[*matches[0][:first], *matches[0][end:]]]

    def _tools_by_name(self, matches: Iterable[Iterable[ToolMatch]], mode: str) -> dict[str, ToolMatch]:
        """Return the tools of a function by name; of several tools with an equal name, the first one."""
        all_matches = chain.from_iterable(matches)
        by_name: dict[str, ToolMatch] = {}
        for each in self._highest_versions(all_matches) if mode == BEST_MATCH else all_matches:
            by_name.setdefault(each.capability.tool_name, each)
            if len(by_name) == _MAX_TOOLS_PER_FUNCTION:
                break
        return by_name

    def _highest_versions(self, matches: Iterable[ToolMatch]) -> Iterable[ToolMatch]:
        """Return the tool with the highest version for each capability; of equal versions the first tool."""
        best: dict[str, tuple[Any, ToolMatch]] = {}
        for each in matches:
            version_key = self._policy.version_key(each.capability.version)
            rank = version_key is not None, version_key or ()
            previous = best.get(each.capability.name)
            if previous is None or rank > previous[0]:
                best[each.capability.name] = rank, each
        return [each for _, each in best.values()]

    def _cached_matches(self, view: View, consumer: IndexedSpec, entry: McpMeshDependency) -> Sequence[ToolMatch]:
        """Return the tools that match a filter entry, from a cache that agents with equal entries share."""
        if view is not self._view:
            self._view = view
            self._cache.clear()
        key = entry.match_key, entry.namespace or consumer.namespace
        cached = self._cache.get(key)
        if cached is None or view.last_change(_lookup_key(entry)) > cached[0]:
            found = sorted(self._find_matches(view, consumer, entry), key=attrgetter("score"), reverse=True)
            cached = view.version, found
            self._cache.put(
                key, cached, _ENTRY_OVERHEAD_BYTES + _MATCH_BYTES * len(found) + 10 * len(bytes(entry.expected_schema))
            )
        return cached[1]

    def _find_matches(self, view: View, consumer: IndexedSpec, entry: McpMeshDependency) -> Iterator[ToolMatch]:
        matcher = ProviderMatcher(entry, consumer.namespace, self._policy)
        key = _lookup_key(entry)
        found = view.by_capability.get(key, {}) if isinstance(key, str) else view.by_llm_tool_tag.get(key, {})
        for record in sorted(found.values(), key=lambda each: _agent_order(each.agent)):
            if matcher.reject_agent(record.agent) is not None:
                continue
            for capability in record.agent.indexed.llm_tools:
                if entry.capability not in ("", capability.name):
                    continue
                score, rejection = matcher.match_capability(capability)
                if rejection is None:
                    yield ToolMatch(record.agent, capability, score)

    def _best_provider(self, view: View, agent: Agent, dependency: Dependency) -> tuple[Provider, Capability] | None:
        """Return the best provider of a required capability that has an input schema."""
        for each in self._ranked_providers(view, agent, dependency).providers:
            capability = view.records[each.agent_id].agent.indexed.capabilities[each.position]
            if capability.input_schema is not ABSENT:
                return each, capability
        return None

    def _ranked_providers(self, view: View, agent: Agent, dependency: Dependency) -> RankedProviders:
        return self._ranking_cache.get(view, dependency, agent.indexed.namespace, self._policy)


class _ResponseBudget:
    """Counts the tools and bytes that still fit into one response."""

    def __init__(self) -> None:
        self._tools_left = _MAX_TOOLS_PER_AGENT
        self._bytes_left = MAX_PROVIDER_DETAIL_BYTES

    def take_tool(self, match: ToolMatch) -> bool:
        """Count one more tool, and return whether it fits into the response."""
        self._tools_left -= 1
        size = len(match.capability.description) + len(bytes(match.capability.input_schema))
        return self._tools_left >= 0 and self.take_bytes(size)

    def take_bytes(self, size: int) -> bool:
        """Count more bytes, and return whether they fit into the response."""
        self._bytes_left -= size
        return self._bytes_left >= 0


def _llm_functions(agent: Agent) -> Iterator[tuple[McpMeshCapability, LlmFilter | None, McpMeshDependency | None]]:
    """Yield each function that works with a language model, with its tool filter and its provider requirement."""
    entries_left = _MAX_FILTER_ENTRIES
    for function in llm_functions(agent.indexed):
        tool_filter = parse_filter(bytes(function.llm_filter))
        if tool_filter is not None:
            tool_filter = tool_filter._replace(entries=tool_filter.entries[:entries_left])
            entries_left -= len(tool_filter.entries)
        yield function, tool_filter, parse_provider(bytes(function.llm_provider))


def _agent_order(agent: Agent) -> tuple[int, str]:
    """Return the sort key of agents with equal tools: as with providers, the one registered last comes first."""
    return -agent.created, agent.id


def _match_order(match: ToolMatch) -> tuple[int, str]:
    return _agent_order(match.agent)


def _lookup_key(entry: McpMeshDependency) -> LookupKey:
    """Return the index key that every match of a filter entry has: its capability or first required tag."""
    if entry.capability:
        return entry.capability
    plain = (tag for tag in entry.tags or () if isinstance(tag, str) and tag and tag[0] not in "+-")
    return "tool", next(plain, None)
