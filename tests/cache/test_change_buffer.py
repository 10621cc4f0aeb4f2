"""The change buffer is bounded by count and by bytes, and never has a gap."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.cache.change_buffer import ChangeBuffer, ChangeEntry
from tests.support.builders import a_change, a_spec, an_agent

PLENTY = 1 << 30


def an_entry(version: int, *, text: str = "", prev: int | None = None) -> ChangeEntry:
    """Return an entry whose annotation is `text`."""
    return ChangeEntry(a_change(version, "add", an_agent("a", version, annotations={"text": text}), prev=prev))


def a_buffer(versions: Iterable[int], *, start: int = 0, most: int = 100, most_bytes: int = PLENTY) -> ChangeBuffer:
    """Return a buffer to which entries of these versions were appended."""
    buffer = ChangeBuffer(start, most, most_bytes)
    for version in versions:
        buffer.append(an_entry(version))
    return buffer


def versions_of(entries: Iterable[ChangeEntry]) -> list[int]:
    """Return the versions of entries."""
    return [entry.version for entry in entries]


def test_a_new_buffer_contains_only_its_start_version() -> None:
    """A watch may start at that version."""
    buffer = ChangeBuffer(7, 10, PLENTY)

    assert (buffer.start_version, buffer.last_version) == (7, 7)
    assert buffer.contains(7)
    assert not buffer.contains(6)
    assert not buffer.contains(8)
    assert versions_of(buffer.since(7)) == []


def test_since_returns_the_entries_after_a_version() -> None:
    """Versions need not be consecutive; a version without an entry is not contained."""
    buffer = a_buffer([12, 15, 20], start=10)

    assert buffer.last_version == 20
    assert [version for version in range(9, 22) if buffer.contains(version)] == [10, 12, 15, 20]
    assert versions_of(buffer.since(10)) == [12, 15, 20]
    assert versions_of(buffer.since(12)) == [15, 20]
    assert versions_of(buffer.since(20)) == []


def test_the_oldest_entries_are_dropped_first() -> None:
    """The buffer then starts at the version of the last dropped entry, so no entry is missing after its start."""
    buffer = a_buffer(range(1, 11), most=3)

    assert buffer.start_version == 7
    assert not buffer.contains(6)
    assert versions_of(buffer.since(7)) == [8, 9, 10]


def test_bytes_are_bounded_too() -> None:
    """A few large specs push out many small ones; an entry above the limit is dropped even if it is the newest."""
    small = an_entry(1).approximate_bytes
    buffer = a_buffer(range(1, 11), most_bytes=5 * small)

    assert versions_of(buffer.since(buffer.start_version)) == [6, 7, 8, 9, 10]
    large = an_entry(11, text="x" * (small // 4))
    assert small < large.approximate_bytes <= 2 * small + 100
    buffer.append(large)
    assert versions_of(buffer.since(buffer.start_version)) == [8, 9, 10, 11]
    buffer.append(an_entry(12, text="x" * 9 * small))
    assert (buffer.start_version, buffer.last_version) == (12, 12)
    buffer.append(an_entry(13))
    assert versions_of(buffer.since(12)) == [13]


def test_the_size_of_an_entry_includes_its_specs() -> None:
    """Both the spec after the change and the spec before it count."""
    text = a_spec("a", annotations={"text": "x" * 5000})

    assert an_entry(1, text="x" * 5000).approximate_bytes > an_entry(1).approximate_bytes + 4900
    change = a_change(2, "modify", an_agent("a", 2))
    assert ChangeEntry(type(change)(2, 1, "modify", "t", change.agent, None, None, None, text)).approximate_bytes > 5000


def test_older_entries_can_be_prepended() -> None:
    """The buffer then behaves as if it had contained them from the beginning."""
    buffer = a_buffer(range(11, 14), start=10)

    buffer.prepend(6, [an_entry(version) for version in range(7, 11)])

    assert buffer.start_version == 6
    assert versions_of(buffer.since(6)) == list(range(7, 14))
    assert versions_of(buffer.since(11)) == [12, 13]
    buffer.append(an_entry(14))
    assert buffer.last_version == 14


def test_prepended_entries_are_dropped_at_the_next_append() -> None:
    """Old versions are served for a moment; they do not enlarge the buffer permanently."""
    buffer = a_buffer(range(11, 14), start=10, most=5)
    buffer.prepend(0, [an_entry(version) for version in range(1, 11)])

    buffer.append(an_entry(14))

    assert versions_of(buffer.since(buffer.start_version)) == [10, 11, 12, 13, 14]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_small_buffer_is_compacted_repeatedly(most: int) -> None:
    """Dropped entries are freed each time, so the buffer never stores more than a few of them."""
    buffer = a_buffer(range(1, 500), most=most)

    assert versions_of(buffer.since(buffer.start_version)) == list(range(500 - most, 500))
    assert len(buffer._entries) <= 2 * most + 1
    assert len(buffer._versions) == len(buffer._entries)


@given(
    steps=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3000)), max_size=60),
    most=st.integers(1, 10),
    most_bytes=st.integers(1500, 20_000),
)
def test_it_is_a_suffix_of_all_versions(steps: list[tuple[int, int]], most: int, most_bytes: int) -> None:
    """The buffer is bounded, has no gap after its start, and contains exactly its own versions."""
    buffer, everything, version = ChangeBuffer(3, most, most_bytes), [3], 3
    for step, size in steps:
        version += step
        everything.append(version)
        buffer.append(an_entry(version, text="x" * size))

        entries = buffer.since(buffer.start_version)
        assert versions_of(entries) == everything[len(everything) - len(entries) :]
        assert buffer.start_version == everything[-len(entries) - 1]
        assert len(entries) <= most
        assert sum(entry.approximate_bytes for entry in entries) <= most_bytes
        assert [each for each in range(version + 2) if buffer.contains(each)] == [
            buffer.start_version,
            *versions_of(entries),
        ]
