"""Watches over a fake change log: ordered, complete, without duplicates, resumable."""

import asyncio
import contextlib
import gc
import time
import weakref
from collections.abc import AsyncIterator

import pytest

from registry.cache.reflector import Reflector
from registry.errors import VersionAhead, VersionTooOld
from registry.model.label_selector import LabelSelector
from registry.model.query import AgentQuery
from registry.service.watch.fanout import WatchFanout
from registry.service.watch.watch_service import Watcher, WatchService
from tests.support.builders import a_change, an_agent
from tests.support.fake_change_log import FakeChangeLog
from tests.support.polling import async_wait_until
from tests.support.reflectors import running_reflector

EVERYTHING = AgentQuery()


@contextlib.asynccontextmanager
async def running_watches(log: FakeChangeLog) -> AsyncIterator[tuple[Reflector, WatchService]]:
    """Provide a running reflector and a watch service over it."""
    fanout = WatchFanout()
    async with running_reflector(log, fanout=fanout) as reflector:
        watches = WatchService(reflector, reflector.watch_history, fanout)
        await reflector.wait_fresh()
        yield reflector, watches


def take_all(watcher: Watcher) -> list[tuple[str, int]]:
    """Take all queued events."""
    seen: list[tuple[str, int]] = []
    while some := watcher.take():
        seen += [(kind, entry.version) for kind, entry in some]
    return seen


async def test_a_watch_receives_the_changes_after_its_start() -> None:
    """It starts after the cached version, and receives the changes in order."""
    log = FakeChangeLog()
    log.write(an_agent("old", 2), "add")
    async with running_watches(log) as (reflector, watches):
        watcher = await watches.open(EVERYTHING)
        log.write(an_agent("a", 3), "add")
        log.write(an_agent("a", 4, "degraded"))
        log.write(an_agent("a", 5), "remove")
        await reflector.wait_fresh()

        assert take_all(watcher) == [("ADDED", 3), ("MODIFIED", 4), ("DELETED", 5)]
        assert watcher.delivered_version == 5


async def test_a_watch_resumes_after_any_version() -> None:
    """It receives each later change once."""
    log = FakeChangeLog()
    for version in range(2, 12):
        log.write(an_agent(f"a{version}", version), "add")
    async with running_watches(log) as (reflector, watches):
        for version in range(12, 22):
            log.write(an_agent(f"a{version}", version), "add")
        await reflector.wait_fresh()

        for since in range(1, 22):
            watcher = await watches.open(EVERYTHING, since)
            assert take_all(watcher) == [("ADDED", version) for version in range(since + 1, 22)]
            watcher.close()


async def test_the_delivered_version_is_the_version_of_the_last_event() -> None:
    """While a watch catches up, the newest version as a bookmark would skip events."""
    log = FakeChangeLog()
    for version in range(2, 102):
        log.write(an_agent(f"a{version}", version), "add")
    async with running_watches(log) as (reflector, watches):
        watcher = await watches.open(EVERYTHING, 1)
        for version in range(102, 202):
            log.write(an_agent(f"a{version}", version), "add")
        await reflector.wait_fresh()

        seen: list[int] = []
        while some := watcher.take():
            seen += [entry.version for _, entry in some]
            assert watcher.delivered_version == seen[-1]
        assert seen == list(range(2, 202))


async def test_the_log_is_read_backwards_once_for_all_watches() -> None:
    """A replica that started later reads the versions before its start once, for all watches."""
    log = FakeChangeLog()
    for version in range(2, 12):
        log.write(an_agent(f"a{version}", version), "add")
    async with running_watches(log) as (_reflector, watches):
        before = log.read_count
        first = await watches.open(EVERYTHING, 3)
        after_one = log.read_count
        second = await watches.open(EVERYTHING, 5)

        assert after_one > before
        assert log.read_count == after_one
        assert len(take_all(first)) == 8
        assert len(take_all(second)) == 6


async def test_a_trimmed_version_is_too_old() -> None:
    """So is one that was never an entry of the log; the error contains the current version."""
    log = FakeChangeLog()
    for version in range(2, 12):
        log.write(an_agent(f"a{version}", version), "add")
    del log.changes[:5]
    async with running_watches(log) as (_reflector, watches):
        with pytest.raises(VersionTooOld) as caught:
            await watches.open(EVERYTHING, 3)
        assert caught.value.current == 11


async def test_a_version_ahead_of_the_log_is_rejected() -> None:
    """It belongs to another timeline; a watch that waits for it would receive the wrong events."""
    log = FakeChangeLog()
    async with running_watches(log) as (_reflector, watches):
        with pytest.raises(VersionAhead):
            await watches.open(EVERYTHING, 99)


