"""Random changes, filters and resumes on the cache alone: every recorded watch keeps all guarantees."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.cache.reflector import Reflector
from registry.errors import VersionTooOld
from registry.model.agent import Agent, Status
from registry.model.change import Change
from registry.model.label_selector import LabelSelector
from registry.model.query import AgentQuery
from registry.service.watch import watch_service
from registry.service.watch.fanout import WatchFanout
from registry.service.watch.watch_service import Watcher, WatchService
from tests.support.builders import an_agent
from tests.support.fake_change_log import FakeChangeLog
from tests.support.reflectors import running_reflector
from tests.support.watch_recorder import (
    AgentFilter,
    BadResume,
    BookmarkMismatch,
    DuplicateEvent,
    MissingOrExtraEvent,
    OutOfOrder,
    TimelineCrossed,
    UnbrokenLog,
    ViewMismatch,
    Violation,
    WatchRecording,
    check_recording,
)

SPECS: tuple[dict[str, Any], ...] = (
    {},
    {"namespace": "n", "labels": {"k": "1"}},
    {"capabilities": [{"name": "read"}], "labels": {"k": "2"}},
    {"capabilities": [{"name": "read", "tags": ["fast"]}, {"name": "write"}], "namespace": "n"},
)
STATUSES: tuple[Status, ...] = ("pending", "healthy", "degraded", "expired")


@dataclass(frozen=True)
class Filter:
    """A query, and a predicate that selects the same agents."""

    query: AgentQuery
    matches: AgentFilter


FILTERS = (
    Filter(AgentQuery(), lambda _agent: True),
    Filter(AgentQuery(namespace="n"), lambda agent: spec_of(agent).get("namespace") == "n"),
    Filter(AgentQuery(status="unhealthy"), lambda agent: agent.status in ("degraded", "expired")),
    Filter(AgentQuery(agent_id="b"), lambda agent: agent.id == "b"),
    Filter(
        AgentQuery(selector=LabelSelector.from_labels({"k": "1"})),
        lambda agent: spec_of(agent).get("labels") == {"k": "1"},
    ),
    Filter(AgentQuery(capabilities=("read",)), lambda agent: "read" in names_of(agent)),
    Filter(AgentQuery(capabilities=("write", "read")), lambda agent: {"read", "write"} <= names_of(agent)),
    Filter(
        AgentQuery(capabilities=("read",), tags=("fast",), status="healthy"),
        lambda agent: agent.status == "healthy" and "write" in names_of(agent),
    ),
)


def spec_of(agent: Agent) -> dict[str, Any]:
    """Return the spec of an agent."""
    spec: dict[str, Any] = orjson.loads(agent.spec)
    return spec


def names_of(agent: Agent) -> set[str]:
    """Return the names of the capabilities of an agent."""
    return {capability["name"] for capability in spec_of(agent).get("capabilities", ())}


class LoggedMesh:
    """Writes to a fake log as the scripts do: each entry has the values that differed before the change."""

    def __init__(self) -> None:
        self.log = FakeChangeLog()
        self.all_changes = list(self.log.changes)

    def put(self, agent_id: str, fields: dict[str, Any], status: Status, step: int) -> None:
        """Add an agent or change it; versions rise by `step`."""
        before = self.log.agents.get(agent_id)
        agent = an_agent(agent_id, self.log.version + step, status, **fields)
        changed = before is not None and before.spec != agent.spec
        self._write(
            Change(
                version=agent.version,
                prev=self.log.version,
                kind="add" if before is None else "modify",
                reason="test",
                agent=agent,
                status_before=before.status if before and before.status != status else None,
                spec_before=before.spec if before and changed else None,
            )
        )
        self.log.agents[agent_id] = agent

    def remove(self, agent_id: str, step: int) -> None:
        """Remove an agent if it exists; the entry has its last state under the version of the removal."""
        before = self.log.agents.pop(agent_id, None)
        if before is not None:
            version = self.log.version + step
            self._write(
                Change(version, self.log.version, "remove", "test", msgspec.structs.replace(before, version=version))
            )

    def trim(self, count: int) -> None:
        """Drop all entries but the newest."""
        del self.log.changes[:-count]

    def write(self, name: str, args: list[Any]) -> None:
        """Execute one writing step."""
        if name == "put":
            self.put(args[0], SPECS[args[1]], args[2], args[3])
        elif name == "remove":
            self.remove(args[0], args[1])
        else:
            self.trim(args[0])

    def _write(self, change: Change) -> None:
        self.log.changes.append(change)
        self.all_changes.append(change)


class Client:
    """A recording watcher: it lists, watches, disconnects anywhere, resumes, and lists again if it must."""

    def __init__(self, watch_filter: Filter) -> None:
        self.filter = watch_filter
        self.recordings: list[WatchRecording] = []
        self.watcher: Watcher | None = None

    async def list_and_watch(self, watches: WatchService) -> None:
        """Start with a list."""
        self.watcher = await watches.open(self.filter.query, initial=True)
        state = {record.agent.id: record.agent.version for record in self.watcher.initial or ()}
        self.recordings.append(WatchRecording(self.filter.matches, self.watcher.delivered_version, state))

    def take(self, limit: int) -> None:
        """Take some batches, with a bookmark after each."""
        watcher, recording = self.watcher, self.recordings[-1]
        for _ in range(limit if watcher is not None else 0):
            assert watcher is not None
            for kind, entry in watcher.take():
                assert entry.change.agent is not None
                recording.record(kind, entry.change.agent.id, entry.version)
            recording.record("BOOKMARK", "", watcher.delivered_version)

    async def resume(self, watches: WatchService) -> None:
        """Disconnect and resume; list again if the version is too old."""
        if self.watcher is not None:
            self.watcher.close()
        try:
            self.watcher = await watches.open(self.filter.query, self.recordings[-1].resume())
        except VersionTooOld:
            await self.list_and_watch(watches)

    async def finish(self, watches: WatchService) -> None:
        """Read all remaining events."""
        while self.watcher is None or self.watcher.end_reason is not None:
            await self.resume(watches)
        self.take(1)
        while self.watcher.delivered_version < watches.latest_version:
            self.take(1)


PUT = st.tuples(
    st.just("put"),
    st.sampled_from("abc"),
    st.sampled_from(range(len(SPECS))),
    st.sampled_from(STATUSES),
    st.integers(1, 3),
)
READ = st.tuples(st.just("read"))
# Mostly changes, so that events can be missed.
STEP = st.one_of(
    PUT,
    PUT,
    PUT,
    st.tuples(st.just("remove"), st.sampled_from("abc"), st.integers(1, 3)),
    READ,
    READ,
    st.tuples(st.just("take"), st.integers(0, 2), st.integers(1, 3)),
    st.tuples(st.just("resume"), st.integers(0, 2), st.integers(0, 1)),
    st.tuples(st.just("list"), st.integers(0, 2), st.integers(0, 1)),
    st.tuples(st.just("trim"), st.integers(1, 6)),
)


async def play(steps: list[tuple[Any, ...]], filters: list[Filter], limit: int) -> tuple[list[Client], LoggedMesh]:
    """Run the steps on two replicas, the second with a small buffer; return the clients and the writes."""
    mesh = LoggedMesh()
    clients = [Client(each) for each in filters]
    fanouts = WatchFanout(), WatchFanout()
    async with (
        running_reflector(mesh.log, fanout=fanouts[0]) as first,
        running_reflector(mesh.log, limit, fanout=fanouts[1]) as second,
    ):
        reflectors: list[Reflector] = [first, second]
        replicas = [
            WatchService(reflector, reflector.watch_history, fanout)
            for reflector, fanout in zip(reflectors, fanouts, strict=True)
        ]
        for reflector in reflectors:
            await reflector.wait_fresh()
        for client in clients:
            await client.list_and_watch(replicas[0])
        for name, *args in steps:
            if name in ("put", "remove", "trim"):
                mesh.write(name, args)
            elif name == "read":
                await asyncio.gather(*(reflector.wait_fresh() for reflector in reflectors))
            elif name == "take":
                clients[args[0]].take(args[1])
            elif name == "resume":
                await clients[args[0]].resume(replicas[args[1]])
            else:
                await clients[args[0]].list_and_watch(replicas[args[1]])
        await asyncio.gather(*(reflector.wait_fresh() for reflector in reflectors))
        for client in clients:
            await client.finish(replicas[0])
    return clients, mesh


@settings(max_examples=300)
@given(
    steps=st.lists(STEP, min_size=10, max_size=60),
    filters=st.lists(st.sampled_from(FILTERS), min_size=3, max_size=3),
    limit=st.integers(1, 5),
    max_batch=st.integers(1, 4),
)
def test_every_guarantee_holds_after_random_steps(
    steps: list[tuple[Any, ...]], filters: list[Filter], limit: int, max_batch: int
) -> None:
    """Events are ordered, complete, unique and resumable; views converge; bookmarks are correct; a gap is reported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch_service, "_MAX_EVENTS_PER_TAKE", max_batch)
        clients, mesh = asyncio.run(play(steps, filters, limit))

    log = UnbrokenLog(mesh.all_changes)
    assert list(log.gaps()) == []
    for client in clients:
        for recording in client.recordings:
            check_recording(recording, [log])
        assert client.recordings[-1].view == log.versions_at(client.filter.matches, log.last)


