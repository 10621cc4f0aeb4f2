"""A query, checked and ready to be asked of agents: the one matcher of lists, kept answers and watches."""

from registry.cache.history import Entry, Key
from registry.cache.view import Record, View
from registry.model.agent import Agent
from registry.model.event import EventKind
from registry.model.query import AgentQuery
from registry.service.statuses import statuses
from registry.service.versions import constraint


class Matcher:
    """Tells whether an agent matches. Raises MalformedRequest for a query that cannot be understood."""

    def __init__(self, query: AgentQuery) -> None:
        self.query = query
        self._statuses = statuses(query.status, "status")
        self._allowed = frozenset(self._statuses)
        self._passes = constraint(query.version_constraint) if query.version_constraint else None

    @property
    def key(self) -> Key | None:
        """The one thing every match has, by which changes that may concern this query are found; None if any may."""
        query = self.query
        if query.capabilities:
            return ("capability", query.capabilities[0])
        if query.labels:
            return ("label", *query.labels[0])
        return None if query.namespace is None else ("namespace", query.namespace)

    def select(self, view: View) -> list[Record]:
        """Return every record that matches, in no order; the cost grows with the narrowest condition."""
        query = self.query
        candidates = view.narrowest(
            capabilities=query.capabilities,
            namespace=query.namespace,
            labels=query.labels,
            statuses=self._statuses,
        )
        return [record for record in candidates.values() if self.matches(record.agent)]

    def kind(self, entry: Entry) -> EventKind | None:
        """Return what a change is to those who watch this query; None when it is nothing to them."""
        before = entry.before is not None and self.matches(entry.before)
        after = entry.after is not None and self.matches(entry.after)
        if after:
            return "MODIFIED" if before else "ADDED"
        return "DELETED" if before else None

    def matches(self, agent: Agent) -> bool:
        """Tell whether an agent matches."""
        query, profile = self.query, agent.profile
        if agent.status not in self._allowed or (query.namespace is not None and profile.namespace != query.namespace):
            return False
        if any(profile.labels.get(key) != value for key, value in query.labels):
            return False
        passing = profile.capabilities
        if self._passes is not None:
            passing = tuple(capability for capability in passing if self._passes(capability.version))
            if not passing:
                return False
        names = {capability.name for capability in passing} if query.capabilities else ()
        return all(name in names for name in query.capabilities)
