"""What language models work with: the tools an agent filters for, and the provider it delegates to."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, takewhile
from operator import attrgetter
from typing import Any, Final, NamedTuple

from registry.cache.view import Record, View
from registry.compat.mcpmesh.llm_filters import BEST_MATCH, Filter, read_filter, read_provider
from registry.compat.mcpmesh.response import (
    LARGEST,
    Wants,
    provider_entry,
    provider_resolution,
    tool_entry,
    tool_resolutions,
)
from registry.concurrency.lru import Bounded
from registry.model.agent import ABSENT, Agent, Capability, Dependency, Profile, Sought
from registry.model.resolution import Provider
from registry.service.resolution.provider_match import Wanted
from registry.service.resolution.ranking_cache import Rankings

# Tools one function may be given; more than any model can look at. And tools that all functions of an agent are given.
_MOST: Final = 1_000
_MOST_IN_ALL: Final = 10_000
# So many entries the filters of an agent may have together; further ones ask for nothing.
_MOST_ENTRIES: Final = 200
# How much is kept of what passes an entry, about, in bytes; and what one entry takes, and each tool that passes it.
_MOST_KEPT: Final = 64 * 1024 * 1024
_EACH: Final = 2_000
_EACH_FOUND: Final = 200


class Found(NamedTuple):
    """One tool that passed an entry of a filter, and how well."""

    agent: Agent
    capability: Capability
    score: int


class Toolsets:
    """Finds tools and providers, from the indexes of a view."""

    def __init__(self, rankings: Rankings) -> None:
        self._rankings = rankings
        self._view: View | None = None
        self._kept: Bounded[object, tuple[int, Sequence[Found]]] = Bounded(_MOST_KEPT)

    def look_up(self, view: View, agent: Agent) -> Iterator[object]:
        """Find what an agent's functions look for, one after the other, so that it is known when it is asked for."""
        for _, wanted, need in _wishes(agent):
            for entry in wanted.entries if wanted is not None else ():
                yield self._passing(view, agent.profile, entry)
            if need is not None:
                yield self._provider(view, agent, need)

    def of(self, view: View, agent: Agent) -> tuple[tuple[Sought, ...], Wants]:
        """Return what an agent's functions look for besides their dependencies, and how answers tell what they get."""
        sought: list[Sought] = []
        tools: dict[str, list[dict[str, Any]]] = {}
        providers: dict[str, dict[str, Any]] = {}
        room = _Room()
        for capability, wanted, need in _wishes(agent):
            if wanted is not None:
                sought += [_sought(entry) for entry in wanted.entries]
                given = self._given(self._passed(view, agent, wanted), wanted.mode)
                found = takewhile(room.has_for, given.values())
                tools[capability.tool] = [tool_entry(each.agent, each.capability) for each in found]
            if need is not None:
                sought.append(need.capability)
                chosen = self._provider(view, agent, need)
                if chosen is not None and room.has_bytes(len(chosen[0].kwargs)):
                    providers[capability.tool] = provider_entry(*chosen)
        return tuple(sought), Wants(tools, providers)

    def shown(self, view: View, agent: Agent) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return providers and tools of an agent's functions as lists show them, those that nobody has, too.

        A tool stands under each entry that its name passes.
        """
        providers: list[dict[str, Any]] = []
        tools: list[dict[str, Any]] = []
        for function, wanted, need in _wishes(agent):
            if need is not None:
                chosen = self._provider(view, agent, need)
                providers.append(provider_resolution(function.tool, need, None if chosen is None else chosen[0]))
            if wanted is None:
                continue
            passed = self._passed(view, agent, wanted)
            given = self._given(passed, wanted.mode)
            for entry, found in zip(wanted.entries, passed, strict=True):
                names = dict.fromkeys(each.capability.tool for each in found)
                got = [(given[name].agent, given[name].capability) for name in names if name in given]
                tools += tool_resolutions(function.tool, entry, wanted.mode, got[: max(0, _MOST_IN_ALL - len(tools))])
        return providers, tools

    def _passed(self, view: View, agent: Agent, wanted: Filter) -> Sequence[Sequence[Found]]:
        """Return what passes each entry, by tags and by id."""
        return [self._passing(view, agent.profile, entry) for entry in wanted.entries]

    def _given(self, passed: Iterable[Iterable[Found]], mode: str) -> dict[str, Found]:
        """Return the tools that are given, by the names of their functions: of several with one name the first."""
        each_passed = chain.from_iterable(passed)
        given: dict[str, Found] = {}
        for each in self._best(each_passed) if mode == BEST_MATCH else each_passed:
            given.setdefault(each.capability.tool, each)
            if len(given) == _MOST:
                break
        return given

    def _best(self, passed: Iterable[Found]) -> Iterable[Found]:
        """Return for each capability the one of the highest version, the first of those."""
        best: dict[str, tuple[Any, Found]] = {}
        for each in passed:
            ordered = self._rankings.book.llm.order(each.capability.version)
            merit = ordered is not None, ordered or ()
            before = best.get(each.capability.name)
            if before is None or merit > before[0]:
                best[each.capability.name] = merit, each
        return [each for _, each in best.values()]

    def _passing(self, view: View, asker: Profile, entry: Dependency) -> Sequence[Found]:
        """Return what passes an entry as of the view's version; all who filter for the same share it."""
        if view is not self._view:
            self._view = view
            self._kept.clear()
        key = entry.wanted, entry.namespace or asker.namespace
        known = self._kept.get(key)
        if known is None or view.moved(_sought(entry)) > known[0]:
            found = sorted(self._find(view, asker, entry), key=attrgetter("score"), reverse=True)
            known = view.version, found
            self._kept.put(key, known, _EACH + _EACH_FOUND * len(found) + 10 * len(bytes(entry.schema)))
        return known[1]

    def _find(self, view: View, asker: Profile, entry: Dependency) -> Iterator[Found]:
        judge = Wanted(entry, asker.namespace, self._rankings.book.llm)
        for _, record in sorted(_candidates(view, entry).items()):
            if judge.judge_agent(record.agent) is not None:
                continue
            for capability in record.agent.profile.tools:
                if entry.capability not in ("", capability.name):
                    continue
                score, misfit = judge.fit(capability)
                if misfit is None:
                    yield Found(record.agent, capability, score)

    def _provider(self, view: View, agent: Agent, need: Dependency) -> tuple[Provider, Capability] | None:
        """Return the best who has the capability and tells the schema of its input."""
        for each in self._rankings.get(view, need, agent.profile.namespace, self._rankings.book.llm).providers:
            capability = view.records[each.agent_id].agent.profile.capabilities[each.position]
            if capability.input_schema is not ABSENT:
                return each, capability
        return None