def a_log() -> UnbrokenLog:
    """Return a log in which one agent is added, changed and removed, and another is added."""
    mesh = LoggedMesh()
    mesh.put("a", {}, "pending", 1)
    mesh.put("a", {}, "healthy", 1)
    mesh.put("b", {}, "pending", 1)
    mesh.remove("a", 1)
    return UnbrokenLog(mesh.all_changes)


def a_recording(*seen: tuple[str, str, int], start: int = 1) -> WatchRecording:
    """Return a recording of a watch of all agents from the first entry on."""
    recording = WatchRecording(lambda _agent: True, start, {})
    for each in seen:
        recording.record(*each)
    return recording


GOOD = (("ADDED", "a", 2), ("MODIFIED", "a", 3), ("ADDED", "b", 4), ("DELETED", "a", 5))


def _resumed(at: int, version: int, *seen: tuple[str, str, int]) -> WatchRecording:
    recording = a_recording(*seen)
    recording.resumes.append((at, version))
    return recording


def _with_state(**state: int) -> WatchRecording:
    recording = a_recording(*GOOD)
    recording.initial_versions = state
    return recording


def test_the_checks_accept_a_correct_recording() -> None:
    """The recording is complete, and has bookmarks or a resume in the middle."""
    log = a_log()

    check_recording(a_recording(*GOOD), [log])
    check_recording(a_recording(*GOOD[:2], ("BOOKMARK", "", 3), *GOOD[2:], ("BOOKMARK", "", 5)), [log])
    check_recording(_resumed(2, 3, *GOOD), [log])


