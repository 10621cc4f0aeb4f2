"""What clients asked and what they were told, and whether all of it was true, judged by the change log."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from registry.model.change import Change
from tests.support.watch_recorder import Past, Violation, Wants

What = Literal["register", "heartbeat", "unregister", "list"]
# What an agent's status may become; a registration anew may follow on a removal only.
_NEXT = {
    "pending": {"pending", "healthy", "degraded"},
    "healthy": {"healthy", "degraded"},
    "degraded": {"healthy", "expired"},
    "expired": {"healthy"},
}


class BadAnswer(Violation):
    """A client was told what no client may be told, or nothing, or too late."""

    promise = "Told: every call is answered in time, with 200, a true 404, or 503 and when to come again."


class NotKept(Violation):
    """What was acknowledged is not there."""

    promise = "Kept: what was acknowledged is in the log, and there until the log takes it away."


class NotGrowing(Violation):
    """A version fell, or a read showed the past."""

    promise = "Growing: versions rise for ever, and no answer is older than one that was there before it was asked for."


class NotTheFold(Violation):
    """A list is not what the log says."""

    promise = "Folded: a list of a version is exactly what the changes up to it leave."


class NotMortal(Violation):
    """Somebody silent is still called alive."""

    promise = "Mortal: who falls silent is marked within its timeout and the time it takes to look."


class NotMerciful(Violation):
    """Somebody who was heard, or tried to be, is called silent."""

    promise = (
        "Merciful: nobody is marked silent who was heard in time, or keeps trying; and nobody twice for one silence."
    )


class Denied(Violation):
    """A live agent was called unknown."""

    promise = "Known: an agent that is there is never answered with 404."


@dataclass(frozen=True)
class Deed:
    """One call of one client: when (monotonic seconds), of which replica, and what came of it.

    `status` is 0 where no answer came. `version` is the one that was answered, `at` the server's milliseconds of an
    acknowledged heartbeat, `view` the agents by version of a list of those that `wants`.
    """

    what: What
    agent_id: str
    url: str
    began: float
    ended: float
    status: int
    version: int = 0
    at: int = 0
    view: Mapping[str, int] | None = None
    wants: Wants | None = None


@dataclass
class Journal:
    """All deeds, in the order in which they ended. Each agent's are those of one client, one after the other.

    `striving` are the agents whose clients beat in time and try again until they succeed.
    """

    deeds: list[Deed] = field(default_factory=list)
    striving: set[str] = field(default_factory=set)

    def acknowledged(self, what: What) -> list[Deed]:
        """Return the deeds of a kind that succeeded."""
        return [deed for deed in self.deeds if deed.what == what and deed.status == 200]

    def of(self, agent_id: str) -> list[Deed]:
        """Return the deeds of one agent."""
        return [deed for deed in self.deeds if deed.agent_id == agent_id and deed.what != "list"]


@dataclass(frozen=True)
class Terms:
    """What a fault excuses.

    `mute` are the replicas that may leave a call unanswered; others answer within `patience` seconds. `late` is by how
    many seconds a silent agent may be marked late.
    """

    mute: frozenset[str] = frozenset()
    patience: float = 10.0
    late: float = 3.0


def check_deeds(journal: Journal, pasts: Sequence[Past], terms: Terms) -> None:
    """Hold all deeds against the log. Raises the Violation it finds."""
    _answers(journal, terms)
    _kept(journal, pasts)
    _growing(journal, pasts)
    _folds(journal, pasts)
    _lives(journal, pasts, terms)
    _known(journal, pasts)


def check_silence(past: Past, heartbeats: Mapping[str, int], now: int, late: float) -> None:
    """Hold the agents that are there at the end, and their last heartbeats, against the server's time. Raises."""
    for agent in past.agents().values():
        since = heartbeats.get(agent.id, agent.created)
        if agent.status in ("pending", "healthy") and now - since > agent.timeout + late * 1000:
            raise NotMortal(f"{agent.id} is {agent.status} after {now - since} ms of silence")


def _answers(journal: Journal, terms: Terms) -> None:
    for deed in journal.deeds:
        if deed.status == 0 and deed.url not in terms.mute:
            raise BadAnswer(f"{deed} has no answer")
        if deed.status not in (0, 200, 404, 503):
            raise BadAnswer(f"{deed} has this status")
        if deed.ended - deed.began > terms.patience and deed.url not in terms.mute:
            raise BadAnswer(f"{deed} took {deed.ended - deed.began:.1f} s")


