"""A least-recently-used cache whose bound is the total weight of its values, such as their size in bytes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class WeightedLru(Generic[Key, Value]):
    """A least-recently-used cache, bounded by the total weight of its values.

    `on_evict` is called with each entry that is dropped to stay within the bound. With `store_oversized` a value
    heavier than the bound is stored too: it evicts all others, and stays until the next `put`.
    """

    def __init__(
        self,
        max_weight: int,
        on_evict: Callable[[Key, Value], None] = lambda _key, _value: None,
        *,
        store_oversized: bool = False,
    ) -> None:
        self._max_weight = max_weight
        self._store_oversized = store_oversized
        self._on_evict = on_evict
        self._entries: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self.weight = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> Value | None:
        """Return the cached value of a key, or None."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: Key, value: Value, weight: int) -> None:
        """Cache a value as the most recently used; by default one heavier than the whole cache is dropped at once."""
        self.remove(key)
        if weight > self._max_weight and not self._store_oversized:
            self._on_evict(key, value)
            return
        self.weight += weight
        self._entries[key] = value, weight
        while self.weight > self._max_weight and len(self._entries) > 1:
            oldest_key, (oldest_value, oldest_weight) = self._entries.popitem(last=False)
            self.weight -= oldest_weight
            self._on_evict(oldest_key, oldest_value)

    def remove(self, key: Key) -> None:
        """Drop the value of a key, if the cache has one; `on_evict` is not called."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.weight -= entry[1]

    def clear(self) -> None:
        """Drop all cached values; `on_evict` is not called."""
        self._entries.clear()
        self.weight = 0
