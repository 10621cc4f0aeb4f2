"""What watchers saw, and whether it is what a watch promises, judged by the change log alone."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from registry.model.agent import Agent, Status
from registry.model.change import Change

Wants = Callable[[Agent], bool]
State = Mapping[str, int]


class Violation(AssertionError):
    """A watch broke a promise; each promise has a class and a sentence."""

    promise: ClassVar[str] = ""

    def __init__(self, found: str) -> None:
        super().__init__(f"{self.promise} But {found}")


class NotOrdered(Violation):
    """Versions fell."""

    promise = "Ordered: the versions of a watch rise."


class NotOnce(Violation):
    """An event came again."""

    promise = "Once: no event comes twice, not even over a resume."


class NotComplete(Violation):
    """An event is missing, or came that should not."""

    promise = "Complete: between two versions seen stands every change that matches, as what it is, and nothing else."


class NotResumable(Violation):
    """A resume did not go on where it was asked to."""

    promise = "Resumable: a watch that goes on at a version sees what is after it, and had seen what is before it."


class NotConverging(Violation):
    """A view kept by events is not the list."""

    promise = "Converging: a view kept by a watch equals a fresh list of its version."


class DishonestBookmark(Violation):
    """A bookmark ran ahead of the events, or behind them."""

    promise = "Bookmarks are honest: everything that matches up to a bookmark's version was written before it."


class AcrossPasts(Violation):
    """A stream led from one history into another."""

    promise = "One past: no watch leads over a point at which the log forgot or forked."


class Seen(NamedTuple):
    """One event, or a BOOKMARK, whose `agent_id` is empty."""

    kind: str
    agent_id: str
    version: int


@dataclass
class Recording:
    """All that one watcher saw from one list, or one beginning, until it had to list again.

    `state` are the agents by version as listed at `began`, None where it began without a list. Note events in `seen`
    and, with `resume`, each version at which the watch went on elsewhere.
    """

    wants: Wants
    began: int
    state: State | None = None
    seen: list[Seen] = field(default_factory=list)
    resumes: list[tuple[int, int]] = field(default_factory=list)

    @property
    def reached(self) -> int:
        """The version to go on from."""
        return self.seen[-1].version if self.seen else self.began

    @property
    def events(self) -> list[Seen]:
        """What was seen, without bookmarks."""
        return [each for each in self.seen if each.kind != "BOOKMARK"]

    @property
    def view(self) -> dict[str, int]:
        """The agents by version that a client would now hold."""
        view = dict(self.state or {})
        for kind, agent_id, version in self.events:
            if kind == "DELETED":
                view.pop(agent_id, None)
            else:
                view[agent_id] = version
        return view

    def note(self, kind: str, agent_id: str, version: int) -> None:
        """Note an event or a bookmark."""
        self.seen.append(Seen(kind, agent_id, version))

    def resume(self) -> int:
        """Note that the watch goes on elsewhere; return the version to go on from."""
        self.resumes.append((len(self.seen), self.reached))
        return self.reached


class Past:
    """One unbroken log, from the first entry on: the truth.

    What stood before a change is what the change before it left, so what a log entry says of its own past is not
    believed here.
    """

    def __init__(self, changes: Sequence[Change], state: Mapping[str, Agent] | None = None) -> None:
        self.changes = list(changes)
        self._before = dict(state or {})

    @property
    def first(self) -> int:
        """The version of the first entry."""
        return self.changes[0].version

    @property
    def last(self) -> int:
        """The version of the last entry."""
        return self.changes[-1].version

    def breaks(self) -> Iterator[int]:
        """Give each version that does not follow on the one before it."""
        for before, change in zip(self.changes, self.changes[1:], strict=False):
            if change.prev != before.version:
                yield change.version

    def agents(self) -> dict[str, Agent]:
        """Return the agents that the whole log leaves."""
        agents = dict(self._before)
        for change in self.changes:
            if change.agent is not None:
                agents.pop(change.agent.id, None)
                if change.kind != "remove":
                    agents[change.agent.id] = change.agent
        return agents

    def steps(self) -> Iterator[tuple[Status | None, Change]]:
        """Give each change of an agent with the status the change before left it in, None where there was none."""
        statuses: dict[str, Status] = {agent.id: agent.status for agent in self._before.values()}
        for change in self.changes:
            if change.agent is None:
                continue
            yield statuses.pop(change.agent.id, None), change
            if change.kind != "remove":
                statuses[change.agent.id] = change.agent.status

    def removals(self, agent_id: str) -> list[int]:
        """Return the versions at which an agent was removed."""
        return [
            change.version
            for change in self.changes
            if change.kind == "remove" and change.agent is not None and change.agent.id == agent_id
        ]

    def events(self, wants: Wants) -> list[Seen]:
        """Return what a watch of everything that `wants` must see from the beginning on."""
        agents, found = dict(self._before), []
        for change in self.changes:
            if change.agent is None:
                continue
            agent_id = change.agent.id
            before = agents.pop(agent_id, None)
            if change.kind != "remove":
                agents[agent_id] = change.agent
            was = before is not None and wants(before)
            now = change.kind != "remove" and wants(change.agent)
            if was or now:
                kind = ("MODIFIED" if was else "ADDED") if now else "DELETED"
                found.append(Seen(kind, agent_id, change.version))
        return found

    def view(self, wants: Wants, version: int) -> dict[str, int]:
        """Return the agents by version that a list of this version must have."""
        agents = dict(self._before)
        for change in self.changes:
            if change.agent is None or change.version > version:
                continue
            agents.pop(change.agent.id, None)
            if change.kind != "remove":
                agents[change.agent.id] = change.agent
        return {agent_id: agent.version for agent_id, agent in agents.items() if wants(agent)}


def check(recording: Recording, pasts: Sequence[Past]) -> None:
    """Hold a recording against the log. Raises the Violation it finds."""
    past = next((past for past in reversed(pasts) if past.first <= recording.began), None)
    if past is None or recording.reached > past.last or recording.began > past.last:
        raise AcrossPasts(f"it began at {recording.began} and reached {recording.reached}")
    for version in past.breaks():
        if recording.began < version <= recording.reached:
            raise AcrossPasts(f"{version} stands between {recording.began} and {recording.reached}")
    truth = [event for event in past.events(recording.wants) if event.version > recording.began]
    _ordered(recording)
    _bookmarks(recording, truth)
    _resumes(recording, truth)
    _complete(recording, truth)
    _converges(recording, past)


def _ordered(recording: Recording) -> None:
    last, seen = recording.began, set[int]()
    for event in recording.events:
        if event.version in seen:
            raise NotOnce(f"{event} came again")
        if event.version <= last:
            raise NotOrdered(f"{event} came after {last}")
        seen.add(event.version)
        last = event.version


def _bookmarks(recording: Recording, truth: Sequence[Seen]) -> None:
    written: list[Seen] = []
    last = recording.began
    for event in recording.seen:
        if event.kind != "BOOKMARK":
            written.append(event)
            last = max(last, event.version)
            continue
        if event.version < last:
            raise DishonestBookmark(f"a bookmark says {event.version} after {last} was seen")
        missing = set(truth[: bisect_right(truth, event.version, key=_version)]) - set(written)
        if missing:
            raise DishonestBookmark(f"before the one of {event.version} were not written: {_shown(missing)}")
        last = event.version


def _resumes(recording: Recording, truth: Sequence[Seen]) -> None:
    for at, version in recording.resumes:
        before = {event for event in recording.seen[:at] if event.kind != "BOOKMARK"}
        after = [event for event in recording.seen[at:] if event.version < version]
        if after:
            raise NotResumable(f"after the resume at {version} came {_shown(after)}")
        missing = set(truth[: bisect_right(truth, version, key=_version)]) - before
        if missing:
            raise NotResumable(f"before the resume at {version} were not seen: {_shown(missing)}")


def _complete(recording: Recording, truth: Sequence[Seen]) -> None:
    wanted = truth[: bisect_right(truth, recording.reached, key=_version)]
    missing, foreign = set(wanted) - set(recording.events), set(recording.events) - set(wanted)
    if missing or foreign:
        raise NotComplete(f"up to {recording.reached} are missing {_shown(missing)} and foreign {_shown(foreign)}")


def _converges(recording: Recording, past: Past) -> None:
    if recording.state is None:
        return
    listed = past.view(recording.wants, recording.began)
    if dict(recording.state) != listed:
        raise NotConverging(f"the list of {recording.began} is {recording.state}, by the log {listed}")
    now = past.view(recording.wants, recording.reached)
    if recording.view != now:
        raise NotConverging(f"at {recording.reached} the view is {recording.view}, by the log {now}")


def _version(event: Seen) -> int:
    return event.version


def _shown(events: Sequence[Seen] | set[Seen]) -> str:
    shown = sorted(events, key=_version)
    return f"{[tuple(event) for event in shown[:5]]}{'…' if len(shown) > 5 else ''}"