async def test_a_version_ahead_of_the_cache_is_read_from_the_log() -> None:
    """A list of another replica may be newer than this cache."""
    log = FakeChangeLog()
    async with running_watches(log) as (_reflector, watches):
        log.write(an_agent("a", 2), "add")

        watcher = await watches.open(EVERYTHING, 2)

        assert watcher.delivered_version == 2


async def test_an_agent_that_starts_or_stops_matching_is_added_or_deleted() -> None:
    """Other watches receive a modification."""
    log = FakeChangeLog()
    async with running_watches(log) as (reflector, watches):
        healthy = await watches.open(AgentQuery(status="healthy"))
        reader = await watches.open(AgentQuery(capabilities=("read",)))
        everything = await watches.open(EVERYTHING)
        log.write(an_agent("a", 2, "pending"), "add")
        log.write_from(an_agent("a", 3, "healthy"), status_before="pending")
        log.write_from(an_agent("a", 4, capabilities=[{"name": "read"}]), spec_before=an_agent("a").spec)
        log.write_from(an_agent("a", 5), spec_before=an_agent("a", capabilities=[{"name": "read"}]).spec)
        log.write_from(an_agent("a", 6, "degraded"), status_before="healthy")
        await reflector.wait_fresh()

        assert take_all(healthy) == [("ADDED", 3), ("MODIFIED", 4), ("MODIFIED", 5), ("DELETED", 6)]
        assert take_all(reader) == [("ADDED", 4), ("DELETED", 5)]
        assert take_all(everything) == [("ADDED", 2), *(("MODIFIED", version) for version in range(3, 7))]


async def test_an_unrelated_change_does_not_wake_a_watch() -> None:
    """Index and filter both exclude it."""
    log = FakeChangeLog()
    async with running_watches(log) as (reflector, watches):
        others = [await watches.open(AgentQuery(capabilities=(f"c{number}",))) for number in range(50)]
        others.append(await watches.open(AgentQuery(namespace="elsewhere")))
        others.append(await watches.open(AgentQuery(selector=LabelSelector.from_labels({"k": "2"}))))
        waits = [asyncio.create_task(watcher.wait()) for watcher in others]
        log.write(an_agent("a", 2, capabilities=[{"name": "x"}], labels={"k": "1"}), "add")
        await reflector.wait_fresh()

        assert not any(task.done() for task in waits)
        assert {watcher.delivered_version for watcher in others} == {1}
        assert all(watcher.take() == [] for watcher in others)
        assert {watcher.delivered_version for watcher in others} == {2}
        for task in waits:
            task.cancel()


async def test_watchers_of_one_query_share_a_group() -> None:
    """The group examines and encodes a change once."""
    log = FakeChangeLog()
    async with running_watches(log) as (reflector, watches):
        one = await watches.open(AgentQuery(namespace="default"))
        two = await watches.open(AgentQuery(namespace="default"))
        log.write(an_agent("a", 2), "add")
        await reflector.wait_fresh()

        (first,), (second,) = one.take(), two.take()

        assert len(list(watches.fanout)) == 1
        assert first[1] is second[1]
        assert first[1].encode("ADDED", "ndjson") is second[1].encode("ADDED", "ndjson")


async def test_a_slow_watcher_overflows_alone() -> None:
    """It ends with the version it has delivered, and can be resumed there."""
    log = FakeChangeLog()
    async with running_watches(log) as (reflector, watches):
        slow, quick = await watches.open(EVERYTHING), await watches.open(EVERYTHING)
        seen: list[tuple[str, int]] = []
        for version in range(2, 3002):
            log.write(an_agent("a", version), "add" if version == 2 else "modify")
            if version % 100 == 0:
                await reflector.wait_fresh()
                seen += take_all(quick)
        await reflector.wait_fresh()
        seen += take_all(quick)

        assert [version for _, version in seen] == list(range(2, 3002))
        assert slow.end_reason == "overflowed"
        assert slow.take() == []
        resumed = await watches.open(EVERYTHING, slow.delivered_version)
        assert [version for _, version in take_all(resumed)] == list(range(2, 3002))