@pytest.mark.parametrize(
    ("found", "make"),
    [
        (OutOfOrder, lambda: a_recording(GOOD[1], GOOD[0], *GOOD[2:])),
        (DuplicateEvent, lambda: a_recording(GOOD[0], GOOD[0], *GOOD[1:])),
        (MissingOrExtraEvent, lambda: a_recording(GOOD[0], *GOOD[2:])),
        (MissingOrExtraEvent, lambda: a_recording(("MODIFIED", "a", 2), *GOOD[1:])),
        (BookmarkMismatch, lambda: a_recording(GOOD[0], ("BOOKMARK", "", 3), *GOOD[1:])),
        (BookmarkMismatch, lambda: a_recording(*GOOD[:2], ("BOOKMARK", "", 2), *GOOD[2:])),
        (BadResume, lambda: _resumed(1, 3, GOOD[0], *GOOD[2:])),
        (BadResume, lambda: _resumed(1, 4, *GOOD)),
        (ViewMismatch, lambda: _with_state(x=1)),
        (TimelineCrossed, lambda: a_recording(*GOOD, ("ADDED", "c", 9))),
    ],
)
def test_the_checks_find_each_violation(found: type[Violation], make: Callable[[], WatchRecording]) -> None:
    """A check that finds nothing proves nothing."""
    with pytest.raises(found) as caught:
        check_recording(make(), [a_log()])

    assert str(caught.value).startswith(found.promise)
