"""The feed on a plain list of changes: it never shows a wrong answer, and heals after any gap."""

import asyncio
from functools import partial

import pytest

from registry.cache.change_signal import ChangeSignal
from registry.cache.reflector import Reflector
from registry.cache.view import View
from registry.errors import NotReady, StoreUnavailable
from tests.support.builders import a_change, an_agent
from tests.support.fake_change_log import FakeChangeLog
from tests.support.polling import async_wait_until
from tests.support.reflectors import running_reflector


def held(view: View) -> dict[str, int]:
    """Return the agents of a view by version."""
    return {agent_id: record.agent.version for agent_id, record in view.records.items()}


async def test_a_fresh_read_sees_what_was_written_before_it() -> None:
    """Read your writes, without a bell."""
    log = FakeChangeLog()
    async with running_reflector(log) as feed:
        await feed.wait_fresh()
        log.write(an_agent("a", 2))

        view = await feed.wait_fresh()

    assert held(view) == {"a": 2}
    assert view.version == 2


async def test_a_read_never_uses_a_question_that_was_asked_before_it() -> None:
    """The story: an answer already on its way may be older than a write that this reader was told of."""
    log = FakeChangeLog()
    async with running_reflector(log) as feed:
        await feed.wait_fresh()
        log.read_gate = asyncio.Event()
        first = feed.wait_fresh()
        asked = log.read_count
        await async_wait_until(lambda: log.read_count > asked, description="the first question is on its way")
        log.write(an_agent("a", 2))
        second = feed.wait_fresh()

        log.read_gate.set()
        await first
        view = await second

    assert held(view) == {"a": 2}
    assert log.read_count >= asked + 2


async def test_all_who_wait_share_one_question() -> None:
    """A hundred reads at once cost one or two looks, not a hundred."""
    log = FakeChangeLog()
    async with running_reflector(log) as feed:
        await feed.wait_fresh()
        before = log.read_count

        await asyncio.gather(*(feed.wait_fresh() for _ in range(100)))

    assert log.read_count - before <= 2


async def test_a_cancelled_read_takes_nobody_along() -> None:
    """Cancelling one waiter leaves the others with their answer."""
    log = FakeChangeLog()
    async with running_reflector(log) as feed:
        await feed.wait_fresh()
        one, other = feed.wait_fresh(), feed.wait_fresh()

        one.cancel()

        assert (await other).version == 1


async def test_a_fill_during_changes_ends_at_the_truth() -> None:
    """Agents that change while they are scanned are found at their newest, never at a mix."""
    log = FakeChangeLog()
    for number in range(10):
        log.write(an_agent(f"a{number}", number + 2), "add")
    log.written_during_scan = [an_agent("a0", 50), an_agent("a9", 51), an_agent("new", 52)]
    async with running_reflector(log) as feed:
        view = await feed.wait_fresh()

    assert held(view) == {agent.id: agent.version for agent in log.agents.values()}
    assert view.version == 52


async def test_a_long_log_is_taken_in_slices() -> None:
    """One pull takes a bounded number of entries; the feed goes on until the version it was told is held."""
    log = FakeChangeLog()
    log.max_entries_per_read = 3
    async with running_reflector(log) as feed:
        await feed.wait_fresh()
        for number in range(20):
            log.write(an_agent(f"a{number}", number + 2), "add")

        view = await feed.wait_fresh()

    assert len(view.records) == 20


async def test_a_trimmed_log_ends_in_a_fill() -> None:
    """When the held entry is gone, what came since may be gone too: the state is read anew."""
    log = FakeChangeLog()
    async with running_reflector(log) as feed:
        await feed.wait_fresh()
        log.write(an_agent("a", 2), "add")
        log.write(an_agent("b", 3), "add")
        log.changes = log.changes[-1:]

        view = await feed.wait_fresh()

        assert held(view) == {"a": 2, "b": 3}
        assert (feed.fills, feed.gaps) == (2, 1)


async def test_a_missing_entry_ends_in_a_fill() -> None:
    """An entry that follows another version than the held one is not taken."""
    log = FakeChangeLog()
    async with running_reflector(log) as feed:
        await feed.wait_fresh()
        log.write(an_agent("a", 2), "add")
        log.write(an_agent("b", 3), "add")
        del log.changes[1]

        view = await feed.wait_fresh()

        assert held(view) == {"a": 2, "b": 3}
        assert feed.gaps == 1


