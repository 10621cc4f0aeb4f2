"""The shared history: bounded by count and by bytes, and never with a gap."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.cache.change_buffer import ChangeBuffer, ChangeEntry
from tests.support.builders import a_change, a_spec, an_agent

PLENTY = 1 << 30


def an_entry(version: int, *, text: str = "", prev: int | None = None) -> ChangeEntry:
    """Return an entry of some size."""
    return ChangeEntry(a_change(version, "add", an_agent("a", version, annotations={"text": text}), prev=prev))


def a_history(versions: Iterable[int], *, start: int = 0, most: int = 100, most_bytes: int = PLENTY) -> ChangeBuffer:
    """Return a history to which entries of these versions were added."""
    history = ChangeBuffer(start, most, most_bytes)
    for version in versions:
        history.append(an_entry(version))
    return history


def versions_of(entries: Iterable[ChangeEntry]) -> list[int]:
    """Return the versions of entries."""
    return [entry.version for entry in entries]


def test_a_new_history_holds_where_it_starts_and_nothing_else() -> None:
    """A watch may begin there."""
    history = ChangeBuffer(7, 10, PLENTY)

    assert (history.start_version, history.last_version) == (7, 7)
    assert history.contains(7)
    assert not history.contains(6)
    assert not history.contains(8)
    assert versions_of(history.since(7)) == []


def test_since_is_what_came_after_a_version() -> None:
    """Versions need not be dense; one that no entry has is not held."""
    history = a_history([12, 15, 20], start=10)

    assert history.last_version == 20
    assert [version for version in range(9, 22) if history.contains(version)] == [10, 12, 15, 20]
    assert versions_of(history.since(10)) == [12, 15, 20]
    assert versions_of(history.since(12)) == [15, 20]
    assert versions_of(history.since(20)) == []


def test_the_oldest_go_first() -> None:
    """The version of the last that went is where the history starts now: from there on nothing is missing."""
    history = a_history(range(1, 11), most=3)

    assert history.start_version == 7
    assert not history.contains(6)
    assert versions_of(history.since(7)) == [8, 9, 10]


def test_bytes_are_bounded_too() -> None:
    """A few large specs push out many small ones; the newest is dropped as well where it alone is too much."""
    small = an_entry(1).approximate_bytes
    history = a_history(range(1, 11), most_bytes=5 * small)

    assert versions_of(history.since(history.start_version)) == [6, 7, 8, 9, 10]
    large = an_entry(11, text="x" * (small // 4))
    assert small < large.approximate_bytes <= 2 * small + 100
    history.append(large)
    assert versions_of(history.since(history.start_version)) == [8, 9, 10, 11]
    history.append(an_entry(12, text="x" * 9 * small))
    assert (history.start_version, history.last_version) == (12, 12)
    history.append(an_entry(13))
    assert versions_of(history.since(12)) == [13]


def test_an_entry_weighs_the_specs_it_holds() -> None:
    """Before and after."""
    text = a_spec("a", annotations={"text": "x" * 5000})

    assert an_entry(1, text="x" * 5000).approximate_bytes > an_entry(1).approximate_bytes + 4900
    change = a_change(2, "modify", an_agent("a", 2))
    assert ChangeEntry(type(change)(2, 1, "modify", "t", change.agent, None, None, None, text)).approximate_bytes > 5000


def test_a_history_grows_backwards() -> None:
    """As if it had been there all along."""
    history = a_history(range(11, 14), start=10)

    history.prepend(6, [an_entry(version) for version in range(7, 11)])

    assert history.start_version == 6
    assert versions_of(history.since(6)) == list(range(7, 14))
    assert versions_of(history.since(11)) == [12, 13]
    history.append(an_entry(14))
    assert history.last_version == 14


def test_what_grew_backwards_is_bounded_with_the_next_entry() -> None:
    """Old versions are served for a moment; they never make the history larger for good."""
    history = a_history(range(11, 14), start=10, most=5)
    history.prepend(0, [an_entry(version) for version in range(1, 11)])

    history.append(an_entry(14))

    assert versions_of(history.since(history.start_version)) == [10, 11, 12, 13, 14]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_short_memory_is_compacted_again_and_again(most: int) -> None:
    """What was dropped is given back, however often; memory is that of a few entries."""
    history = a_history(range(1, 500), most=most)

    assert versions_of(history.since(history.start_version)) == list(range(500 - most, 500))
    assert len(history._entries) <= 2 * most + 1
    assert len(history._versions) == len(history._entries)


@given(
    steps=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3000)), max_size=60),
    most=st.integers(1, 10),
    most_bytes=st.integers(1500, 20_000),
)
def test_it_is_a_suffix_of_all_there_was(steps: list[tuple[int, int]], most: int, most_bytes: int) -> None:
    """Bounded, gapless from its start on, and it holds exactly the versions it has."""
    history, everything, version = ChangeBuffer(3, most, most_bytes), [3], 3
    for step, size in steps:
        version += step
        everything.append(version)
        history.append(an_entry(version, text="x" * size))

        held = history.since(history.start_version)
        assert versions_of(held) == everything[len(everything) - len(held) :]
        assert history.start_version == everything[-len(held) - 1]
        assert len(held) <= most
        assert sum(entry.approximate_bytes for entry in held) <= most_bytes
        assert [each for each in range(version + 2) if history.contains(each)] == [
            history.start_version,
            *versions_of(held),
        ]
