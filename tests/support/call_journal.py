"""Journal of client calls and their responses, validated against the change log."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from registry.model.change import Change
from tests.support.watch_recorder import AgentFilter, UnbrokenLog, Violation

CallKind = Literal["register", "heartbeat", "unregister", "list"]
# The status changes that are allowed; an agent that was removed starts over with a registration.
_ALLOWED_TRANSITIONS = {
    "pending": {"pending", "healthy", "degraded"},
    "healthy": {"healthy", "degraded"},
    "degraded": {"healthy", "expired"},
    "expired": {"healthy"},
}


class BadResponse(Violation):
    """A call had no response, a late one, or one with a status that clients must not receive."""

    promise = "Responses: every call has a response in time: 200, a correct 404, or 503 with Retry-After."


class WriteLost(Violation):
    """An acknowledged write is missing."""

    promise = "Durability: every acknowledged write has its entry in the log."


class VersionWentBack(Violation):
    """A version was lower than the one before it, or a list was older than an earlier response."""

    promise = "Order: versions only rise, and no list is older than a response that ended before its request."


class ListMismatch(Violation):
    """A list differs from the log."""

    promise = "Lists: a list of a version is exactly the result of the changes up to it."


class OverdueNotDegraded(Violation):
    """An overdue agent is still pending or healthy."""

    promise = "Timeliness: an overdue agent is degraded within its timeout and the tolerated delay."


class WronglyDegraded(Violation):
    """An agent was degraded although it sent heartbeats or its client retried them."""

    promise = "Safety: no agent is degraded twice, or while it sends or retries heartbeats in time."


class LiveAgentNotFound(Violation):
    """The response for a registered agent was 404."""

    promise = "Identity: the response for a registered agent is never 404."


@dataclass(frozen=True)
class ClientCall:
    """One call of a client to a replica, and its response; times are monotonic seconds.

    `status` is 0 without a response. `version` is the version in the response, `server_time_ms` the server's time of an
    acknowledged heartbeat. `listed_versions` are the versions of the listed agents by id, for a list of the agents that
    satisfy `matches`.
    """

    kind: CallKind
    agent_id: str
    url: str
    started: float
    ended: float
    status: int
    version: int = 0
    server_time_ms: int = 0
    listed_versions: Mapping[str, int] | None = None
    matches: AgentFilter | None = None


@dataclass
class CallJournal:
    """All calls, in the order in which they ended. The calls of one agent come from one client, one after the other.

    `persistent_agents` are the agents whose clients send heartbeats in time and retry until they succeed.
    """

    calls: list[ClientCall] = field(default_factory=list)
    persistent_agents: set[str] = field(default_factory=set)

    def acknowledged(self, kind: CallKind) -> list[ClientCall]:
        """Return the successful calls of a kind."""
        return [call for call in self.calls if call.kind == kind and call.status == 200]

    def calls_of(self, agent_id: str) -> list[ClientCall]:
        """Return the writes of one agent."""
        return [call for call in self.calls if call.agent_id == agent_id and call.kind != "list"]


@dataclass(frozen=True)
class Tolerances:
    """Deviations that are allowed during a fault.

    `unresponsive_urls` are the replicas that may leave a call without a response; the others respond within
    `max_response_s` seconds. `max_delay_s` is the maximum delay, in seconds, until an overdue agent is degraded.
    """

    unresponsive_urls: frozenset[str] = frozenset()
    max_response_s: float = 10.0
    max_delay_s: float = 3.0


def check_calls(journal: CallJournal, logs: Sequence[UnbrokenLog], tolerances: Tolerances) -> None:
    """Check all calls against the log. Raises the Violation that is found."""
    _check_responses(journal, tolerances)
    _check_writes_logged(journal, logs)
    _check_versions_rise(journal, logs)
    _check_lists(journal, logs)
    _check_transitions(journal, logs, tolerances)
    _check_not_found(journal, logs)


def check_overdue(log: UnbrokenLog, heartbeats: Mapping[str, int], now: int, max_delay_s: float) -> None:
    """Check that no remaining agent is overdue at the server time `now`. Raises OverdueNotDegraded."""
    for agent in log.agents().values():
        since = heartbeats.get(agent.id, agent.created)
        if agent.status in ("pending", "healthy") and now - since > agent.timeout + max_delay_s * 1000:
            raise OverdueNotDegraded(f"{agent.id} is {agent.status} after {now - since} ms without a heartbeat")


def _check_responses(journal: CallJournal, tolerances: Tolerances) -> None:
    for call in journal.calls:
        if call.status == 0 and call.url not in tolerances.unresponsive_urls:
            raise BadResponse(f"{call} has no response")
        if call.status not in (0, 200, 404, 503):
            raise BadResponse(f"{call} has this status")
        if call.ended - call.started > tolerances.max_response_s and call.url not in tolerances.unresponsive_urls:
            raise BadResponse(f"{call} took {call.ended - call.started:.1f} s")


def _check_writes_logged(journal: CallJournal, logs: Sequence[UnbrokenLog]) -> None:
    entries = {change.version: change for log in logs for change in log.changes}
    for kind, is_removal in (("register", False), ("unregister", True)):
        for call in journal.calls:
            if call.kind != kind or call.status != 200:
                continue
            change = entries.get(call.version)
            if change is None or change.agent is None or change.agent.id != call.agent_id:
                raise WriteLost(f"{call} has no entry in the log")
            if is_removal != (change.kind == "remove"):
                raise WriteLost(f"{call} has the entry {change.kind} in the log")


def _check_versions_rise(journal: CallJournal, logs: Sequence[UnbrokenLog]) -> None:
    last = 0
    for log in logs:
        for change in log.changes:
            if change.version <= last:
                raise VersionWentBack(f"{change.version} came after {last}")
            last = change.version
    ends: list[float] = []
    newest: list[int] = []
    for call in sorted(journal.calls, key=lambda call: call.ended):
        if call.kind == "list" and call.status == 200:
            at = bisect_right(ends, call.started)
            if at and call.version < newest[at - 1]:
                raise VersionWentBack(f"{newest[at - 1]} was in a response before the request of {call}")
        if call.status == 200 and call.version:
            ends.append(call.ended)
            newest.append(max(call.version, newest[-1] if newest else 0))


def _check_lists(journal: CallJournal, logs: Sequence[UnbrokenLog]) -> None:
    for call in journal.acknowledged("list"):
        log = _log_containing(logs, call.version)
        if log is None:
            raise ListMismatch(f"a list of {call.url} has version {call.version}, which does not exist")
        assert call.matches is not None
        expected = log.versions_at(call.matches, call.version)
        if dict(call.listed_versions or {}) != expected:
            raise ListMismatch(
                f"the list of {call.version} from {call.url} is {call.listed_versions}, but the log has {expected}"
            )


def _check_transitions(journal: CallJournal, logs: Sequence[UnbrokenLog], tolerances: Tolerances) -> None:
    heartbeats: dict[str, list[int]] = {}
    for call in journal.acknowledged("heartbeat"):
        heartbeats.setdefault(call.agent_id, []).append(call.server_time_ms)
    for log in logs:
        earliest = 0
        for before, change in log.status_changes():
            # A version is the server's time in milliseconds, except when there are several changes in one millisecond:
            # then it is ahead of the time.
            earliest = change.version if change.version > change.prev + 1 else earliest
            if before is not None and change.agent is not None and change.kind == "modify":
                status = change.agent.status
                if status not in _ALLOWED_TRANSITIONS[before] or (
                    status == before and change.reason in ("degraded", "expired")
                ):
                    raise WronglyDegraded(f"{change.agent.id} went from {before} to {status} at {change.version}")
            if change.reason == "degraded":
                _check_degraded(change, earliest, heartbeats, journal.persistent_agents, tolerances)


def _check_degraded(
    change: Change,
    earliest: int,
    heartbeats: Mapping[str, list[int]],
    persistent_agents: set[str],
    tolerances: Tolerances,
) -> None:
    """Check one degradation, which happened between `earliest` and its version (server time in milliseconds)."""
    agent = change.agent
    assert agent is not None
    since = agent.created if change.heartbeat is None else change.heartbeat
    if change.version - since < agent.timeout:
        raise WronglyDegraded(f"{agent.id} was degraded {change.version - since} ms after its heartbeat")
    if agent.id in persistent_agents:
        raise WronglyDegraded(
            f"{agent.id} was degraded at {change.version}, but its client did not stop sending heartbeats"
        )
    missed = [at for at in heartbeats.get(agent.id, ()) if since < at < earliest]
    if missed:
        raise WronglyDegraded(
            f"{agent.id} was degraded at {change.version}, but heartbeats at {missed} were acknowledged"
        )
    if earliest - since > agent.timeout + tolerances.max_delay_s * 1000:
        raise OverdueNotDegraded(f"{agent.id} was degraded {earliest - since} ms after its heartbeat")


def _check_not_found(journal: CallJournal, logs: Sequence[UnbrokenLog]) -> None:
    for agent_id in {call.agent_id for call in journal.calls if call.status == 404}:
        removed = [at for log in logs for at in log.removals(agent_id)]
        calls = journal.calls_of(agent_id)
        versions = [call.version if call.kind == "register" and call.status == 200 else 0 for call in calls]
        for at, call in enumerate(calls):
            before = max(versions[:at], default=0)
            if call.status != 404 or not before or _log_containing(logs[:-1], before) is not None:
                continue
            after = min((version for version in versions[at:] if version), default=None)
            if not any(before < version and (after is None or version < after) for version in removed):
                raise LiveAgentNotFound(
                    f"{call} had the response 404 after a registration at {before} without a removal"
                )


def _log_containing(logs: Sequence[UnbrokenLog], version: int) -> UnbrokenLog | None:
    return next((log for log in reversed(logs) if log.first <= version <= log.last), None)
