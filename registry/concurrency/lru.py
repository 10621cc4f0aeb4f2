"""What is kept because it may be asked for again, with a bound in bytes: what a client sends may be of any size."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Bounded(Generic[Key, Value]):
    """Keeps values up to `most` of whatever they are weighed in; those that were not used for longest go first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self.weight = 0

    def get(self, key: Key) -> Value | None:
        """Return what is kept, None for nothing."""
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def put(self, key: Key, value: Value, weight: int) -> None:
        """Keep a value in the place of what was kept before; one that weighs more than all may is not kept."""
        before = self._kept.pop(key, None)
        self.weight += weight - (before[1] if before is not None else 0)
        self._kept[key] = value, weight
        while self.weight > self._most:
            _, (_, lost) = self._kept.popitem(last=False)
            self.weight -= lost

    def clear(self) -> None:
        """Keep nothing."""
        self._kept.clear()
        self.weight = 0
