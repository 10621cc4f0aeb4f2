"""The LRU cache stays within its maximum weight."""

from registry.concurrency.lru import WeightedLru


def test_the_least_recently_used_entry_is_evicted_first() -> None:
    """Only as many entries as the new one requires."""
    cache = WeightedLru[str, int](10)
    cache.put("a", 1, 4)
    cache.put("b", 2, 4)

    assert cache.get("a") == 1
    cache.put("c", 3, 5)

    assert (cache.get("a"), cache.get("b"), cache.get("c"), cache.weight) == (1, None, 3, 9)


def test_a_replaced_value_has_the_new_weight() -> None:
    """The weight of the replaced value no longer counts."""
    cache = WeightedLru[str, int](10)
    cache.put("a", 1, 8)
    cache.put("a", 2, 3)
    cache.put("b", 3, 7)

    assert (cache.get("a"), cache.get("b"), cache.weight) == (2, 3, 10)


def test_a_value_above_the_maximum_weight_is_not_stored() -> None:
    """No other value is stored in its place."""
    cache = WeightedLru[str, int](10)
    cache.put("a", 1, 11)

    assert (cache.get("a"), cache.weight) == (None, 0)
    cache.put("b", 1, 1)
    cache.clear()
    assert (cache.get("b"), cache.weight) == (None, 0)


def test_a_value_above_the_maximum_weight_is_stored_on_request() -> None:
    """It replaces all others, and the next one replaces it."""
    cache = WeightedLru[str, int](10, store_oversized=True)
    cache.put("a", 1, 1)
    cache.put("b", 2, 11)

    assert (cache.get("a"), cache.get("b"), cache.weight) == (None, 2, 11)
    cache.put("c", 3, 1)
    assert (cache.get("b"), cache.get("c"), cache.weight) == (None, 3, 1)


def test_evictions_are_reported_and_removals_are_not() -> None:
    """With key and value; the caller itself replaces, removes and clears entries."""
    evicted: list[tuple[str, int]] = []
    cache = WeightedLru[str, int](10, on_evict=lambda key, value: evicted.append((key, value)))
    cache.put("a", 1, 4)
    cache.put("a", 2, 4)
    cache.put("b", 3, 7)
    cache.remove("b")
    cache.remove("unknown")
    cache.put("c", 4, 1)
    cache.put("d", 5, 11)

    assert evicted == [("a", 2), ("d", 5)]
    assert (len(cache), cache.weight) == (1, 1)
