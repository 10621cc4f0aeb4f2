"""The shared history kept connected: over fills, and backwards into the log."""

import asyncio

import pytest

from registry.cache.watch_history import WatchHistory
from registry.errors import StoreUnavailable
from tests.support.builders import a_change, an_agent
from tests.support.fake_change_log import STORE_UNAVAILABLE, FakeChangeLog


class Followed:
    """A trail over a plain log, and what those who follow it were told."""

    def __init__(self, versions: int, *, most: int = 100) -> None:
        self.log = FakeChangeLog()
        for version in range(2, versions + 1):
            self.log.write(an_agent("a", version), "add")
        self.told: list[int] = []
        self.breaks = 0
        self.trail = WatchHistory(
            self.log, most, on_entry=lambda entry: self.told.append(entry.version), on_gap=self._break
        )

    def _break(self) -> None:
        self.breaks += 1

    async def fill(self, version: int | None = None) -> None:
        """Connect to a view of this version, or of the newest; where the log forked, to one of the next history."""
        if not await self.trail.reconnect(version or self.log.version, self.log.timeline):
            assert await self.trail.reconnect(self.log.version, self.log.timeline)

    def write(self, *versions: int) -> None:
        """Write to the log alone."""
        for version in versions:
            self.log.write(an_agent("a", version))

    @property
    def held(self) -> list[int]:
        """The versions held, the start first."""
        history = self.trail.buffer
        return [history.start_version, *(entry.version for entry in history.since(history.start_version))]


async def test_the_first_fill_starts_the_trail_and_breaks_nothing() -> None:
    """Nobody follows yet."""
    followed = Followed(5)

    await followed.fill()

    assert (followed.held, followed.told, followed.breaks) == ([5], [], 0)


async def test_a_fill_that_the_log_leads_to_is_a_bridge() -> None:
    """Who follows is told of each change in order, however many pulls that takes, and of nothing else."""
    followed = Followed(3)
    await followed.fill()
    followed.log.max_entries_per_read = 2
    followed.write(4, 6, 7, 9, 10)

    await followed.fill()

    assert followed.told == [4, 6, 7, 9, 10]
    assert followed.held == [3, 4, 6, 7, 9, 10]
    assert followed.breaks == 0


async def test_a_bridge_ends_where_the_view_does() -> None:
    """What the log has beyond it is the view's to follow."""
    followed = Followed(3)
    await followed.fill()
    followed.write(4, 5, 6)

    await followed.fill(5)

    assert followed.told == [4, 5]


async def test_a_fill_at_what_is_held_is_a_bridge_too() -> None:
    """The store was away and nothing happened."""
    followed = Followed(3)
    await followed.fill()

    await followed.fill()

    assert (followed.held, followed.told, followed.breaks) == ([3], [], 0)


async def test_the_same_number_with_another_change_under_it_breaks() -> None:
    """A store that lost its tail gave the number anew: what was seen is not what led here.

    Who saw it may ask any replica to go on from there, so the whole history is given up, far above all that was seen.
    """
    followed = Followed(5)
    await followed.fill()
    followed.log.changes[-1] = a_change(5, "add", an_agent("other", 5))
    followed.write(6)

    await followed.fill()

    assert (followed.held, followed.told, followed.breaks) == ([60_006], [], 1)
    assert not await followed.trail.extend_to(5)


async def test_a_tail_that_is_lost_gives_the_history_up() -> None:
    """Nothing was written since: the next writes would take the lost numbers."""
    followed = Followed(5)
    await followed.fill()
    history = followed.log.timeline
    followed.log.changes = followed.log.changes[:-2]

    await followed.fill()

    assert (followed.held, followed.breaks) == ([60_005], 1)
    assert followed.log.timeline != history


async def test_a_log_that_was_trimmed_keeps_its_history() -> None:
    """A replica that was away for long has seen old entries, not lost ones; nobody else is disturbed."""
    followed = Followed(5)
    await followed.fill()
    history = followed.log.timeline
    followed.write(6, 7, 8)
    followed.log.changes = followed.log.changes[-2:]

    await followed.fill()

    assert followed.log.timeline == history


async def test_a_change_that_differs_in_its_past_only_breaks() -> None:
    """All of an entry must read as it did, not its agent alone."""
    followed = Followed(5)
    await followed.fill()
    followed.log.changes[-1] = a_change(5, "add", an_agent("a", 5), prev=3)

    await followed.fill()

    assert followed.breaks == 1


@pytest.mark.parametrize("keep", [0, 1, 2])
async def test_a_log_that_was_trimmed_past_what_is_held_breaks(keep: int) -> None:
    """The entry held is gone: what stood between it and the next is not known."""
    followed = Followed(5)
    await followed.fill()
    followed.write(6, 7, 8)
    followed.log.changes = followed.log.changes[-keep:] if keep else [a_change(8, "new_timeline")]

    await followed.fill()

    assert (followed.held, followed.told, followed.breaks) == ([8], [], 1)


async def test_a_log_with_a_hole_breaks() -> None:
    """Somebody deleted an entry by hand; no change may be passed over in silence."""
    followed = Followed(5)
    await followed.fill()
    followed.write(6, 7, 8)
    del followed.log.changes[-2]

    await followed.fill()

    assert (followed.held, followed.told, followed.breaks) == ([8], [], 1)


