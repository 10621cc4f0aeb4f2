"""Matching of agents and capabilities against a query, for lists, the query cache and watches."""

from bisect import insort
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from registry.cache.change_buffer import ChangeEntry, IndexKey
from registry.cache.view import Record, View
from registry.errors import Detail, MalformedRequest
from registry.model.agent import STATUSES, Agent, Capability, Status
from registry.model.encoding.watch_event import EventKind
from registry.model.query import AgentQuery, CapabilityQuery
from registry.service.discovery import fuzzy
from registry.service.version_constraints import parse_constraint

RankedMatch = tuple[float, str, str, Record]
"""A matching agent: its negative score, namespace, id and record."""

_STATUS_ALIASES: Mapping[str, tuple[Status, ...]] = {
    **{status: (status,) for status in STATUSES},
    "unhealthy": ("degraded", "expired"),
    "offline": ("expired",),
    "any": STATUSES,
}


def expand_status(value: str, field: str) -> tuple[Status, ...]:
    """Return the agent statuses that a status filter stands for. Raises MalformedRequest for an unknown filter."""
    try:
        return _STATUS_ALIASES[value]
    except KeyError:
        problem = f"unknown status {value[:60]!r}; use one of {', '.join(_STATUS_ALIASES)}"
        raise MalformedRequest.of([Detail(field, problem)]) from None


class CapabilityMatcher:
    """Checks whether a capability satisfies the conditions of a query, except the condition on its name."""

    def __init__(self, query: AgentQuery | CapabilityQuery) -> None:
        self._category = query.category
        self._stability = query.stability
        self._tags = frozenset(query.tags)
        constraint = query.version_constraint
        self._version_matches: Callable[[str], bool] | None = parse_constraint(constraint) if constraint else None
        self.has_conditions = bool(query.category or query.stability or query.tags or constraint)

    def matches(self, capability: Capability) -> bool:
        """Return whether the capability satisfies every condition of the query."""
        return (
            (self._category is None or capability.category == self._category)
            and (self._stability is None or capability.stability == self._stability)
            and (not self._tags or self._tags.issubset(capability.tags))
            and (self._version_matches is None or self._version_matches(capability.version))
        )


class Matcher:
    """Checks which agents match a query. The constructor raises MalformedRequest for an invalid query."""

    def __init__(self, query: AgentQuery) -> None:
        self.query = query
        self._statuses = expand_status(query.status, "status")
        self._allowed_statuses = frozenset(self._statuses)
        self._labels = query.selector.equalities
        self._capability_matcher = CapabilityMatcher(query)
        self._exact_names = () if query.fuzzy else query.capabilities
        self._required_names = self._exact_names if not query.any_capability or len(self._exact_names) == 1 else ()
        # The only condition of the query is one capability: the index by capability contains exactly the matches.
        self._index_suffices = query == AgentQuery(capabilities=self._exact_names[:1]) and bool(self._exact_names)

    @property
    def is_ranked(self) -> bool:
        """Whether the query gives its matches a score by which they are sorted."""
        return self.query.fuzzy and bool(self.query.capabilities)

    @property
    def index_key(self) -> IndexKey | None:
        """An index key of every matching agent, without which no change affects the query; None if every change can."""
        query = self.query
        if query.agent_id is not None:
            return ("id", query.agent_id)
        if self._required_names:
            return ("capability", self._required_names[0])
        if self._labels:
            return ("label", *self._labels[0])
        return None if query.namespace is None else ("namespace", query.namespace)

    def select(self, view: View) -> list[Record]:
        """Return the matching agents of a view, unordered; the cost grows with the narrowest index."""
        candidates = self._candidates(view)
        if self._index_suffices:
            return list(candidates)
        return [record for record in candidates if self.matches(record.agent)]

    def select_ranked(self, view: View, matches: list[RankedMatch]) -> Iterator[None]:
        """Insert the agents that match in the present state of the view into the sorted `matches`, in short steps.

        For a ranked query; the best match comes first.
        """
        other_conditions = Matcher(replace(self.query, capabilities=(), fuzzy=False))
        combine = any if self.query.any_capability else all
        # The agent of a record may change between two steps.
        for record, agent in [(record, record.agent) for record in self._candidates(view)]:
            yield
            if other_conditions.matches(agent):
                scores = []
                for score in self._name_scores(agent):
                    scores.append(score)
                    yield
                if combine(score is not None for score in scores):
                    insort(matches, (-_mean(scores), agent.indexed.namespace, agent.id, record))

    def _candidates(self, view: View) -> Iterable[Record]:
        """Return the agents of the narrowest index that contains every match."""
        query = self.query
        if query.agent_id is not None:
            record = view.records.get(query.agent_id)
            return () if record is None else (record,)
        if query.any_capability and len(self._exact_names) > 1:
            union = {k: r for name in self._exact_names for k, r in view.by_capability.get(name, {}).items()}
            return union.values()
        return view.narrowest_candidates(
            capabilities=self._required_names,
            namespace=query.namespace,
            labels=self._labels,
            statuses=self._statuses,
            draining=query.draining,
        ).values()

    def affects(self, entry: ChangeEntry) -> bool:
        """Return whether a change of an agent affects the result of this query."""
        key = self.index_key
        return (key is None or key in entry.index_keys) and self.event_type(entry) is not None

    def event_type(self, entry: ChangeEntry) -> EventKind | None:
        """Return the type of the watch event for a change of an agent; None if the change does not affect the query."""
        before, after = entry.states
        matched = before is not None and self.matches(before)
        if after is not None and self.matches(after):
            return "MODIFIED" if matched else "ADDED"
        return "DELETED" if matched else None

    def matches(self, agent: Agent) -> bool:
        """Return whether an agent matches the query."""
        query, spec = self.query, agent.indexed
        if agent.status not in self._allowed_statuses or (
            query.namespace is not None and spec.namespace != query.namespace
        ):
            return False
        if query.agent_id not in (None, agent.id) or query.draining not in (None, agent.draining):
            return False
        if not query.selector.matches(spec.labels):
            return False
        names = query.capabilities
        if not names and not self._capability_matcher.has_conditions:
            return True
        passing = spec.capabilities
        if self._capability_matcher.has_conditions:
            passing = tuple(capability for capability in passing if self._capability_matcher.matches(capability))
        if not names:
            return bool(passing)
        if query.fuzzy:
            satisfied = (score is not None for score in self._name_scores(agent))
        else:
            provided = {capability.name for capability in passing}
            satisfied = (name in provided for name in names)
        return any(satisfied) if query.any_capability else all(satisfied)

    def score(self, agent: Agent) -> float:
        """Return how well an agent fits the requested names, 0 to 100: the mean over the names that it has."""
        return _mean(self._name_scores(agent))

    def _name_scores(self, agent: Agent) -> Iterator[float | None]:
        """Yield for each requested name the score of the agent's best capability, None if it has no similar one."""
        matching = [each.name for each in agent.indexed.capabilities if self._capability_matcher.matches(each)]
        for requested in self.query.capabilities:
            scores = [score for name in matching if (score := fuzzy.name_score(requested, name)) is not None]
            yield max(scores, default=None)


