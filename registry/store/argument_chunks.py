"""Splits a long sequence, so that a large read or write is sent to Redis as several commands."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Return slices of a sequence with at most `size` items each; no slice for an empty sequence."""
    return (items[start : start + size] for start in range(0, len(items), size))