async def test_a_watch_survives_a_refill_that_the_log_covers() -> None:
    """After an outage of the store on the same timeline, no event is lost and the watch goes on."""
    log = FakeChangeLog()
    async with running_watches(log) as (reflector, watches):
        log.write(an_agent("a", 2), "add")
        await reflector.wait_fresh()
        watcher = await watches.open(EVERYTHING)
        log.unavailable = True
        await async_wait_until(lambda: not reflector.following, description="the reflector has stopped")
        log.write(an_agent("b", 3), "add")
        log.write(an_agent("c", 4), "add")
        log.unavailable = False
        await async_wait_until(lambda: reflector.following, description="the reflector follows again")
        log.write(an_agent("d", 5), "add")
        await reflector.wait_fresh()

        assert take_all(watcher) == [("ADDED", 3), ("ADDED", 4), ("ADDED", 5)]
        assert watcher.end_reason is None


async def test_a_watch_ends_when_the_log_has_lost_entries() -> None:
    """The same version number has another change, because a promoted replica lacked the last entries."""
    log = FakeChangeLog()
    async with running_watches(log) as (reflector, watches):
        log.write(an_agent("a", 2), "add")
        await reflector.wait_fresh()
        watcher = await watches.open(EVERYTHING)
        log.unavailable = True
        await async_wait_until(lambda: not reflector.following, description="the reflector has stopped")
        log.changes[-1] = a_change(2, "add", an_agent("other", 2))
        log.agents = {"other": an_agent("other", 2)}
        log.unavailable = False
        await async_wait_until(lambda: reflector.following, description="the reflector follows again")

        assert watcher.end_reason == "log_gap"
        assert watcher.take() == []


async def test_a_watch_ends_at_a_new_timeline() -> None:
    """No version of the old timeline can be resumed."""
    log = FakeChangeLog()
    async with running_watches(log) as (reflector, watches):
        watcher = await watches.open(EVERYTHING)
        log.timeline, log.agents, log.changes = "h2", {}, [a_change(9, "new_timeline")]
        await reflector.wait_fresh()

        assert watcher.end_reason == "log_gap"


async def test_a_watch_can_start_with_the_current_state() -> None:
    """It receives the state, then all later changes."""
    log = FakeChangeLog()
    log.write(an_agent("b", 2), "add")
    log.write(an_agent("a", 3), "add")
    async with running_watches(log) as (reflector, watches):
        watcher = await watches.open(EVERYTHING, initial=True)
        log.write(an_agent("c", 4), "add")
        await reflector.wait_fresh()

        assert [record.agent.id for record in watcher.initial or []] == ["a", "b"]
        assert watcher.delivered_version == 3
        assert take_all(watcher) == [("ADDED", 4)]


async def test_a_shutdown_ends_all_watches() -> None:
    """Each watcher wakes up and ends with a reason that allows it to resume on another replica."""
    log = FakeChangeLog()
    async with running_watches(log) as (_reflector, watches):
        watcher = await watches.open(EVERYTHING)
        waiting = asyncio.create_task(watcher.wait())
        await asyncio.sleep(0)

        watches.close()
        await waiting

        assert watcher.end_reason == "shutting_down"


async def test_a_closed_watch_leaves_nothing_behind() -> None:
    """Its watcher and its group are removed."""
    log = FakeChangeLog()
    async with running_watches(log) as (_reflector, watches):
        watcher = await watches.open(AgentQuery(capabilities=("x",)))

        watcher.close()

        assert not watches.watchers
        assert list(watches.fanout) == []


async def test_a_closed_watcher_is_freed_at_once() -> None:
    """It is part of no reference cycle: each long poll would leave one to the cycle collector."""
    log = FakeChangeLog()
    async with running_watches(log) as (_reflector, watches):
        watcher = await watches.open(EVERYTHING)
        freed = weakref.ref(watcher)
        gc.disable()
        try:
            watcher.wake_at(time.monotonic() + 0.01)
            await watcher.wait()
            watcher.close()
            del watcher
            assert freed() is None
        finally:
            gc.enable()


async def test_a_stalled_watcher_is_woken_by_default() -> None:
    """A caller without a connection to abort ends the wait itself."""
    log = FakeChangeLog()
    async with running_watches(log) as (_reflector, watches):
        watcher = await watches.open(EVERYTHING)
        waiting = asyncio.create_task(watcher.wait())
        await asyncio.sleep(0)

        watcher.writing_since = float("-inf")
        await watches.tick()
        await waiting


async def test_a_stalled_client_is_disconnected() -> None:
    """A write that blocks for ten seconds counts as stalled."""
    log = FakeChangeLog()
    async with running_watches(log) as (_reflector, watches):
        abandoned: list[bool] = []
        watcher = await watches.open(EVERYTHING, on_stalled=lambda: abandoned.append(True))

        watcher.writing_since = float("-inf")
        await watches.tick()

        assert abandoned == [True]
