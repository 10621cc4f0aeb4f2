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
    """A version is lower than the one before it."""

    promise = "Order: the versions of a watch rise."


class DuplicateEvent(Violation):
    """An event was received twice."""

    promise = "Uniqueness: no event is received twice, not even after a resume."


class MissingOrExtraEvent(Violation):
    """An expected event is missing, or an unexpected one was received."""

    promise = "Completeness: between two versions a watch receives exactly the matching changes, each with its kind."


class BadResume(Violation):
    """A watch did not continue at the version it resumed from."""

    promise = "Resume: a watch that resumes at a version has received all changes before it and receives all after it."


class ViewMismatch(Violation):
    """A view built from events differs from the list."""

    promise = "Convergence: a view that follows a watch equals a list of the same version."


class BookmarkMismatch(Violation):
    """A bookmark is ahead of the events, or behind them."""

    promise = "Bookmarks: all matching changes up to the version of a bookmark are written before it."


class TimelineCrossed(Violation):
    """A stream continued from one timeline into another."""

    promise = "Timelines: no watch continues over a gap or a fork of the log."


class RecordedEvent(NamedTuple):
    """One event or bookmark; the `agent_id` of a BOOKMARK is empty."""

    kind: str
    agent_id: str
    version: int


@dataclass
class WatchRecording:
    """All events that a watcher received between two lists.

    `initial_versions` are the versions of the agents in the list at `start_version`, None without a list. `resumes` are
    the positions and versions at which the watch resumed on another replica.
    """

    matches: AgentFilter
    start_version: int
    initial_versions: VersionsByAgent | None = None
    received: list[RecordedEvent] = field(default_factory=list)
    resumes: list[tuple[int, int]] = field(default_factory=list)

    @property
    def last_version(self) -> int:
        """The version to resume from."""
        return self.received[-1].version if self.received else self.start_version

    @property
    def events(self) -> list[RecordedEvent]:
        """The received events, without bookmarks."""
        return [each for each in self.received if each.kind != "BOOKMARK"]

    @property
    def view(self) -> dict[str, int]:
        """The versions of the agents that a client would have in its view, by id."""
        view = dict(self.initial_versions or {})
        for kind, agent_id, version in self.events:
            if kind == "DELETED":
                view.pop(agent_id, None)
            else:
                view[agent_id] = version
        return view

    def record(self, kind: str, agent_id: str, version: int) -> None:
        """Record an event or a bookmark."""
        self.received.append(RecordedEvent(kind, agent_id, version))

    def resume(self) -> int:
        """Record a resume; return the version to resume from."""
        self.resumes.append((len(self.received), self.last_version))
        return self.last_version


class UnbrokenLog:
    """One log without gaps, from its first entry: the reference for all checks.

    The state before a change is computed from the changes before it; the previous state in a log entry is not used.
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
        """Yield each version whose `prev` is not the version before it."""
        for before, change in zip(self.changes, self.changes[1:], strict=False):
            if change.prev != before.version:
                yield change.version

    def agents(self) -> dict[str, Agent]:
        """Return the agents after the last entry."""
        agents = dict(self._initial_agents)
        for change in self.changes:
            if change.agent is not None:
                agents.pop(change.agent.id, None)
                if change.kind != "remove":
                    agents[change.agent.id] = change.agent
        return agents

    def status_changes(self) -> Iterator[tuple[Status | None, Change]]:
        """Yield each change of an agent with the status before it, None if the agent did not exist."""
        statuses: dict[str, Status] = {agent.id: agent.status for agent in self._initial_agents.values()}
        for change in self.changes:
            if change.agent is None:
                continue
            yield statuses.pop(change.agent.id, None), change
            if change.kind != "remove":
                statuses[change.agent.id] = change.agent.status

    def removals(self, agent_id: str) -> list[int]:
        """Return the versions of an agent's removals."""
        return [
            change.version
            for change in self.changes
            if change.kind == "remove" and change.agent is not None and change.agent.id == agent_id
        ]

    def expected_events(self, matches: AgentFilter) -> list[RecordedEvent]:
        """Return the events that a watch of the agents that satisfy `matches` must receive from the start."""
        agents, found = dict(self._initial_agents), []
        for change in self.changes:
            if change.agent is None:
                continue
            agent_id = change.agent.id
            before = agents.pop(agent_id, None)
            if change.kind != "remove":
                agents[agent_id] = change.agent
            matched_before = before is not None and matches(before)
            matches_now = change.kind != "remove" and matches(change.agent)
            if matched_before or matches_now:
                kind = ("MODIFIED" if matched_before else "ADDED") if matches_now else "DELETED"
                found.append(RecordedEvent(kind, agent_id, change.version))
        return found

    def versions_at(self, matches: AgentFilter, version: int) -> dict[str, int]:
        """Return the versions of the agents in a list of this version, by id."""
        agents = dict(self._initial_agents)
        for change in self.changes:
            if change.agent is None or change.version > version:
                continue
            agents.pop(change.agent.id, None)
            if change.kind != "remove":
                agents[change.agent.id] = change.agent
        return {agent_id: agent.version for agent_id, agent in agents.items() if matches(agent)}


