"""Recorder of watch events, validated against the change log."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from registry.model.agent import Agent, Status
from registry.model.change import Change

AgentFilter = Callable[[Agent], bool]
VersionsByAgent = Mapping[str, int]


class Violation(AssertionError):
    """A watch broke a promise; each promise has a class and a sentence."""

    promise: ClassVar[str] = ""

    def __init__(self, found: str) -> None:
        super().__init__(f"{self.promise} But {found}")


class OutOfOrder(Violation):
    """Versions fell."""

    promise = "Ordered: the versions of a watch rise."


class DuplicateEvent(Violation):
    """An event came again."""

    promise = "Once: no event comes twice, not even over a resume."


class MissingOrExtraEvent(Violation):
    """An event is missing, or came that should not."""

    promise = "Complete: between two versions seen stands every change that matches, as what it is, and nothing else."


class BadResume(Violation):
    """A resume did not go on where it was asked to."""

    promise = "Resumable: a watch that goes on at a version sees what is after it, and had seen what is before it."


class ViewMismatch(Violation):
    """A view kept by events is not the list."""

    promise = "Converging: a view kept by a watch equals a fresh list of its version."


class BookmarkMismatch(Violation):
    """A bookmark ran ahead of the events, or behind them."""

    promise = "Bookmarks are honest: everything that matches up to a bookmark's version was written before it."


class TimelineCrossed(Violation):
    """A stream led from one history into another."""

    promise = "One past: no watch leads over a point at which the log forgot or forked."


class RecordedEvent(NamedTuple):
    """One event, or a BOOKMARK, whose `agent_id` is empty."""

    kind: str
    agent_id: str
    version: int


@dataclass
class WatchRecording:
    """All that one watcher saw from one list, or one beginning, until it had to list again.

    `initial_versions` are the agents by version as listed at `start_version`, None where it began without a list. Note
    events in `received` and, with `resume`, each version at which the watch went on elsewhere.
    """

    matches: AgentFilter
    start_version: int
    initial_versions: VersionsByAgent | None = None
    received: list[RecordedEvent] = field(default_factory=list)
    resumes: list[tuple[int, int]] = field(default_factory=list)

    @property
    def last_version(self) -> int:
        """The version to go on from."""
        return self.received[-1].version if self.received else self.start_version

    @property
    def events(self) -> list[RecordedEvent]:
        """What was seen, without bookmarks."""
        return [each for each in self.received if each.kind != "BOOKMARK"]

    @property
    def view(self) -> dict[str, int]:
        """The agents by version that a client would now hold."""
        view = dict(self.initial_versions or {})
        for kind, agent_id, version in self.events:
            if kind == "DELETED":
                view.pop(agent_id, None)
            else:
                view[agent_id] = version
        return view

    def record(self, kind: str, agent_id: str, version: int) -> None:
        """Note an event or a bookmark."""
        self.received.append(RecordedEvent(kind, agent_id, version))

    def resume(self) -> int:
        """Note that the watch goes on elsewhere; return the version to go on from."""
        self.resumes.append((len(self.received), self.last_version))
        return self.last_version


class UnbrokenLog:
    """One unbroken log, from the first entry on: the truth.

    What stood before a change is what the change before it left, so what a log entry says of its own past is not
    believed here.
    """

    def __init__(self, changes: Sequence[Change], state: Mapping[str, Agent] | None = None) -> None:
        self.changes = list(changes)
        self._initial_agents = dict(state or {})

    @property
    def first(self) -> int:
        """The version of the first entry."""
        return self.changes[0].version

    @property
    def last(self) -> int:
        """The version of the last entry."""
        return self.changes[-1].version

    def gaps(self) -> Iterator[int]:
        """Give each version that does not follow on the one before it."""
        for before, change in zip(self.changes, self.changes[1:], strict=False):
            if change.prev != before.version:
                yield change.version

    def agents(self) -> dict[str, Agent]:
        """Return the agents that the whole log leaves."""
        agents = dict(self._initial_agents)
        for change in self.changes:
            if change.agent is not None:
                agents.pop(change.agent.id, None)
                if change.kind != "remove":
                    agents[change.agent.id] = change.agent
        return agents

    def status_changes(self) -> Iterator[tuple[Status | None, Change]]:
        """Give each change of an agent with the status the change before left it in, None where there was none."""
        statuses: dict[str, Status] = {agent.id: agent.status for agent in self._initial_agents.values()}
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

    def expected_events(self, matches: AgentFilter) -> list[RecordedEvent]:
        """Return what a watch of everything that `matches` must see from the beginning on."""
        agents, found = dict(self._initial_agents), []
        for change in self.changes:
            if change.agent is None:
                continue
            agent_id = change.agent.id
            before = agents.pop(agent_id, None)
            if change.kind != "remove":
                agents[agent_id] = change.agent
            was = before is not None and matches(before)
            now = change.kind != "remove" and matches(change.agent)
            if was or now:
                kind = ("MODIFIED" if was else "ADDED") if now else "DELETED"
                found.append(RecordedEvent(kind, agent_id, change.version))
        return found

    def versions_at(self, matches: AgentFilter, version: int) -> dict[str, int]:
        """Return the agents by version that a list of this version must have."""
        agents = dict(self._initial_agents)
        for change in self.changes:
            if change.agent is None or change.version > version:
                continue
            agents.pop(change.agent.id, None)
            if change.kind != "remove":
                agents[change.agent.id] = change.agent
        return {agent_id: agent.version for agent_id, agent in agents.items() if matches(agent)}


def check_recording(recording: WatchRecording, logs: Sequence[UnbrokenLog]) -> None:
    """Hold a recording against the log. Raises the Violation it finds."""
    past = next((past for past in reversed(logs) if past.first <= recording.start_version), None)
    if past is None or recording.last_version > past.last or recording.start_version > past.last:
        raise TimelineCrossed(f"it began at {recording.start_version} and reached {recording.last_version}")
    for version in past.gaps():
        if recording.start_version < version <= recording.last_version:
            raise TimelineCrossed(f"{version} stands between {recording.start_version} and {recording.last_version}")
    truth = [event for event in past.expected_events(recording.matches) if event.version > recording.start_version]
    _check_order(recording)
    _check_bookmarks(recording, truth)
    _check_resumes(recording, truth)
    _check_complete(recording, truth)
    _check_view(recording, past)


def _check_order(recording: WatchRecording) -> None:
    last, seen = recording.start_version, set[int]()
    for event in recording.events:
        if event.version in seen:
            raise DuplicateEvent(f"{event} came again")
        if event.version <= last:
            raise OutOfOrder(f"{event} came after {last}")
        seen.add(event.version)
        last = event.version


def _check_bookmarks(recording: WatchRecording, expected: Sequence[RecordedEvent]) -> None:
    written: list[RecordedEvent] = []
    last = recording.start_version
    for event in recording.received:
        if event.kind != "BOOKMARK":
            written.append(event)
            last = max(last, event.version)
            continue
        if event.version < last:
            raise BookmarkMismatch(f"a bookmark says {event.version} after {last} was seen")
        missing = set(expected[: bisect_right(expected, event.version, key=_version)]) - set(written)
        if missing:
            raise BookmarkMismatch(f"before the one of {event.version} were not written: {_format_events(missing)}")
        last = event.version


def _check_resumes(recording: WatchRecording, expected: Sequence[RecordedEvent]) -> None:
    for at, version in recording.resumes:
        before = {event for event in recording.received[:at] if event.kind != "BOOKMARK"}
        after = [event for event in recording.received[at:] if event.version < version]
        if after:
            raise BadResume(f"after the resume at {version} came {_format_events(after)}")
        missing = set(expected[: bisect_right(expected, version, key=_version)]) - before
        if missing:
            raise BadResume(f"before the resume at {version} were not seen: {_format_events(missing)}")


def _check_complete(recording: WatchRecording, expected: Sequence[RecordedEvent]) -> None:
    wanted = expected[: bisect_right(expected, recording.last_version, key=_version)]
    missing, foreign = set(wanted) - set(recording.events), set(recording.events) - set(wanted)
    if missing or foreign:
        raise MissingOrExtraEvent(
            f"up to {recording.last_version} are missing {_format_events(missing)} "
            f"and foreign {_format_events(foreign)}"
        )


def _check_view(recording: WatchRecording, log: UnbrokenLog) -> None:
    if recording.initial_versions is None:
        return
    listed = log.versions_at(recording.matches, recording.start_version)
    if dict(recording.initial_versions) != listed:
        raise ViewMismatch(
            f"the list of {recording.start_version} is {recording.initial_versions}, by the log {listed}"
        )
    now = log.versions_at(recording.matches, recording.last_version)
    if recording.view != now:
        raise ViewMismatch(f"at {recording.last_version} the view is {recording.view}, by the log {now}")


def _version(event: RecordedEvent) -> int:
    return event.version


def _format_events(events: Sequence[RecordedEvent] | set[RecordedEvent]) -> str:
    shown = sorted(events, key=_version)
    return f"{[tuple(event) for event in shown[:5]]}{'…' if len(shown) > 5 else ''}"