async def test_another_history_ends_in_a_fill() -> None:
    """After data was lost, nothing of the old view survives."""
    log = FakeChangeLog()
    log.write(an_agent("a", 2), "add")
    async with running_reflector(log) as feed:
        assert held(await feed.wait_fresh()) == {"a": 2}
        log.timeline, log.agents, log.changes = "h2", {}, [a_change(9, "new_timeline")]

        view = await feed.wait_fresh()

        assert held(view) == {}
        assert view.timeline == "h2"


async def test_a_version_without_an_entry_is_a_gap_not_an_endless_loop() -> None:
    """A counter that was raised by hand has no log entry; the feed fills anew and goes on."""
    log = FakeChangeLog()
    async with running_reflector(log) as feed:
        await feed.wait_fresh()
        log.max_entries_per_read = 0
        log.write(an_agent("a", 2), "add")
        gone = feed.wait_fresh()
        await async_wait_until(lambda: feed.gaps > 0, description="the gap is seen")
        log.max_entries_per_read = 1000

        assert held(await gone) == {"a": 2}


async def test_a_lost_store_fails_fresh_reads_at_once_and_keeps_the_view() -> None:
    """Trouble is told to those who wait; the last view stays for those who take it as it is."""
    log = FakeChangeLog()
    log.write(an_agent("a", 2), "add")
    async with running_reflector(log) as feed:
        await feed.wait_fresh()
        log.unavailable = True

        with pytest.raises(StoreUnavailable):
            await feed.wait_fresh()

        assert not feed.following
        assert feed.staleness > 0
        assert feed.view is not None
        assert held(feed.view) == {"a": 2}


async def test_a_lost_store_ends_in_a_fill() -> None:
    """After the store was away the state is read anew, since another past may stand behind the same numbers."""
    log = FakeChangeLog()
    async with running_reflector(log) as feed:
        await feed.wait_fresh()
        log.unavailable = True
        with pytest.raises(StoreUnavailable):
            await feed.wait_fresh()
        log.write(an_agent("a", 2), "add")
        log.unavailable = False

        await async_wait_until(lambda: feed.following, description="the feed follows again")

        assert held(await feed.wait_fresh()) == {"a": 2}
        assert feed.fills == 2


async def test_reads_before_the_first_fill_are_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica that has nothing yet says so, within the time a read may wait."""
    monkeypatch.setattr("registry.cache.reflector._READ_TIMEOUT_S", 0.05)
    log = FakeChangeLog()
    log.read_gate = asyncio.Event()
    async with running_reflector(log) as feed:
        with pytest.raises(NotReady):
            await feed.wait_fresh()


async def test_a_fill_that_hangs_does_not_hold_a_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once filled, a read that cannot be made fresh in time fails as trouble of the store."""
    monkeypatch.setattr("registry.cache.reflector._READ_TIMEOUT_S", 0.05)
    log = FakeChangeLog()
    async with running_reflector(log) as feed:
        await feed.wait_fresh()
        log.read_gate = asyncio.Event()
        with pytest.raises(StoreUnavailable):
            await feed.wait_fresh()


async def test_it_looks_by_itself_when_no_bell_rings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change nobody announced is seen at the next look."""
    monkeypatch.setattr("registry.cache.reflector.POLL_INTERVAL_S", 0.01)
    log = FakeChangeLog()
    async with running_reflector(log) as feed:
        await feed.wait_fresh()
        log.write(an_agent("a", 2), "add")

        await async_wait_until(partial(_shows, feed, 2), description="the look sees the change")


def _shows(feed: Reflector, version: int) -> bool:
    return feed.view is not None and feed.view.version == version


async def test_three_unannounced_looks_in_a_row_mean_a_broken_bell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who hears nothing three times stops relying on it; a ring in between counts anew."""
    monkeypatch.setattr("registry.cache.reflector.POLL_INTERVAL_S", 0.01)
    log = FakeChangeLog()
    broken: list[int] = []
    signal = ChangeSignal()
    async with running_reflector(log, signal=signal, on_unannounced=lambda: broken.append(log.version)) as feed:
        await feed.wait_fresh()
        for version in range(2, 6):
            if version == 4:
                log.write(an_agent("a", version))
                signal.notify()
            else:
                log.write(an_agent("a", version))
            await async_wait_until(partial(_shows, feed, version), description="the look sees the change")
        assert not broken
        for version in range(6, 8):
            log.write(an_agent("a", version))
            await async_wait_until(partial(_shows, feed, version), description="the look sees the change")

    assert broken == [7]