def _mean(scores: Iterable[float | None]) -> float:
    """Return the mean of the scores that are not None; 0 without any."""
    found = [score for score in scores if score is not None]
    return sum(found) / len(found) if found else 0.0


class CapabilityQueryMatcher:
    """Matches and scores the capabilities of agents against a search."""

    def __init__(self, query: CapabilityQuery) -> None:
        self.query = query
        self._allowed_statuses = frozenset(expand_status(query.agent_status, "agent_status"))
        self._description_text = (query.description_contains or "").casefold()
        self._include_deprecated = query.include_deprecated or query.stability == "deprecated"
        self._capability_matcher = CapabilityMatcher(query)

    @property
    def is_ranked(self) -> bool:
        """Whether the query gives its matches a score by which they are sorted."""
        return bool(self.query.text or (self.query.fuzzy and self.query.name))

    def candidates(self, view: View) -> Iterable[Record]:
        """Return the agents that may have a matching capability."""
        query = self.query
        if query.agent_id is not None:
            record = view.records.get(query.agent_id)
            return () if record is None else (record,)
        names = () if query.name is None or query.fuzzy else (query.name,)
        return view.narrowest_candidates(
            capabilities=names, namespace=query.agent_namespace, labels=(), statuses=(), draining=query.agent_draining
        ).values()

    def matches_agent(self, agent: Agent) -> bool:
        """Return whether the agent of a capability satisfies the conditions of the query on agents."""
        namespace, draining = self.query.agent_namespace, self.query.agent_draining
        return (
            agent.status in self._allowed_statuses
            and (namespace is None or agent.indexed.namespace == namespace)
            and (draining is None or agent.draining is draining)
        )

    def score(self, capability: Capability) -> float | None:
        """Return how well a capability matches the query, 0 to 100; None if it does not match."""
        excluded = capability.stability == "deprecated" and not self._include_deprecated
        if excluded or not self._capability_matcher.matches(capability):
            return None
        if self._description_text and self._description_text not in capability.description.casefold():
            return None
        query, score = self.query, 100.0
        if query.name is not None and query.fuzzy:
            named = fuzzy.name_score(query.name, capability.name)
            if named is None:
                return None
            score = named
        elif query.name not in (None, capability.name):
            return None
        if query.text:
            texts = [
                (fuzzy.NAME_WEIGHT, capability.name),
                *((fuzzy.TAG_WEIGHT, tag) for tag in capability.tags),
                (fuzzy.DESCRIPTION_WEIGHT, capability.description),
            ]
            found = fuzzy.text_score(query.text, texts)
            if found is None:
                return None
            score = min(score, found)
        return score