def _kept(journal: Journal, pasts: Sequence[Past]) -> None:
    entries = {change.version: change for past in pasts for change in past.changes}
    for what, gone in (("register", False), ("unregister", True)):
        for deed in journal.deeds:
            if deed.what != what or deed.status != 200:
                continue
            change = entries.get(deed.version)
            if change is None or change.agent is None or change.agent.id != deed.agent_id:
                raise NotKept(f"{deed} left no entry in the log")
            if gone != (change.kind == "remove"):
                raise NotKept(f"{deed} left {change.kind} in the log")


def _growing(journal: Journal, pasts: Sequence[Past]) -> None:
    last = 0
    for past in pasts:
        for change in past.changes:
            if change.version <= last:
                raise NotGrowing(f"{change.version} came after {last}")
            last = change.version
    ends: list[float] = []
    newest: list[int] = []
    for deed in sorted(journal.deeds, key=lambda deed: deed.ended):
        if deed.what == "list" and deed.status == 200:
            at = bisect_right(ends, deed.began)
            if at and deed.version < newest[at - 1]:
                raise NotGrowing(f"{newest[at - 1]} had been answered before {deed} was asked")
        if deed.status == 200 and deed.version:
            ends.append(deed.ended)
            newest.append(max(deed.version, newest[-1] if newest else 0))


def _folds(journal: Journal, pasts: Sequence[Past]) -> None:
    for deed in journal.acknowledged("list"):
        past = _holding(pasts, deed.version)
        if past is None:
            raise NotTheFold(f"a list of {deed.url} is of version {deed.version}, which never was")
        assert deed.wants is not None
        truth = past.view(deed.wants, deed.version)
        if dict(deed.view or {}) != truth:
            raise NotTheFold(f"the list of {deed.version} by {deed.url} is {deed.view}, by the log {truth}")


def _lives(journal: Journal, pasts: Sequence[Past], terms: Terms) -> None:
    heard: dict[str, list[int]] = {}
    for deed in journal.acknowledged("heartbeat"):
        heard.setdefault(deed.agent_id, []).append(deed.at)
    for past in pasts:
        earliest = 0
        for before, change in past.steps():
            # A version is the server's time, but where changes came faster than milliseconds: then it runs ahead.
            earliest = change.version if change.version > change.prev + 1 else earliest
            if before is not None and change.agent is not None and change.kind == "modify":
                status = change.agent.status
                if status not in _NEXT[before] or (status == before and change.reason in ("degraded", "expired")):
                    raise NotMerciful(f"{change.agent.id} went from {before} to {status} at {change.version}")
            if change.reason == "degraded":
                _was_silent(change, earliest, heard, journal.striving, terms)


def _was_silent(
    change: Change, earliest: int, heard: Mapping[str, list[int]], striving: set[str], terms: Terms
) -> None:
    """Judge one marking, which was made between `earliest` and its version, in the server's milliseconds."""
    agent = change.agent
    assert agent is not None
    since = agent.created if change.heartbeat is None else change.heartbeat
    if change.version - since < agent.timeout:
        raise NotMerciful(f"{agent.id} was marked {change.version - since} ms after it was heard")
    if agent.id in striving:
        raise NotMerciful(f"{agent.id} was marked at {change.version}, though its client never stopped trying")
    missed = [at for at in heard.get(agent.id, ()) if since < at < earliest]
    if missed:
        raise NotMerciful(f"{agent.id} was marked at {change.version}, though heartbeats of {missed} were taken")
    if earliest - since > agent.timeout + terms.late * 1000:
        raise NotMortal(f"{agent.id} was marked {earliest - since} ms after it was heard")


def _known(journal: Journal, pasts: Sequence[Past]) -> None:
    for agent_id in {deed.agent_id for deed in journal.deeds if deed.status == 404}:
        removed = [at for past in pasts for at in past.removals(agent_id)]
        deeds = journal.of(agent_id)
        versions = [deed.version if deed.what == "register" and deed.status == 200 else 0 for deed in deeds]
        for at, deed in enumerate(deeds):
            before = max(versions[:at], default=0)
            if deed.status != 404 or not before or _holding(pasts[:-1], before) is not None:
                continue
            after = min((version for version in versions[at:] if version), default=None)
            if not any(before < version and (after is None or version < after) for version in removed):
                raise Denied(f"{deed} was told 404 after it was registered at {before}, and nothing removed it")


def _holding(pasts: Sequence[Past], version: int) -> Past | None:
    return next((past for past in reversed(pasts) if past.first <= version <= past.last), None)
