"""What language models work with: the tools an agent filters for, and the provider it delegates to."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec
import orjson

from registry.cache.view import Record, View
from registry.model.agent import ABSENT, Agent, Capability, Dependency, Profile, Sought
from registry.model.flat_answer import Wants, provider_entry, provider_resolution, tool_entry, tool_resolutions
from registry.model.resolution import Provider
from registry.service.providers import Wanted
from registry.service.rankings import Rankings

_ANY: Final = "*"
# Tools one function may be given; more than any model can look at.
_MOST: Final = 1_000
_BEST: Final = "best_match"
_EMPTY = Dependency("")


class Filter(NamedTuple):
    """What a function filters for: needs, whose capability may be '' for any.

    The mode `best_match` takes one of each capability, `*` whatever there is.
    """

    entries: tuple[Dependency, ...]
    mode: str


class Found(NamedTuple):
    """One tool that passed an entry of a filter, and how well."""

    agent: Agent
    capability: Capability
    score: int


class Toolsets:
    """Finds tools and providers, from the indexes of a view."""

    def __init__(self, rankings: Rankings) -> None:
        self._rankings = rankings

    def of(self, view: View, agent: Agent) -> tuple[tuple[Sought, ...], Wants]:
        """Return what an agent's functions look for besides their dependencies, and how answers tell what they get."""
        sought: list[Sought] = []
        tools: dict[str, list[dict[str, Any]]] = {}
        providers: dict[str, dict[str, Any]] = {}
        for capability in agent.profile.llm:
            wanted, need = _filter(bytes(capability.llm_filter)), _provider(bytes(capability.llm_provider))
            if wanted is not None:
                sought += [_sought(entry) for entry in wanted.entries]
                tools[capability.tool] = [
                    tool_entry(each.agent, each.capability) for each in self._tools(view, agent, wanted)
                ]
            if need is not None:
                sought.append(need.capability)
                chosen = self._provider(view, agent, need)
                if chosen is not None:
                    providers[capability.tool] = provider_entry(*chosen)
        return tuple(sought), Wants(tools, providers)

    def shown(self, view: View, agent: Agent) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return providers and tools of an agent's functions as lists show them, those that nobody has, too."""
        providers: list[dict[str, Any]] = []
        tools: list[dict[str, Any]] = []
        for function in agent.profile.llm:
            wanted, need = _filter(bytes(function.llm_filter)), _provider(bytes(function.llm_provider))
            if need is not None:
                chosen = self._provider(view, agent, need)
                providers.append(provider_resolution(function.tool, need, None if chosen is None else chosen[0]))
            if wanted is None:
                continue
            for entry in wanted.entries:
                passed = islice(self._passing(view, agent.profile, entry), _MOST)
                found = [(each.agent, each.capability) for each in passed]
                tools += tool_resolutions(function.tool, entry, wanted.mode, found)
        return providers, tools

    def _tools(self, view: View, agent: Agent, wanted: Filter) -> Sequence[Found]:
        """Return what passes, entry by entry and by id; of functions with one name the first."""
        found: dict[str, Found] = {}
        for entry in wanted.entries:
            passed = self._passing(view, agent.profile, entry)
            for each in _best(passed, self._rankings) if wanted.mode == _BEST else passed:
                found.setdefault(each.capability.tool, each)
                if len(found) == _MOST:
                    return [*found.values()]
        return [*found.values()]

    def _passing(self, view: View, asker: Profile, entry: Dependency) -> Iterator[Found]:
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


def _best(passed: Iterator[Found], rankings: Rankings) -> Sequence[Found]:
    """Return for each capability the one that passed best: by tags, then version, then id."""
    order = rankings.book.llm.order
    best: dict[str, Found] = {}
    for each in passed:
        before = best.get(each.capability.name)
        if before is None or _merit(each, order(each.capability.version)) > _merit(
            before, order(before.capability.version)
        ):
            best[each.capability.name] = each
    return [*best.values()]


def _merit(found: Found, version: Any) -> tuple[int, bool, Any]:
    return found.score, version is not None, version or ()


def _candidates(view: View, entry: Dependency) -> dict[str, Record]:
    key = _sought(entry)
    return view.by_capability.get(key, {}) if isinstance(key, str) else view.by_tool_tag.get(key, {})


def _sought(entry: Dependency) -> Sought:
    """Return the one thing that whatever passes an entry has."""
    if entry.capability:
        return entry.capability
    plain = (tag for tag in entry.tags or () if isinstance(tag, str) and tag and tag[0] not in "+-")
    return "tool", next(plain, None)


@lru_cache(maxsize=1024)
def _filter(text: bytes) -> Filter | None:
    """Read `llm_filter`; None where it is none. An entry that cannot be read asks for nothing."""
    sent = orjson.loads(text) if text else None
    if not isinstance(sent, dict) or not isinstance(sent.get("filter"), list):
        return None
    mode = sent.get("filter_mode")
    if mode == _ANY:
        return Filter((_EMPTY,), _ANY)
    entries = tuple(entry for each in sent["filter"] if (entry := _entry(each)) is not None)
    return Filter(entries, _BEST if mode == _BEST else "all")


def _entry(sent: Any) -> Dependency | None:
    if isinstance(sent, str):
        return _EMPTY if sent == _ANY else Dependency(sent) if sent else None
    if not isinstance(sent, dict):
        return None
    try:
        entry = msgspec.convert({"capability": "", **sent}, Dependency)
    except msgspec.ValidationError:
        return None
    return _EMPTY if entry.capability == _ANY else entry


@lru_cache(maxsize=1024)
def _provider(text: bytes) -> Dependency | None:
    """Read `llm_provider`; None where it is none or cannot be read."""
    sent = orjson.loads(text) if text else None
    entry = _entry(sent) if isinstance(sent, dict) else None
    return entry if entry is not None and entry.capability else None
