"""Random changes, filters and resumes on the cache alone: every recorded history keeps every promise of a watch."""

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
from registry.service.watch import watch
from registry.service.watch.fanout import WatchFanout
from registry.service.watch.watch import Watcher, WatchService
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
    """A filter as the registry takes it, and in plain words."""

    query: AgentQuery
    wants: AgentFilter


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
    """Return what an agent registered with."""
    spec: dict[str, Any] = orjson.loads(agent.spec)
    return spec


def names_of(agent: Agent) -> set[str]:
    """Return the names of an agent's capabilities."""
    return {capability["name"] for capability in spec_of(agent).get("capabilities", ())}


class Mesh:
    """A plain log written to as the scripts write: what differed before a change stands in its entry."""

    def __init__(self) -> None:
        self.log = FakeChangeLog()
        self.all = list(self.log.changes)

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
        """Remove an agent, if it is there; the entry carries the last object under the version of its removal."""
        before = self.log.agents.pop(agent_id, None)
        if before is not None:
            version = self.log.version + step
            self._write(
                Change(version, self.log.version, "remove", "test", msgspec.structs.replace(before, version=version))
            )

    def trim(self, keep: int) -> None:
        """Keep the newest entries only."""
        del self.log.changes[:-keep]

    def write(self, name: str, args: list[Any]) -> None:
        """Do one step that writes."""
        if name == "put":
            self.put(args[0], SPECS[args[1]], args[2], args[3])
        elif name == "remove":
            self.remove(args[0], args[1])
        else:
            self.trim(args[0])

    def _write(self, change: Change) -> None:
        self.log.changes.append(change)
        self.all.append(change)


class Client:
    """One watcher that records: it lists, watches, breaks off anywhere, goes on, and lists again when it must."""

    def __init__(self, kind: Filter) -> None:
        self.kind = kind
        self.recordings: list[WatchRecording] = []
        self.watcher: Watcher | None = None

    async def begin(self, watches: WatchService) -> None:
        """Begin with the state."""
        self.watcher = await watches.open(self.kind.query, initial=True)
        state = {record.agent.id: record.agent.version for record in self.watcher.initial or ()}
        self.recordings.append(WatchRecording(self.kind.wants, self.watcher.delivered_version, state))

    def take(self, most: int) -> None:
        """Take some batches, a bookmark after each."""
        watcher, recording = self.watcher, self.recordings[-1]
        for _ in range(most if watcher is not None else 0):
            assert watcher is not None
            for kind, entry in watcher.take():
                assert entry.change.agent is not None
                recording.record(kind, entry.change.agent.id, entry.version)
            recording.record("BOOKMARK", "", watcher.delivered_version)

    async def resume(self, watches: WatchService) -> None:
        """Break off and go on; list again where that is not to be had."""
        if self.watcher is not None:
            self.watcher.close()
        try:
            self.watcher = await watches.open(self.kind.query, self.recordings[-1].resume())
        except VersionTooOld:
            await self.begin(watches)

    async def finish(self, watches: WatchService) -> None:
        """See everything there is."""
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
LOOK = st.tuples(st.just("look"))
# Mostly changes, so that there is something to be missed.
STEP = st.one_of(
    PUT,
    PUT,
    PUT,
    st.tuples(st.just("remove"), st.sampled_from("abc"), st.integers(1, 3)),
    LOOK,
    LOOK,
    st.tuples(st.just("take"), st.integers(0, 2), st.integers(1, 3)),
    st.tuples(st.just("resume"), st.integers(0, 2), st.integers(0, 1)),
    st.tuples(st.just("begin"), st.integers(0, 2), st.integers(0, 1)),
    st.tuples(st.just("trim"), st.integers(1, 6)),
)


async def play(steps: list[tuple[Any, ...]], filters: list[Filter], most: int) -> tuple[list[Client], Mesh]:
    """Play the steps on two replicas, the second with a short memory; return the clients and what was written."""
    mesh = Mesh()
    clients = [Client(kind) for kind in filters]
    fanouts = WatchFanout(), WatchFanout()
    async with (
        running_reflector(mesh.log, fanout=fanouts[0]) as long,
        running_reflector(mesh.log, most, fanout=fanouts[1]) as short,
    ):
        feeds: list[Reflector] = [long, short]
        replicas = [WatchService(feed, feed.watch_history, fanout) for feed, fanout in zip(feeds, fanouts, strict=True)]
        for feed in feeds:
            await feed.wait_fresh()
        for client in clients:
            await client.begin(replicas[0])
        for name, *args in steps:
            if name in ("put", "remove", "trim"):
                mesh.write(name, args)
            elif name == "look":
                await asyncio.gather(*(feed.wait_fresh() for feed in feeds))
            elif name == "take":
                clients[args[0]].take(args[1])
            elif name == "resume":
                await clients[args[0]].resume(replicas[args[1]])
            else:
                await clients[args[0]].begin(replicas[args[1]])
        await asyncio.gather(*(feed.wait_fresh() for feed in feeds))
        for client in clients:
            await client.finish(replicas[0])
    return clients, mesh


@settings(max_examples=300)
@given(
    steps=st.lists(STEP, min_size=10, max_size=60),
    filters=st.lists(st.sampled_from(FILTERS), min_size=3, max_size=3),
    most=st.integers(1, 5),
    at_once=st.integers(1, 4),
)
def test_whatever_happens_every_promise_holds(
    steps: list[tuple[Any, ...]], filters: list[Filter], most: int, at_once: int
) -> None:
    """Ordered, complete, once, resumable, converging, with honest bookmarks; whoever was cut off knows it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch, "_MAX_EVENTS_PER_TAKE", at_once)
        clients, mesh = asyncio.run(play(steps, filters, most))

    past = UnbrokenLog(mesh.all)
    assert list(past.gaps()) == []
    for client in clients:
        for recording in client.recordings:
            check_recording(recording, [past])
        assert client.recordings[-1].view == past.versions_at(client.kind.wants, past.last)


def a_past() -> UnbrokenLog:
    """Return a log in which an agent is added, changed and removed, and another added."""
    mesh = Mesh()
    mesh.put("a", {}, "pending", 1)
    mesh.put("a", {}, "healthy", 1)
    mesh.put("b", {}, "pending", 1)
    mesh.remove("a", 1)
    return UnbrokenLog(mesh.all)


def a_recording(*seen: tuple[str, str, int], began: int = 1) -> WatchRecording:
    """Return a recording of a watch of everything from the first entry on."""
    recording = WatchRecording(lambda _agent: True, began, {})
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


def test_the_validators_let_a_good_history_pass() -> None:
    """Whole, from its middle, with bookmarks and resumes."""
    past = a_past()

    check_recording(a_recording(*GOOD), [past])
    check_recording(a_recording(*GOOD[:2], ("BOOKMARK", "", 3), *GOOD[2:], ("BOOKMARK", "", 5)), [past])
    check_recording(_resumed(2, 3, *GOOD), [past])


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
def test_the_validators_find_each_broken_promise(found: type[Violation], make: Callable[[], WatchRecording]) -> None:
    """A validator that finds nothing proves nothing."""
    with pytest.raises(found) as caught:
        check_recording(make(), [a_past()])

    assert str(caught.value).startswith(found.promise)