class _Room:
    """Counts what an agent is given until it is too much."""

    def __init__(self) -> None:
        self._tools = _MOST_IN_ALL
        self._bytes = LARGEST

    def has_for(self, found: Found) -> bool:
        """Take one more tool, and tell whether there was room for it."""
        self._tools -= 1
        size = len(found.capability.description) + len(bytes(found.capability.input_schema))
        return self._tools >= 0 and self.has_bytes(size)

    def has_bytes(self, size: int) -> bool:
        """Take so many bytes more, and tell whether there was room for them."""
        self._bytes -= size
        return self._bytes >= 0


def _wishes(agent: Agent) -> Iterator[tuple[Capability, Filter | None, Dependency | None]]:
    """Give each function that works with a language model, with what it filters for and whom it delegates to."""
    left = _MOST_ENTRIES
    for function in agent.profile.llm:
        wanted = read_filter(bytes(function.llm_filter))
        if wanted is not None:
            wanted = wanted._replace(entries=wanted.entries[:left])
            left -= len(wanted.entries)
        yield function, wanted, read_provider(bytes(function.llm_provider))


def _candidates(view: View, entry: Dependency) -> dict[str, Record]:
    key = _sought(entry)
    return view.by_capability.get(key, {}) if isinstance(key, str) else view.by_tool_tag.get(key, {})


def _sought(entry: Dependency) -> Sought:
    """Return the one thing that whatever passes an entry has."""
    if entry.capability:
        return entry.capability
    plain = (tag for tag in entry.tags or () if isinstance(tag, str) and tag and tag[0] not in "+-")
    return "tool", next(plain, None)
