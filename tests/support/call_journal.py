"""Journal of client calls and their responses, validated against the change log."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from registry.model.agent import Agent
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
    """A call was cut off, or its response has a status that clients must not receive."""

    promise = "Responses: no call is cut off, and each response is 200, a correct 404, or 503 with Retry-After."


class WriteLost(Violation):
    """An acknowledged write is missing."""

    promise = "Durability: every acknowledged write has its entry in the log."


class VersionWentBack(Violation):
    """A version was lower than the one before it, or a list was older than an earlier response."""

    promise = "Order: versions only rise, and no list is older than a response that ended before its request."


class ListMismatch(Violation):
    """A list differs from the log."""

    promise = "Lists: a list of a version is exactly the result of the changes up to it."


class WronglyDegraded(Violation):
    """An agent was degraded although it sent heartbeats or its client retried them."""

    promise = "Safety: no agent is degraded twice, or while it sends or retries heartbeats in time."


class LiveAgentNotFound(Violation):
    """The response for a registered agent was 404."""

    promise = "Identity: the response for a registered agent is never 404."


@dataclass(frozen=True)
class ClientCall:
    """One call of a client to a replica, and its response; times are monotonic seconds.

    `status` is 0 without a response; `timed_out` if the client stopped waiting for it. `version` is the version in the
    response, `server_time_ms` the server's time of an acknowledged heartbeat. `listed_versions` are the versions of the
    listed agents by id, for a list of the agents that satisfy `matches`.
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
    timed_out: bool = False


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

    def longest_gap_ms(self, agent_id: str, since: int, until: int) -> float:
        """Return the longest time between two server times in which no call of an agent ended, in milliseconds."""
        # The smallest difference belongs to the response that arrived fastest.
        offset = min(call.ended * 1000 - call.server_time_ms for call in self.acknowledged("heartbeat"))
        ends = [call.ended * 1000 - offset for call in self.calls_of(agent_id)]
        moments = [since, *(at for at in ends if since < at < until), until]
        return max(after - before for before, after in pairwise(moments))


@dataclass(frozen=True)
class Tolerances:
    """Deviations that are expected during a fault.

    `unresponsive_urls` are the replicas that may leave a call without a response. An agent that is degraded more than
    `max_delay_s` seconds after it became overdue is counted as late.
    """

    unresponsive_urls: frozenset[str] = frozenset()
    max_delay_s: float = 3.0


def check_calls(journal: CallJournal, logs: Sequence[UnbrokenLog], tolerances: Tolerances) -> Counter[str]:
    """Check order and content of all calls against the log; return how many events of each kind were late.

    A slow machine is late, so lateness is no violation. Raises the Violation that is found.
    """
    late: Counter[str] = Counter()
    _check_responses(journal, tolerances, late)
    _check_writes_logged(journal, logs)
    _check_versions_rise(journal, logs)
    _check_lists(journal, logs)
    _check_transitions(journal, logs, tolerances, late)
    _check_not_found(journal, logs)
    return +late


def overdue_agents(log: UnbrokenLog, heartbeats: Mapping[str, int], now: int, max_delay_s: float) -> list[str]:
    """Return the agents that are not degraded `max_delay_s` seconds after they became overdue; `now` is server time."""
    return [
        agent.id
        for agent in log.agents().values()
        if agent.status in ("pending", "healthy")
        and now - heartbeats.get(agent.id, agent.created) > agent.timeout + max_delay_s * 1000
    ]


def _check_responses(journal: CallJournal, tolerances: Tolerances, late: Counter[str]) -> None:
    for call in journal.calls:
        if call.status not in (0, 200, 404, 503):
            raise BadResponse(f"{call} has this status")
        if call.url in tolerances.unresponsive_urls:
            continue
        if call.status == 0 and not call.timed_out:
            raise BadResponse(f"{call} has no response")
        late["late responses"] += call.timed_out


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


def _check_transitions(
    journal: CallJournal, logs: Sequence[UnbrokenLog], tolerances: Tolerances, late: Counter[str]
) -> None:
    heartbeats: dict[str, list[int]] = {}
    for call in journal.acknowledged("heartbeat"):
        heartbeats.setdefault(call.agent_id, []).append(call.server_time_ms)
    for log in logs:
        earliest = 0
        for before, change in log.status_changes():
            # A version is the server's time in milliseconds, except when there are several changes in one millisecond,
            # and after a loss of data: then it is ahead of the time.
            if log is logs[0] and change.version > change.prev + 1:
                earliest = change.version
            if before is not None and change.agent is not None and change.kind == "modify":
                status = change.agent.status
                if status not in _ALLOWED_TRANSITIONS[before] or (
                    status == before and change.reason in ("degraded", "expired")
                ):
                    raise WronglyDegraded(f"{change.agent.id} went from {before} to {status} at {change.version}")
            if change.reason == "degraded":
                _check_degraded(change, earliest, heartbeats, journal, late)
                since, agent = _last_heartbeat(change)
                late["late degradations"] += earliest - since > agent.timeout + tolerances.max_delay_s * 1000


def _last_heartbeat(change: Change) -> tuple[int, Agent]:
    """Return the server time from which the timeout of a degraded agent counts, and the agent."""
    assert change.agent is not None
    return change.agent.created if change.heartbeat is None else change.heartbeat, change.agent


def _check_degraded(
    change: Change, earliest: int, heartbeats: Mapping[str, list[int]], journal: CallJournal, late: Counter[str]
) -> None:
    """Check one degradation, which happened between `earliest` and its version (server time in milliseconds)."""
    since, agent = _last_heartbeat(change)
    if change.version - since < agent.timeout:
        raise WronglyDegraded(f"{agent.id} was degraded {change.version - since} ms after its heartbeat")
    missed = [at for at in heartbeats.get(agent.id, ()) if since < at < earliest]
    if missed:
        raise WronglyDegraded(
            f"{agent.id} was degraded at {change.version}, but heartbeats at {missed} were acknowledged"
        )
    if agent.id in journal.persistent_agents:
        if journal.longest_gap_ms(agent.id, since, since + agent.timeout) < agent.timeout / 2:
            raise WronglyDegraded(
                f"{agent.id} was degraded at {change.version}, but its client did not stop sending heartbeats"
            )
        late["late clients"] += 1


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
