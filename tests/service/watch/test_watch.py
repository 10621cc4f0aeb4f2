"""Watches on a plain list of changes: ordered, complete, once, resumable."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from registry.cache.reflector import Reflector
from registry.errors import VersionAhead, VersionTooOld
from registry.model.label_selector import LabelSelector
from registry.model.query import AgentQuery
from registry.service.watch.fanout import WatchFanout
from registry.service.watch.watch import Watcher, WatchService
from tests.support.builders import a_change, an_agent
from tests.support.fake_change_log import FakeChangeLog
from tests.support.polling import async_wait_until
from tests.support.reflectors import running_reflector

EVERYTHING = AgentQuery()


@contextlib.asynccontextmanager
async def watching(log: FakeChangeLog) -> AsyncIterator[tuple[Reflector, WatchService]]:
    """Provide a feed that runs, and watches over it."""
    fanout = WatchFanout()
    async with running_reflector(log, fanout=fanout) as feed:
        watches = WatchService(feed, feed.watch_history, fanout)
        await feed.wait_fresh()
        yield feed, watches


def drained(watcher: Watcher) -> list[tuple[str, int]]:
    """Take everything there is."""
    seen: list[tuple[str, int]] = []
    while some := watcher.take():
        seen += [(kind, entry.version) for kind, entry in some]
    return seen


async def test_a_watch_sees_what_comes_after_it_began() -> None:
    """From the version held when it was opened, in order, and nothing of before."""
    log = FakeChangeLog()
    log.write(an_agent("old", 2), "add")
    async with watching(log) as (feed, watches):
        watcher = await watches.open(EVERYTHING)
        log.write(an_agent("a", 3), "add")
        log.write(an_agent("a", 4, "degraded"))
        log.write(an_agent("a", 5), "remove")
        await feed.wait_fresh()

        assert drained(watcher) == [("ADDED", 3), ("MODIFIED", 4), ("DELETED", 5)]
        assert watcher.delivered_version == 5


async def test_a_watch_resumes_after_the_last_version_it_saw() -> None:
    """Nothing lost, nothing twice, on whatever feed."""
    log = FakeChangeLog()
    for version in range(2, 12):
        log.write(an_agent(f"a{version}", version), "add")
    async with watching(log) as (feed, watches):
        for version in range(12, 22):
            log.write(an_agent(f"a{version}", version), "add")
        await feed.wait_fresh()

        for since in range(1, 22):
            watcher = await watches.open(EVERYTHING, since)
            assert drained(watcher) == [("ADDED", version) for version in range(since + 1, 22)]
            watcher.close()


async def test_what_was_reached_is_what_was_taken() -> None:
    """In the middle of what was missed it is the last event, not the newest version; a bookmark would be a lie."""
    log = FakeChangeLog()
    for version in range(2, 102):
        log.write(an_agent(f"a{version}", version), "add")
    async with watching(log) as (feed, watches):
        watcher = await watches.open(EVERYTHING, 1)
        for version in range(102, 202):
            log.write(an_agent(f"a{version}", version), "add")
        await feed.wait_fresh()

        seen: list[int] = []
        while some := watcher.take():
            seen += [entry.version for _, entry in some]
            assert watcher.delivered_version == seen[-1]
        assert seen == list(range(2, 202))


async def test_the_log_is_read_backwards_once_for_all() -> None:
    """A replica that came later reaches versions from before its time, and asks the store for them once."""
    log = FakeChangeLog()
    for version in range(2, 12):
        log.write(an_agent(f"a{version}", version), "add")
    async with watching(log) as (_feed, watches):
        before = log.read_count
        first = await watches.open(EVERYTHING, 3)
        once = log.read_count
        second = await watches.open(EVERYTHING, 5)

        assert once > before
        assert log.read_count == once
        assert len(drained(first)) == 8
        assert len(drained(second)) == 6


async def test_a_version_that_is_gone_is_too_old() -> None:
    """Trimmed from the log, or never an entry of it: 410, with the version now."""
    log = FakeChangeLog()
    for version in range(2, 12):
        log.write(an_agent(f"a{version}", version), "add")
    del log.changes[:5]
    async with watching(log) as (_feed, watches):
        with pytest.raises(VersionTooOld) as refused:
            await watches.open(EVERYTHING, 3)
        assert refused.value.current == 11


async def test_a_version_from_the_future_is_refused_after_a_look() -> None:
    """It is of another history; waiting for it would deliver foreign events."""
    log = FakeChangeLog()
    async with watching(log) as (_feed, watches):
        with pytest.raises(VersionAhead):
            await watches.open(EVERYTHING, 99)


async def test_a_version_this_replica_has_not_heard_of_yet_is_looked_for() -> None:
    """A list from another replica may be newer than what is held here."""
    log = FakeChangeLog()
    async with watching(log) as (_feed, watches):
        log.write(an_agent("a", 2), "add")

        watcher = await watches.open(EVERYTHING, 2)

        assert watcher.delivered_version == 2


async def test_an_object_that_starts_or_stops_matching_is_added_or_deleted() -> None:
    """For this watcher; others see a modification."""
    log = FakeChangeLog()
    async with watching(log) as (feed, watches):
        healthy = await watches.open(AgentQuery(status="healthy"))
        reader = await watches.open(AgentQuery(capabilities=("read",)))
        everything = await watches.open(EVERYTHING)
        log.write(an_agent("a", 2, "pending"), "add")
        log.write_from(an_agent("a", 3, "healthy"), status_before="pending")
        log.write_from(an_agent("a", 4, capabilities=[{"name": "read"}]), spec_before=an_agent("a").spec)
        log.write_from(an_agent("a", 5), spec_before=an_agent("a", capabilities=[{"name": "read"}]).spec)
        log.write_from(an_agent("a", 6, "degraded"), status_before="healthy")
        await feed.wait_fresh()

        assert drained(healthy) == [("ADDED", 3), ("MODIFIED", 4), ("MODIFIED", 5), ("DELETED", 6)]
        assert drained(reader) == [("ADDED", 4), ("DELETED", 5)]
        assert drained(everything) == [("ADDED", 2), *(("MODIFIED", version) for version in range(3, 7))]


async def test_changes_that_do_not_concern_a_watch_do_not_wake_it() -> None:
    """Neither by index nor by filter: a thousand watchers of other things sleep on."""
    log = FakeChangeLog()
    async with watching(log) as (feed, watches):
        others = [await watches.open(AgentQuery(capabilities=(f"c{number}",))) for number in range(50)]
        others.append(await watches.open(AgentQuery(namespace="elsewhere")))
        others.append(await watches.open(AgentQuery(selector=LabelSelector.from_labels({"k": "2"}))))
        waits = [asyncio.create_task(watcher.wait()) for watcher in others]
        log.write(an_agent("a", 2, capabilities=[{"name": "x"}], labels={"k": "1"}), "add")
        await feed.wait_fresh()

        assert not any(task.done() for task in waits)
        assert {watcher.delivered_version for watcher in others} == {1}
        assert all(watcher.take() == [] for watcher in others)
        assert {watcher.delivered_version for watcher in others} == {2}
        for task in waits:
            task.cancel()


async def test_watchers_of_the_same_share_one_group() -> None:
    """A change is examined once for all of them, and its line is the same bytes."""
    log = FakeChangeLog()
    async with watching(log) as (feed, watches):
        one = await watches.open(AgentQuery(namespace="default"))
        two = await watches.open(AgentQuery(namespace="default"))
        log.write(an_agent("a", 2), "add")
        await feed.wait_fresh()

        (first,), (second,) = one.take(), two.take()

        assert len(list(watches.fanout)) == 1
        assert first[1] is second[1]
        assert first[1].encode("ADDED", "ndjson") is second[1].encode("ADDED", "ndjson")


async def test_a_slow_watcher_is_lost_and_the_others_are_not() -> None:
    """Who falls further behind than a group keeps is ended with the version it reached, and resumes there."""
    log = FakeChangeLog()
    async with watching(log) as (feed, watches):
        slow, quick = await watches.open(EVERYTHING), await watches.open(EVERYTHING)
        seen: list[tuple[str, int]] = []
        for version in range(2, 3002):
            log.write(an_agent("a", version), "add" if version == 2 else "modify")
            if version % 100 == 0:
                await feed.wait_fresh()
                seen += drained(quick)
        await feed.wait_fresh()
        seen += drained(quick)

        assert [version for _, version in seen] == list(range(2, 3002))
        assert slow.end_reason == "overflowed"
        assert slow.take() == []
        resumed = await watches.open(EVERYTHING, slow.delivered_version)
        assert [version for _, version in drained(resumed)] == list(range(2, 3002))


async def test_a_watch_lives_through_a_fill_that_the_log_bridges() -> None:
    """The store was away and came back with the same past: nothing is lost and nobody is told."""
    log = FakeChangeLog()
    async with watching(log) as (feed, watches):
        log.write(an_agent("a", 2), "add")
        await feed.wait_fresh()
        watcher = await watches.open(EVERYTHING)
        log.unavailable = True
        await async_wait_until(lambda: not feed.following, description="the feed noticed")
        log.write(an_agent("b", 3), "add")
        log.write(an_agent("c", 4), "add")
        log.unavailable = False
        await async_wait_until(lambda: feed.following, description="the feed follows again")
        log.write(an_agent("d", 5), "add")
        await feed.wait_fresh()

        assert drained(watcher) == [("ADDED", 3), ("ADDED", 4), ("ADDED", 5)]
        assert watcher.end_reason is None


async def test_a_watch_ends_when_the_past_is_another() -> None:
    """The same version number with another change under it: a promoted replica had lost the tail."""
    log = FakeChangeLog()
    async with watching(log) as (feed, watches):
        log.write(an_agent("a", 2), "add")
        await feed.wait_fresh()
        watcher = await watches.open(EVERYTHING)
        log.unavailable = True
        await async_wait_until(lambda: not feed.following, description="the feed noticed")
        log.changes[-1] = a_change(2, "add", an_agent("other", 2))
        log.agents = {"other": an_agent("other", 2)}
        log.unavailable = False
        await async_wait_until(lambda: feed.following, description="the feed follows again")

        assert watcher.end_reason == "log_gap"
        assert watcher.take() == []


async def test_a_watch_ends_at_another_history() -> None:
    """Nothing of the old one can be resumed."""
    log = FakeChangeLog()
    async with watching(log) as (feed, watches):
        watcher = await watches.open(EVERYTHING)
        log.timeline, log.agents, log.changes = "h2", {}, [a_change(9, "new_timeline")]
        await feed.wait_fresh()

        assert watcher.end_reason == "log_gap"


async def test_the_state_comes_first_where_it_is_asked_for() -> None:
    """State, then changes, with nothing between them lost."""
    log = FakeChangeLog()
    log.write(an_agent("b", 2), "add")
    log.write(an_agent("a", 3), "add")
    async with watching(log) as (feed, watches):
        watcher = await watches.open(EVERYTHING, initial=True)
        log.write(an_agent("c", 4), "add")
        await feed.wait_fresh()

        assert [record.agent.id for record in watcher.initial or []] == ["a", "b"]
        assert watcher.delivered_version == 3
        assert drained(watcher) == [("ADDED", 4)]


async def test_the_end_of_the_replica_is_the_end_of_its_watches() -> None:
    """Each is woken, and told that it may go on elsewhere."""
    log = FakeChangeLog()
    async with watching(log) as (_feed, watches):
        watcher = await watches.open(EVERYTHING)
        waiting = asyncio.create_task(watcher.wait())
        await asyncio.sleep(0)

        watches.close()
        await waiting

        assert watcher.end_reason == "shutting_down"


async def test_a_watch_that_was_closed_leaves_nothing_behind() -> None:
    """Neither a watcher nor a group."""
    log = FakeChangeLog()
    async with watching(log) as (_feed, watches):
        watcher = await watches.open(AgentQuery(capabilities=("x",)))

        watcher.close()

        assert not watches.watchers
        assert list(watches.fanout) == []


async def test_a_client_that_takes_nothing_is_abandoned() -> None:
    """Ten seconds into one write it is not there any more, or might as well not be."""
    log = FakeChangeLog()
    async with watching(log) as (_feed, watches):
        abandoned: list[bool] = []
        watcher = await watches.open(EVERYTHING, on_stalled=lambda: abandoned.append(True))

        watcher.writing_since = float("-inf")
        await watches.tick()

        assert abandoned == [True]
