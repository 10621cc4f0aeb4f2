"""The reflector on a list of changes: it never shows a stale result, and recovers from every gap."""

import asyncio
from functools import partial

import pytest

from registry.cache.reflector import ChangeSignal, Reflector
from registry.cache.view import View
from registry.errors import NotReady, StoreUnavailable
from tests.support.builders import a_change, an_agent
from tests.support.fake_change_log import FakeChangeLog
from tests.support.polling import async_wait_until
from tests.support.reflectors import running_reflector


def agent_versions(view: View) -> dict[str, int]:
    """Return the version of each agent in a view."""
    return {agent_id: record.agent.version for agent_id, record in view.records.items()}


async def test_a_fresh_read_returns_earlier_writes() -> None:
    """This works without a change notification."""
    log = FakeChangeLog()
    async with running_reflector(log) as reflector:
        await reflector.wait_fresh()
        log.write(an_agent("a", 2))

        view = await reflector.wait_fresh()

    assert agent_versions(view) == {"a": 2}
    assert view.version == 2


async def test_a_read_does_not_use_a_poll_that_was_sent_before_it() -> None:
    """The response to an earlier poll may be older than a write that the reader has seen."""
    log = FakeChangeLog()
    async with running_reflector(log) as reflector:
        await reflector.wait_fresh()
        log.read_gate = asyncio.Event()
        first = reflector.wait_fresh()
        reads_before = log.read_count
        await async_wait_until(lambda: log.read_count > reads_before, description="the first poll is sent")
        log.write(an_agent("a", 2))
        second = reflector.wait_fresh()

        log.read_gate.set()
        await first
        view = await second

    assert agent_versions(view) == {"a": 2}
    assert log.read_count >= reads_before + 2


async def test_concurrent_reads_share_one_poll() -> None:
    """A hundred concurrent reads cost one or two polls, not a hundred."""
    log = FakeChangeLog()
    async with running_reflector(log) as reflector:
        await reflector.wait_fresh()
        before = log.read_count

        await asyncio.gather(*(reflector.wait_fresh() for _ in range(100)))

    assert log.read_count - before <= 2


async def test_cancelling_one_read_leaves_the_others() -> None:
    """The other reads get their result."""
    log = FakeChangeLog()
    async with running_reflector(log) as reflector:
        await reflector.wait_fresh()
        one, other = reflector.wait_fresh(), reflector.wait_fresh()

        one.cancel()

        assert (await other).version == 1


async def test_a_fill_during_changes_ends_at_the_current_state() -> None:
    """Agents that change during the scan are cached in their newest state, never in a mixture of two."""
    log = FakeChangeLog()
    for number in range(10):
        log.write(an_agent(f"a{number}", number + 2), "add")
    log.written_during_scan = [an_agent("a0", 50), an_agent("a9", 51), an_agent("new", 52)]
    async with running_reflector(log) as reflector:
        view = await reflector.wait_fresh()

    assert agent_versions(view) == {agent.id: agent.version for agent in log.agents.values()}
    assert view.version == 52


async def test_a_long_log_is_read_in_slices() -> None:
    """One poll reads a bounded number of entries; the reflector polls until it has the requested version."""
    log = FakeChangeLog()
    log.max_entries_per_read = 3
    async with running_reflector(log) as reflector:
        await reflector.wait_fresh()
        for number in range(20):
            log.write(an_agent(f"a{number}", number + 2), "add")

        view = await reflector.wait_fresh()

    assert len(view.records) == 20


async def test_a_trimmed_log_causes_a_fill() -> None:
    """If the last cached entry is gone from the log, later entries may be gone too: the state is read again."""
    log = FakeChangeLog()
    async with running_reflector(log) as reflector:
        await reflector.wait_fresh()
        log.write(an_agent("a", 2), "add")
        log.write(an_agent("b", 3), "add")
        log.changes = log.changes[-1:]

        view = await reflector.wait_fresh()

        assert agent_versions(view) == {"a": 2, "b": 3}
        assert (reflector.fills, reflector.gaps) == (2, 1)


async def test_a_missing_entry_causes_a_fill() -> None:
    """An entry whose predecessor is not the cached version is not applied."""
    log = FakeChangeLog()
    async with running_reflector(log) as reflector:
        await reflector.wait_fresh()
        log.write(an_agent("a", 2), "add")
        log.write(an_agent("b", 3), "add")
        del log.changes[1]

        view = await reflector.wait_fresh()

        assert agent_versions(view) == {"a": 2, "b": 3}
        assert reflector.gaps == 1


