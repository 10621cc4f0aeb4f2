"""What is kept because it may be asked for again, with a bound in bytes: what a client sends may be of any size."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class WeightedLru(Generic[Key, Value]):
    """A least-recently-used cache, bounded by the total weight of its values."""

    def __init__(self, max_weight: int) -> None:
        self._max_weight = max_weight
        self._entries: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self.weight = 0

    def get(self, key: Key) -> Value | None:
        """Return what is kept, None for nothing."""
        found = self._entries.get(key)
        if found is None:
            return None
        self._entries.move_to_end(key)
        return found[0]

    def put(self, key: Key, value: Value, weight: int) -> None:
        """Keep a value in the place of what was kept before; one that weighs more than all may is not kept."""
        before = self._entries.pop(key, None)
        self.weight += weight - (before[1] if before is not None else 0)
        self._entries[key] = value, weight
        while self.weight > self._max_weight:
            _, (_, lost) = self._entries.popitem(last=False)
            self.weight -= lost

    def clear(self) -> None:
        """Keep nothing."""
        self._entries.clear()
        self.weight = 0
