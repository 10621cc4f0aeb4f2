"""What language models work with: the tools an agent filters for, and the provider it delegates to."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, takewhile
from operator import attrgetter
from typing import Any, Final, NamedTuple

from registry.cache.view import Record, View
from registry.compat.mcpmesh.llm_filters import BEST_MATCH, LlmFilter, parse_filter, parse_provider
from registry.compat.mcpmesh.response import (
    MAX_PROVIDER_DETAIL_BYTES,
    LlmResolution,
    provider_entry,
    provider_resolution,
    tool_entry,
    tool_resolutions,
)
from registry.compat.mcpmesh.spec import McpMeshCapability, McpMeshDependency, llm_functions
from registry.concurrency.lru import WeightedLru
from registry.model.agent import ABSENT, Agent, Capability, Dependency, IndexedSpec, LookupKey
from registry.model.resolution import Provider
from registry.service.resolution.match_policy import MatchPolicy
from registry.service.resolution.provider_match import ProviderMatcher
from registry.service.resolution.ranking_cache import RankingCache

# Tools one function may be given; more than any model can look at. And tools that all functions of an agent are given.
_MAX_TOOLS_PER_FUNCTION: Final = 1_000
_MAX_TOOLS_PER_AGENT: Final = 10_000
# So many entries the filters of an agent may have together; further ones ask for nothing.
_MAX_FILTER_ENTRIES: Final = 200
# How much is kept of what passes an entry, about, in bytes; and what one entry takes, and each tool that passes it.
_MAX_CACHE_BYTES: Final = 64 * 1024 * 1024
_ENTRY_OVERHEAD_BYTES: Final = 2_000
_MATCH_BYTES: Final = 200


class ToolMatch(NamedTuple):
    """One tool that passed an entry of a filter, and how well."""

    agent: Agent
    capability: Capability
    score: int


class LlmToolFinder:
    """Finds tools and providers, from the indexes of a view."""

    def __init__(self, ranking_cache: RankingCache, policy: MatchPolicy) -> None:
        self._ranking_cache = ranking_cache
        self._policy = policy
        self._view: View | None = None
        self._cache: WeightedLru[object, tuple[int, Sequence[ToolMatch]]] = WeightedLru(_MAX_CACHE_BYTES)

    def fill_cache(self, view: View, agent: Agent) -> Iterator[object]:
        """Find what an agent's functions look for, one after the other, so that it is known when it is asked for."""
        for _, wanted, need in _llm_functions(agent):
            for entry in wanted.entries if wanted is not None else ():
                yield self._cached_matches(view, agent.indexed, entry)
            if need is not None:
                yield self._best_provider(view, agent, need)

    def lookup_keys(self, agent: Agent) -> tuple[LookupKey, ...]:
        """Return the keys by which tools and providers are found for an agent's functions."""
        keys: list[LookupKey] = []
        for _, wanted, need in _llm_functions(agent):
            if wanted is not None:
                keys += [_lookup_key(entry) for entry in wanted.entries]
            if need is not None:
                keys.append(need.capability)
        return tuple(keys)

    def find(self, view: View, agent: Agent) -> LlmResolution:
        """Return the tools and providers of an agent's functions, as responses show them."""
        tools: dict[str, list[dict[str, Any]]] = {}
        providers: dict[str, dict[str, Any]] = {}
        room = _ResponseBudget()
        for capability, wanted, need in _llm_functions(agent):
            if wanted is not None:
                given = self._tools_by_name(self._matches_by_entry(view, agent, wanted), wanted.mode)
                found = takewhile(room.take_tool, given.values())
                tools[capability.tool_name] = [tool_entry(each.agent, each.capability) for each in found]
            if need is not None:
                chosen = self._best_provider(view, agent, need)
                if chosen is not None and room.take_bytes(len(chosen[0].extension)):
                    providers[capability.tool_name] = provider_entry(*chosen)
        return LlmResolution(tools, providers)

    def resolutions(self, view: View, agent: Agent) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return providers and tools of an agent's functions as lists show them, those that nobody has, too.

        A tool stands under each entry that its name passes.
        """
        providers: list[dict[str, Any]] = []
        tools: list[dict[str, Any]] = []
        for function, wanted, need in _llm_functions(agent):
            if need is not None:
                chosen = self._best_provider(view, agent, need)
                providers.append(provider_resolution(function.tool_name, need, None if chosen is None else chosen[0]))
            if wanted is None:
                continue
            passed = self._matches_by_entry(view, agent, wanted)
            given = self._tools_by_name(passed, wanted.mode)
            for entry, found in zip(wanted.entries, passed, strict=True):
                names = dict.fromkeys(each.capability.tool_name for each in found)
                got = [(given[name].agent, given[name].capability) for name in names if name in given]
                tools += tool_resolutions(
                    function.tool_name, entry, wanted.mode, got[: max(0, _MAX_TOOLS_PER_AGENT - len(tools))]
                )
        return providers, tools

    def _matches_by_entry(self, view: View, agent: Agent, tool_filter: LlmFilter) -> Sequence[Sequence[ToolMatch]]:
        """Return what passes each entry, by tags and by id."""
        return [self._cached_matches(view, agent.indexed, entry) for entry in tool_filter.entries]

    def _tools_by_name(self, matches: Iterable[Iterable[ToolMatch]], mode: str) -> dict[str, ToolMatch]:
        """Return the tools that are given, by the names of their functions: of several with one name the first."""
        each_passed = chain.from_iterable(matches)
        given: dict[str, ToolMatch] = {}
        for each in self._highest_versions(each_passed) if mode == BEST_MATCH else each_passed:
            given.setdefault(each.capability.tool_name, each)
            if len(given) == _MAX_TOOLS_PER_FUNCTION:
                break
        return given

    def _highest_versions(self, matches: Iterable[ToolMatch]) -> Iterable[ToolMatch]:
        """Return for each capability the one of the highest version, the first of those."""
        best: dict[str, tuple[Any, ToolMatch]] = {}
        for each in matches:
            ordered = self._policy.version_key(each.capability.version)
            merit = ordered is not None, ordered or ()
            before = best.get(each.capability.name)
            if before is None or merit > before[0]:
                best[each.capability.name] = merit, each
        return [each for _, each in best.values()]

    def _cached_matches(self, view: View, consumer: IndexedSpec, entry: McpMeshDependency) -> Sequence[ToolMatch]:
        """Return what passes an entry as of the view's version; all who filter for the same share it."""
        if view is not self._view:
            self._view = view
            self._cache.clear()
        key = entry.match_key, entry.namespace or consumer.namespace
        known = self._cache.get(key)
        if known is None or view.last_change(_lookup_key(entry)) > known[0]:
            found = sorted(self._find_matches(view, consumer, entry), key=attrgetter("score"), reverse=True)
            known = view.version, found
            self._cache.put(
                key, known, _ENTRY_OVERHEAD_BYTES + _MATCH_BYTES * len(found) + 10 * len(bytes(entry.expected_schema))
            )
        return known[1]

    def _find_matches(self, view: View, consumer: IndexedSpec, entry: McpMeshDependency) -> Iterator[ToolMatch]:
        judge = ProviderMatcher(entry, consumer.namespace, self._policy)
        for _, record in sorted(_candidate_records(view, entry).items()):
            if judge.reject_agent(record.agent) is not None:
                continue
            for capability in record.agent.indexed.llm_tools:
                if entry.capability not in ("", capability.name):
                    continue
                score, misfit = judge.match_capability(capability)
                if misfit is None:
                    yield ToolMatch(record.agent, capability, score)

    def _best_provider(self, view: View, agent: Agent, dependency: Dependency) -> tuple[Provider, Capability] | None:
        """Return the best who has the capability and tells the schema of its input."""
        for each in self._ranking_cache.get(view, dependency, agent.indexed.namespace, self._policy).providers:
            capability = view.records[each.agent_id].agent.indexed.capabilities[each.position]
            if capability.input_schema is not ABSENT:
                return each, capability
        return None