async def test_another_history_breaks() -> None:
    """Also where its numbers fit."""
    followed = Followed(5)
    await followed.fill()
    followed.log.timeline = "h2"

    await followed.fill()

    assert followed.breaks == 1
    await followed.fill()
    assert followed.breaks == 1


async def test_what_came_after_the_fill_is_remembered_for_the_next_one() -> None:
    """The newest entry is the one that must read as it did, not the one filled at."""
    followed = Followed(3)
    await followed.fill()
    followed.write(4)
    followed.trail.append(followed.log.changes[-1])
    followed.log.changes[-1] = a_change(4, "add", an_agent("other", 4))

    await followed.fill()

    assert followed.breaks == 1


async def test_old_versions_are_read_from_the_log() -> None:
    """A replica that came later serves them as if it had been there; those who follow are not told again."""
    followed = Followed(9)
    await followed.fill()
    followed.log.max_entries_per_read = 2

    assert await followed.trail.extend_to(4)

    assert followed.held == [4, 5, 6, 7, 8, 9]
    assert followed.told == []
    assert await followed.trail.extend_to(2)
    assert followed.held == list(range(2, 10))


async def test_many_who_want_old_versions_read_them_once() -> None:
    """Together or one after the other."""
    followed = Followed(9)
    await followed.fill()

    assert await asyncio.gather(*(followed.trail.extend_to(3) for _ in range(50))) == [True] * 50
    assert await followed.trail.extend_to(6)

    assert followed.log.read_count == 1


@pytest.mark.parametrize("version", [3, 12, 99])
async def test_a_version_that_is_no_entry_is_not_reached(version: int) -> None:
    """Older than the log, between two entries, or not yet written."""
    followed = Followed(9)
    followed.write(11, 13)
    del followed.log.changes[:4]
    await followed.fill()

    assert not await followed.trail.extend_to(version)
    assert followed.held == [13]
    assert await followed.trail.extend_to(11)


async def test_a_log_trimmed_at_a_removal_hides_no_removal() -> None:
    """Whoever is before it must list again; whoever saw it goes on. As etcd once got wrong twice."""
    followed = Followed(4)
    followed.log.write(an_agent("a", 5), "remove")
    followed.write(6)
    del followed.log.changes[: followed.log.changes.index(next(c for c in followed.log.changes if c.kind == "remove"))]
    await followed.fill()

    assert not await followed.trail.extend_to(4)
    assert await followed.trail.extend_to(5)
    assert followed.held == [5, 6]


async def test_a_hole_between_an_old_version_and_what_is_held_is_not_bridged() -> None:
    """The version itself is there, but not all that came after it."""
    followed = Followed(9)
    del followed.log.changes[5]
    await followed.fill()

    assert not await followed.trail.extend_to(3)
    assert followed.held == [9]


async def test_a_lost_connection_is_trouble_and_not_a_lost_version() -> None:
    """Behind a new connection the log cannot be told to be the one that was followed.

    A watch that resumed just then was told 410, so all clients of a restarted store listed at once.
    """
    followed = Followed(9)
    await followed.fill()
    followed.log.forked = True

    with pytest.raises(StoreUnavailable):
        await followed.trail.extend_to(3)
    followed.write(10)
    with pytest.raises(StoreUnavailable):
        await followed.fill()

    followed.log.forked = False
    assert await followed.trail.extend_to(3)
    await followed.fill()
    assert (followed.told, followed.breaks) == ([10], 0)


async def test_a_store_that_is_away_is_no_answer() -> None:
    """Neither held nor gone; what was held before stays."""
    followed = Followed(9)
    await followed.fill()
    followed.log.unavailable = True

    with pytest.raises(StoreUnavailable) as refused:
        await followed.trail.extend_to(3)

    assert refused.value is STORE_UNAVAILABLE
    assert followed.held == [9]


async def test_what_came_while_the_log_was_read_backwards_stays() -> None:
    """A change is added, or the trail starts over, while the reader waits."""
    followed = Followed(9)
    await followed.fill()
    followed.log.read_gate = asyncio.Event()
    reaching = asyncio.create_task(followed.trail.extend_to(5))
    await asyncio.sleep(0)
    followed.write(10)
    followed.trail.append(followed.log.changes[-1])
    followed.log.read_gate.set()

    assert await reaching
    assert followed.held == [5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("more", [0, 1])
async def test_a_trail_that_starts_over_meanwhile_is_not_extended(more: int) -> None:
    """What was read belongs to another history, also where that ended at the number with which this one starts."""
    followed = Followed(9)
    await followed.fill()
    followed.log.read_gate = asyncio.Event()
    reaching = asyncio.create_task(followed.trail.extend_to(5))
    await asyncio.sleep(0)
    followed.write(*range(10, 10 + more))
    followed.log.timeline = "h2"
    await followed.fill()
    followed.log.read_gate.set()

    assert not await reaching
    assert followed.held == [9 + more]


async def test_the_history_stays_within_its_bound_over_a_bridge() -> None:
    """The oldest go; who follows was told of all of them."""
    followed = Followed(3, most=2)
    await followed.fill()
    followed.write(4, 5, 6, 7)

    await followed.fill()

    assert followed.told == [4, 5, 6, 7]
    assert followed.held == [5, 6, 7]
