"""The watch history stays connected over fills of the cache, and can be extended backwards into the log."""

import asyncio

import pytest

from registry.cache.watch_history import WatchHistory
from registry.errors import StoreUnavailable
from tests.support.builders import a_change, an_agent
from tests.support.fake_change_log import STORE_UNAVAILABLE, FakeChangeLog


class RecordedHistory:
    """A watch history over a fake log, with the entries and gaps that its watchers received."""

    def __init__(self, version_count: int, *, most: int = 100) -> None:
        self.log = FakeChangeLog()
        for version in range(2, version_count + 1):
            self.log.write(an_agent("a", version), "add")
        self.received: list[int] = []
        self.gaps = 0
        self.watch_history = WatchHistory(
            self.log, most, on_entry=lambda entry: self.received.append(entry.version), on_gap=self._count_gap
        )

    def _count_gap(self) -> None:
        self.gaps += 1

    async def fill(self, version: int | None = None) -> None:
        """Connect to a view of this version or of the newest; if the log forked, to a view of the next timeline."""
        if not await self.watch_history.reconnect(version or self.log.version, self.log.timeline):
            assert await self.watch_history.reconnect(self.log.version, self.log.timeline)

    def write(self, *versions: int) -> None:
        """Append entries to the log alone."""
        for version in versions:
            self.log.write(an_agent("a", version))

    @property
    def versions(self) -> list[int]:
        """Return the versions in the history, its start first."""
        buffer = self.watch_history.buffer
        return [buffer.start_version, *(entry.version for entry in buffer.since(buffer.start_version))]


async def test_the_first_fill_starts_the_history_without_a_gap() -> None:
    """There is no watcher yet."""
    recorded = RecordedHistory(5)

    await recorded.fill()

    assert (recorded.versions, recorded.received, recorded.gaps) == ([5], [], 0)


async def test_a_fill_that_the_log_connects_keeps_watches_open() -> None:
    """Watchers receive each change once and in order, however many polls that takes."""
    recorded = RecordedHistory(3)
    await recorded.fill()
    recorded.log.max_entries_per_read = 2
    recorded.write(4, 6, 7, 9, 10)

    await recorded.fill()

    assert recorded.received == [4, 6, 7, 9, 10]
    assert recorded.versions == [3, 4, 6, 7, 9, 10]
    assert recorded.gaps == 0


async def test_the_entries_read_at_a_fill_end_at_its_version() -> None:
    """Later entries are read when the view follows the log."""
    recorded = RecordedHistory(3)
    await recorded.fill()
    recorded.write(4, 5, 6)

    await recorded.fill(5)

    assert recorded.received == [4, 5]


async def test_a_fill_without_changes_keeps_watches_open() -> None:
    """Redis was unavailable and nothing changed."""
    recorded = RecordedHistory(3)
    await recorded.fill()

    await recorded.fill()

    assert (recorded.versions, recorded.received, recorded.gaps) == ([3], [], 0)


async def test_a_different_change_under_the_same_version_is_a_gap() -> None:
    """A store that lost its last entries used the number again, so watchers saw a change that is gone.

    A watcher may resume at that version on any replica. The timeline is therefore invalidated: the next version is far
    above all that was seen.
    """
    recorded = RecordedHistory(5)
    await recorded.fill()
    recorded.log.changes[-1] = a_change(5, "add", an_agent("other", 5))
    recorded.write(6)

    await recorded.fill()

    assert (recorded.versions, recorded.received, recorded.gaps) == ([60_006], [], 1)
    assert not await recorded.watch_history.extend_to(5)


async def test_a_lost_end_of_the_log_invalidates_the_timeline() -> None:
    """No entry was written since then; the next writes would reuse the lost versions."""
    recorded = RecordedHistory(5)
    await recorded.fill()
    timeline = recorded.log.timeline
    recorded.log.changes = recorded.log.changes[:-2]

    await recorded.fill()

    assert (recorded.versions, recorded.gaps) == ([60_005], 1)
    assert recorded.log.timeline != timeline


async def test_a_trimmed_log_keeps_its_timeline() -> None:
    """A replica that was disconnected for long has entries that are too old, not lost; other watches continue."""
    recorded = RecordedHistory(5)
    await recorded.fill()
    timeline = recorded.log.timeline
    recorded.write(6, 7, 8)
    recorded.log.changes = recorded.log.changes[-2:]

    await recorded.fill()

    assert recorded.log.timeline == timeline


async def test_a_change_with_another_predecessor_is_a_gap() -> None:
    """The whole entry is compared, not only its agent."""
    recorded = RecordedHistory(5)
    await recorded.fill()
    recorded.log.changes[-1] = a_change(5, "add", an_agent("a", 5), prev=3)

    await recorded.fill()

    assert recorded.gaps == 1


@pytest.mark.parametrize("remaining", [0, 1, 2])
async def test_a_log_trimmed_past_the_last_entry_is_a_gap(remaining: int) -> None:
    """The last entry of the history is gone, so the entries after it may be missing too."""
    recorded = RecordedHistory(5)
    await recorded.fill()
    recorded.write(6, 7, 8)
    recorded.log.changes = recorded.log.changes[-remaining:] if remaining else [a_change(8, "new_timeline")]

    await recorded.fill()

    assert (recorded.versions, recorded.received, recorded.gaps) == ([8], [], 1)


async def test_a_log_with_a_missing_entry_is_a_gap() -> None:
    """An operator deleted an entry by hand; watchers must not miss a change."""
    recorded = RecordedHistory(5)
    await recorded.fill()
    recorded.write(6, 7, 8)
    del recorded.log.changes[-2]

    await recorded.fill()

    assert (recorded.versions, recorded.received, recorded.gaps) == ([8], [], 1)