class _ResponseBudget:
    """Counts what an agent is given until it is too much."""

    def __init__(self) -> None:
        self._tools_left = _MAX_TOOLS_PER_AGENT
        self._bytes_left = MAX_PROVIDER_DETAIL_BYTES

    def take_tool(self, match: ToolMatch) -> bool:
        """Take one more tool, and tell whether there was room for it."""
        self._tools_left -= 1
        size = len(match.capability.description) + len(bytes(match.capability.input_schema))
        return self._tools_left >= 0 and self.take_bytes(size)

    def take_bytes(self, size: int) -> bool:
        """Take so many bytes more, and tell whether there was room for them."""
        self._bytes_left -= size
        return self._bytes_left >= 0


def _llm_functions(agent: Agent) -> Iterator[tuple[McpMeshCapability, LlmFilter | None, McpMeshDependency | None]]:
    """Give each function that works with a language model, with what it filters for and whom it delegates to."""
    left = _MAX_FILTER_ENTRIES
    for function in llm_functions(agent.indexed):
        wanted = parse_filter(bytes(function.llm_filter))
        if wanted is not None:
            wanted = wanted._replace(entries=wanted.entries[:left])
            left -= len(wanted.entries)
        yield function, wanted, parse_provider(bytes(function.llm_provider))


def _candidate_records(view: View, entry: McpMeshDependency) -> dict[str, Record]:
    key = _lookup_key(entry)
    return view.by_capability.get(key, {}) if isinstance(key, str) else view.by_llm_tool_tag.get(key, {})


def _lookup_key(entry: McpMeshDependency) -> LookupKey:
    """Return the one thing that whatever passes an entry has."""
    if entry.capability:
        return entry.capability
    plain = (tag for tag in entry.tags or () if isinstance(tag, str) and tag and tag[0] not in "+-")
    return "tool", next(plain, None)
