"""Journal of client calls and their responses, validated against the change log."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from registry.model.change import Change
from tests.support.watch_recorder import AgentFilter, UnbrokenLog, Violation

CallKind = Literal["register", "heartbeat", "unregister", "list"]
# What an agent's status may become; a registration anew may follow on a removal only.
_ALLOWED_TRANSITIONS = {
    "pending": {"pending", "healthy", "degraded"},
    "healthy": {"healthy", "degraded"},
    "degraded": {"healthy", "expired"},
    "expired": {"healthy"},
}


class BadResponse(Violation):
    """A client was told what no client may be told, or nothing, or too late."""

    promise = "Told: every call is answered in time, with 200, a true 404, or 503 and when to come again."


class WriteLost(Violation):
    """What was acknowledged is not there."""

    promise = "Kept: what was acknowledged is in the log, and there until the log takes it away."


class VersionWentBack(Violation):
    """A version fell, or a read showed the past."""

    promise = "Growing: versions rise for ever, and no answer is older than one that was there before it was asked for."


class ListMismatch(Violation):
    """A list is not what the log says."""

    promise = "Folded: a list of a version is exactly what the changes up to it leave."


class OverdueNotDegraded(Violation):
    """Somebody silent is still called alive."""

    promise = "Mortal: who falls silent is marked within its timeout and the time it takes to look."


class WronglyDegraded(Violation):
    """Somebody who was heard, or tried to be, is called silent."""

    promise = (
        "Merciful: nobody is marked silent who was heard in time, or keeps trying; and nobody twice for one silence."
    )


class LiveAgentNotFound(Violation):
    """A live agent was called unknown."""

    promise = "Known: an agent that is there is never answered with 404."


@dataclass(frozen=True)
class ClientCall:
    """One call of one client: when (monotonic seconds), of which replica, and what came of it.

    `status` is 0 where no answer came. `version` is the one that was answered, `server_time_ms` the server's
    milliseconds of an
    acknowledged heartbeat, `listed_versions` the agents by version of a list of those that `matches`.
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
    """All deeds, in the order in which they ended. Each agent's are those of one client, one after the other.

    `persistent_agents` are the agents whose clients beat in time and try again until they succeed.
    """

    calls: list[ClientCall] = field(default_factory=list)
    persistent_agents: set[str] = field(default_factory=set)

    def acknowledged(self, kind: CallKind) -> list[ClientCall]:
        """Return the deeds of a kind that succeeded."""
        return [deed for deed in self.calls if deed.kind == kind and deed.status == 200]

    def calls_of(self, agent_id: str) -> list[ClientCall]:
        """Return the deeds of one agent."""
        return [deed for deed in self.calls if deed.agent_id == agent_id and deed.kind != "list"]


@dataclass(frozen=True)
class Tolerances:
    """What a fault excuses.

    `unresponsive_urls` are the replicas that may leave a call unanswered; others answer within `max_response_s`
    seconds. `max_delay_s` is by how many seconds a silent agent may be marked late.
    """

    unresponsive_urls: frozenset[str] = frozenset()
    max_response_s: float = 10.0
    max_delay_s: float = 3.0


def check_calls(journal: CallJournal, logs: Sequence[UnbrokenLog], tolerances: Tolerances) -> None:
    """Hold all deeds against the log. Raises the Violation it finds."""
    _check_responses(journal, tolerances)
    _check_writes_logged(journal, logs)
    _check_versions_rise(journal, logs)
    _check_lists(journal, logs)
    _check_transitions(journal, logs, tolerances)
    _check_not_found(journal, logs)


def check_overdue(log: UnbrokenLog, heartbeats: Mapping[str, int], now: int, max_delay_s: float) -> None:
    """Hold the agents that are there at the end, and their last heartbeats, against the server's time. Raises."""
    for agent in log.agents().values():
        since = heartbeats.get(agent.id, agent.created)
        if agent.status in ("pending", "healthy") and now - since > agent.timeout + max_delay_s * 1000:
            raise OverdueNotDegraded(f"{agent.id} is {agent.status} after {now - since} ms of silence")


def _check_responses(journal: CallJournal, terms: Tolerances) -> None:
    for deed in journal.calls:
        if deed.status == 0 and deed.url not in terms.unresponsive_urls:
            raise BadResponse(f"{deed} has no answer")
        if deed.status not in (0, 200, 404, 503):
            raise BadResponse(f"{deed} has this status")
        if deed.ended - deed.started > terms.max_response_s and deed.url not in terms.unresponsive_urls:
            raise BadResponse(f"{deed} took {deed.ended - deed.started:.1f} s")