def check_recording(recording: WatchRecording, logs: Sequence[UnbrokenLog]) -> None:
    """Check a recording against the log. Raises the Violation that is found."""
    log = next((log for log in reversed(logs) if log.first <= recording.start_version), None)
    if log is None or recording.last_version > log.last or recording.start_version > log.last:
        raise TimelineCrossed(f"it started at {recording.start_version} and ended at {recording.last_version}")
    for version in log.gaps():
        if recording.start_version < version <= recording.last_version:
            raise TimelineCrossed(
                f"the gap before {version} is between {recording.start_version} and {recording.last_version}"
            )
    expected = [event for event in log.expected_events(recording.matches) if event.version > recording.start_version]
    _check_order(recording)
    _check_bookmarks(recording, expected)
    _check_resumes(recording, expected)
    _check_complete(recording, expected)
    _check_view(recording, log)


def _check_order(recording: WatchRecording) -> None:
    last, seen = recording.start_version, set[int]()
    for event in recording.events:
        if event.version in seen:
            raise DuplicateEvent(f"{event} was received twice")
        if event.version <= last:
            raise OutOfOrder(f"{event} was received after {last}")
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
            raise BookmarkMismatch(f"a bookmark has {event.version}, but {last} was received before")
        missing = set(expected[: bisect_right(expected, event.version, key=_version)]) - set(written)
        if missing:
            raise BookmarkMismatch(f"before the bookmark {event.version} were not written: {_format_events(missing)}")
        last = event.version


def _check_resumes(recording: WatchRecording, expected: Sequence[RecordedEvent]) -> None:
    for at, version in recording.resumes:
        before = {event for event in recording.received[:at] if event.kind != "BOOKMARK"}
        after = [event for event in recording.received[at:] if event.version < version]
        if after:
            raise BadResume(f"after the resume at {version} were received {_format_events(after)}")
        missing = set(expected[: bisect_right(expected, version, key=_version)]) - before
        if missing:
            raise BadResume(f"before the resume at {version} were not received: {_format_events(missing)}")


def _check_complete(recording: WatchRecording, expected: Sequence[RecordedEvent]) -> None:
    expected_until_now = expected[: bisect_right(expected, recording.last_version, key=_version)]
    missing, unexpected = (
        set(expected_until_now) - set(recording.events),
        set(recording.events) - set(expected_until_now),
    )
    if missing or unexpected:
        raise MissingOrExtraEvent(
            f"up to {recording.last_version} are missing {_format_events(missing)} "
            f"and unexpected {_format_events(unexpected)}"
        )


def _check_view(recording: WatchRecording, log: UnbrokenLog) -> None:
    if recording.initial_versions is None:
        return
    listed = log.versions_at(recording.matches, recording.start_version)
    if dict(recording.initial_versions) != listed:
        raise ViewMismatch(
            f"the list of {recording.start_version} is {recording.initial_versions}, but the log has {listed}"
        )
    expected = log.versions_at(recording.matches, recording.last_version)
    if recording.view != expected:
        raise ViewMismatch(f"at {recording.last_version} the view is {recording.view}, but the log has {expected}")


def _version(event: RecordedEvent) -> int:
    return event.version


def _format_events(events: Sequence[RecordedEvent] | set[RecordedEvent]) -> str:
    shown = sorted(events, key=_version)
    return f"{[tuple(event) for event in shown[:5]]}{'…' if len(shown) > 5 else ''}"