async def test_another_timeline_causes_a_fill() -> None:
    """After a loss of data, nothing of the old view is left."""
    log = FakeChangeLog()
    log.write(an_agent("a", 2), "add")
    async with running_reflector(log) as reflector:
        assert agent_versions(await reflector.wait_fresh()) == {"a": 2}
        log.timeline, log.agents, log.changes = "h2", {}, [a_change(9, "new_timeline")]

        view = await reflector.wait_fresh()

        assert agent_versions(view) == {}
        assert view.timeline == "h2"


async def test_a_version_without_an_entry_is_a_gap_and_no_endless_loop() -> None:
    """A counter that was raised by hand has no log entry; the reflector fills the cache again and continues."""
    log = FakeChangeLog()
    async with running_reflector(log) as reflector:
        await reflector.wait_fresh()
        log.max_entries_per_read = 0
        log.write(an_agent("a", 2), "add")
        pending_read = reflector.wait_fresh()
        await async_wait_until(lambda: reflector.gaps > 0, description="the gap is detected")
        log.max_entries_per_read = 1000

        assert agent_versions(await pending_read) == {"a": 2}


async def test_an_unavailable_store_fails_fresh_reads_and_leaves_the_view() -> None:
    """Fresh reads fail at once; the last view stays available for readers that accept stale data."""
    log = FakeChangeLog()
    log.write(an_agent("a", 2), "add")
    async with running_reflector(log) as reflector:
        await reflector.wait_fresh()
        log.unavailable = True

        with pytest.raises(StoreUnavailable):
            await reflector.wait_fresh()

        assert not reflector.following
        assert reflector.staleness > 0
        assert reflector.view is not None
        assert agent_versions(reflector.view) == {"a": 2}


async def test_an_unavailable_store_causes_a_fill() -> None:
    """After an outage the state is read again, because the same numbers may belong to other changes."""
    log = FakeChangeLog()
    async with running_reflector(log) as reflector:
        await reflector.wait_fresh()
        log.unavailable = True
        with pytest.raises(StoreUnavailable):
            await reflector.wait_fresh()
        log.write(an_agent("a", 2), "add")
        log.unavailable = False

        await async_wait_until(lambda: reflector.following, description="the reflector follows again")

        assert agent_versions(await reflector.wait_fresh()) == {"a": 2}
        assert reflector.fills == 2


async def test_reads_before_the_first_fill_are_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica with an empty cache reports that within the read timeout."""
    monkeypatch.setattr("registry.cache.reflector._READ_TIMEOUT_S", 0.05)
    log = FakeChangeLog()
    log.read_gate = asyncio.Event()
    async with running_reflector(log) as reflector:
        with pytest.raises(NotReady):
            await reflector.wait_fresh()


async def test_a_fill_that_hangs_does_not_block_a_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first fill, a read that cannot be made fresh in time fails with `StoreUnavailable`."""
    monkeypatch.setattr("registry.cache.reflector._READ_TIMEOUT_S", 0.05)
    log = FakeChangeLog()
    async with running_reflector(log) as reflector:
        await reflector.wait_fresh()
        log.read_gate = asyncio.Event()
        with pytest.raises(StoreUnavailable):
            await reflector.wait_fresh()


async def test_it_polls_without_a_notification(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change without a notification is read at the next poll."""
    monkeypatch.setattr("registry.cache.reflector.POLL_INTERVAL_S", 0.01)
    log = FakeChangeLog()
    async with running_reflector(log) as reflector:
        await reflector.wait_fresh()
        log.write(an_agent("a", 2), "add")

        await async_wait_until(partial(_has_version, reflector, 2), description="the poll reads the change")


def _has_version(reflector: Reflector, version: int) -> bool:
    return reflector.view is not None and reflector.view.version == version


async def test_three_unannounced_polls_in_a_row_mean_a_broken_notifier(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notification in between resets the count."""
    monkeypatch.setattr("registry.cache.reflector.POLL_INTERVAL_S", 0.01)
    log = FakeChangeLog()
    broken: list[int] = []
    signal = ChangeSignal()
    async with running_reflector(log, signal=signal, on_unannounced=lambda: broken.append(log.version)) as reflector:
        await reflector.wait_fresh()
        for version in range(2, 6):
            if version == 4:
                log.write(an_agent("a", version))
                signal.notify()
            else:
                log.write(an_agent("a", version))
            await async_wait_until(partial(_has_version, reflector, version), description="the poll reads the change")
        assert not broken
        for version in range(6, 8):
            log.write(an_agent("a", version))
            await async_wait_until(partial(_has_version, reflector, version), description="the poll reads the change")

    assert broken == [7]