def _check_writes_logged(journal: CallJournal, pasts: Sequence[UnbrokenLog]) -> None:
    entries = {change.version: change for past in pasts for change in past.changes}
    for what, gone in (("register", False), ("unregister", True)):
        for deed in journal.calls:
            if deed.kind != what or deed.status != 200:
                continue
            change = entries.get(deed.version)
            if change is None or change.agent is None or change.agent.id != deed.agent_id:
                raise WriteLost(f"{deed} left no entry in the log")
            if gone != (change.kind == "remove"):
                raise WriteLost(f"{deed} left {change.kind} in the log")


def _check_versions_rise(journal: CallJournal, pasts: Sequence[UnbrokenLog]) -> None:
    last = 0
    for past in pasts:
        for change in past.changes:
            if change.version <= last:
                raise VersionWentBack(f"{change.version} came after {last}")
            last = change.version
    ends: list[float] = []
    newest: list[int] = []
    for deed in sorted(journal.calls, key=lambda deed: deed.ended):
        if deed.kind == "list" and deed.status == 200:
            at = bisect_right(ends, deed.started)
            if at and deed.version < newest[at - 1]:
                raise VersionWentBack(f"{newest[at - 1]} had been answered before {deed} was asked")
        if deed.status == 200 and deed.version:
            ends.append(deed.ended)
            newest.append(max(deed.version, newest[-1] if newest else 0))


def _check_lists(journal: CallJournal, pasts: Sequence[UnbrokenLog]) -> None:
    for deed in journal.acknowledged("list"):
        past = _log_containing(pasts, deed.version)
        if past is None:
            raise ListMismatch(f"a list of {deed.url} is of version {deed.version}, which never was")
        assert deed.matches is not None
        truth = past.versions_at(deed.matches, deed.version)
        if dict(deed.listed_versions or {}) != truth:
            raise ListMismatch(
                f"the list of {deed.version} by {deed.url} is {deed.listed_versions}, by the log {truth}"
            )


def _check_transitions(journal: CallJournal, pasts: Sequence[UnbrokenLog], terms: Tolerances) -> None:
    heard: dict[str, list[int]] = {}
    for deed in journal.acknowledged("heartbeat"):
        heard.setdefault(deed.agent_id, []).append(deed.server_time_ms)
    for past in pasts:
        earliest = 0
        for before, change in past.status_changes():
            # A version is the server's time, but where changes came faster than milliseconds: then it runs ahead.
            earliest = change.version if change.version > change.prev + 1 else earliest
            if before is not None and change.agent is not None and change.kind == "modify":
                status = change.agent.status
                if status not in _ALLOWED_TRANSITIONS[before] or (
                    status == before and change.reason in ("degraded", "expired")
                ):
                    raise WronglyDegraded(f"{change.agent.id} went from {before} to {status} at {change.version}")
            if change.reason == "degraded":
                _check_degraded(change, earliest, heard, journal.persistent_agents, terms)


def _check_degraded(
    change: Change, earliest: int, heard: Mapping[str, list[int]], striving: set[str], terms: Tolerances
) -> None:
    """Judge one marking, which was made between `earliest` and its version, in the server's milliseconds."""
    agent = change.agent
    assert agent is not None
    since = agent.created if change.heartbeat is None else change.heartbeat
    if change.version - since < agent.timeout:
        raise WronglyDegraded(f"{agent.id} was marked {change.version - since} ms after it was heard")
    if agent.id in striving:
        raise WronglyDegraded(f"{agent.id} was marked at {change.version}, though its client never stopped trying")
    missed = [at for at in heard.get(agent.id, ()) if since < at < earliest]
    if missed:
        raise WronglyDegraded(f"{agent.id} was marked at {change.version}, though heartbeats of {missed} were taken")
    if earliest - since > agent.timeout + terms.max_delay_s * 1000:
        raise OverdueNotDegraded(f"{agent.id} was marked {earliest - since} ms after it was heard")


def _check_not_found(journal: CallJournal, pasts: Sequence[UnbrokenLog]) -> None:
    for agent_id in {deed.agent_id for deed in journal.calls if deed.status == 404}:
        removed = [at for past in pasts for at in past.removals(agent_id)]
        deeds = journal.calls_of(agent_id)
        versions = [deed.version if deed.kind == "register" and deed.status == 200 else 0 for deed in deeds]
        for at, deed in enumerate(deeds):
            before = max(versions[:at], default=0)
            if deed.status != 404 or not before or _log_containing(pasts[:-1], before) is not None:
                continue
            after = min((version for version in versions[at:] if version), default=None)
            if not any(before < version and (after is None or version < after) for version in removed):
                raise LiveAgentNotFound(
                    f"{deed} was told 404 after it was registered at {before}, and nothing removed it"
                )


def _log_containing(pasts: Sequence[UnbrokenLog], version: int) -> UnbrokenLog | None:
    return next((past for past in reversed(pasts) if past.first <= version <= past.last), None)