async def test_another_timeline_is_a_gap() -> None:
    """It is one even if its versions fit."""
    recorded = RecordedHistory(5)
    await recorded.fill()
    recorded.log.timeline = "h2"

    await recorded.fill()

    assert recorded.gaps == 1
    await recorded.fill()
    assert recorded.gaps == 1


async def test_an_appended_entry_is_compared_at_the_next_fill() -> None:
    """The newest entry must be unchanged in the log, not the entry of the last fill."""
    recorded = RecordedHistory(3)
    await recorded.fill()
    recorded.write(4)
    recorded.watch_history.append(recorded.log.changes[-1])
    recorded.log.changes[-1] = a_change(4, "add", an_agent("other", 4))

    await recorded.fill()

    assert recorded.gaps == 1


async def test_old_versions_are_read_from_the_log() -> None:
    """A replica that started later serves them too; open watches do not receive them again."""
    recorded = RecordedHistory(9)
    await recorded.fill()
    recorded.log.max_entries_per_read = 2

    assert await recorded.watch_history.extend_to(4)

    assert recorded.versions == [4, 5, 6, 7, 8, 9]
    assert recorded.received == []
    assert await recorded.watch_history.extend_to(2)
    assert recorded.versions == list(range(2, 10))


async def test_concurrent_requests_for_old_versions_read_them_once() -> None:
    """Requests at the same time or later share one read."""
    recorded = RecordedHistory(9)
    await recorded.fill()

    assert await asyncio.gather(*(recorded.watch_history.extend_to(3) for _ in range(50))) == [True] * 50
    assert await recorded.watch_history.extend_to(6)

    assert recorded.log.read_count == 1


@pytest.mark.parametrize("version", [3, 12, 99])
async def test_a_version_without_an_entry_is_not_available(version: int) -> None:
    """It is older than the log, between two entries, or not written yet."""
    recorded = RecordedHistory(9)
    recorded.write(11, 13)
    del recorded.log.changes[:4]
    await recorded.fill()

    assert not await recorded.watch_history.extend_to(version)
    assert recorded.versions == [13]
    assert await recorded.watch_history.extend_to(11)


async def test_a_log_trimmed_at_a_removal_hides_no_removal() -> None:
    """A watcher from before the removal must list again; one from the removal resumes. etcd had this bug twice."""
    recorded = RecordedHistory(4)
    recorded.log.write(an_agent("a", 5), "remove")
    recorded.write(6)
    del recorded.log.changes[: recorded.log.changes.index(next(c for c in recorded.log.changes if c.kind == "remove"))]
    await recorded.fill()

    assert not await recorded.watch_history.extend_to(4)
    assert await recorded.watch_history.extend_to(5)
    assert recorded.versions == [5, 6]


async def test_a_missing_entry_after_an_old_version_is_detected() -> None:
    """The version itself is in the log, but not all entries after it."""
    recorded = RecordedHistory(9)
    del recorded.log.changes[5]
    await recorded.fill()

    assert not await recorded.watch_history.extend_to(3)
    assert recorded.versions == [9]


async def test_a_lost_connection_is_an_error_and_not_a_lost_version() -> None:
    """After a reconnect, the log may belong to another server.

    A watch that resumed at that moment got 410, so all clients of a restarted store listed their agents at once.
    """
    recorded = RecordedHistory(9)
    await recorded.fill()
    recorded.log.forked = True

    with pytest.raises(StoreUnavailable):
        await recorded.watch_history.extend_to(3)
    recorded.write(10)
    with pytest.raises(StoreUnavailable):
        await recorded.fill()

    recorded.log.forked = False
    assert await recorded.watch_history.extend_to(3)
    await recorded.fill()
    assert (recorded.received, recorded.gaps) == ([10], 0)


async def test_an_unavailable_store_is_an_error() -> None:
    """The version counts neither as available nor as gone; the history stays."""
    recorded = RecordedHistory(9)
    await recorded.fill()
    recorded.log.unavailable = True

    with pytest.raises(StoreUnavailable) as raised:
        await recorded.watch_history.extend_to(3)

    assert raised.value is STORE_UNAVAILABLE
    assert recorded.versions == [9]


async def test_an_entry_appended_during_a_backward_read_stays() -> None:
    """A change is appended while the reader waits for the log."""
    recorded = RecordedHistory(9)
    await recorded.fill()
    recorded.log.read_gate = asyncio.Event()
    extension = asyncio.create_task(recorded.watch_history.extend_to(5))
    await asyncio.sleep(0)
    recorded.write(10)
    recorded.watch_history.append(recorded.log.changes[-1])
    recorded.log.read_gate.set()

    assert await extension
    assert recorded.versions == [5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("more", [0, 1])
async def test_a_history_that_restarts_during_a_backward_read_is_not_extended(more: int) -> None:
    """The entries read belong to another timeline, also if it ended at the version with which this one starts."""
    recorded = RecordedHistory(9)
    await recorded.fill()
    recorded.log.read_gate = asyncio.Event()
    extension = asyncio.create_task(recorded.watch_history.extend_to(5))
    await asyncio.sleep(0)
    recorded.write(*range(10, 10 + more))
    recorded.log.timeline = "h2"
    await recorded.fill()
    recorded.log.read_gate.set()

    assert not await extension
    assert recorded.versions == [9 + more]


async def test_the_history_stays_within_its_limit_over_a_fill() -> None:
    """The oldest entries are dropped; watchers receive all of them."""
    recorded = RecordedHistory(3, most=2)
    await recorded.fill()
    recorded.write(4, 5, 6, 7)

    await recorded.fill()

    assert recorded.received == [4, 5, 6, 7]
    assert recorded.versions == [5, 6, 7]
