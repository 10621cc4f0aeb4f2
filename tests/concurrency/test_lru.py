"""What is kept has a bound, whatever it weighs."""

from registry.concurrency.lru import WeightedLru


def test_what_was_not_used_for_longest_goes_first() -> None:
    """As much of it as has to."""
    kept = WeightedLru[str, int](10)
    kept.put("a", 1, 4)
    kept.put("b", 2, 4)

    assert kept.get("a") == 1
    kept.put("c", 3, 5)

    assert (kept.get("a"), kept.get("b"), kept.get("c"), kept.weight) == (1, None, 3, 9)


def test_what_is_kept_anew_is_weighed_anew() -> None:
    """What was there before it counts no more."""
    kept = WeightedLru[str, int](10)
    kept.put("a", 1, 8)
    kept.put("a", 2, 3)
    kept.put("b", 3, 7)

    assert (kept.get("a"), kept.get("b"), kept.weight) == (2, 3, 10)


def test_what_is_too_heavy_is_not_kept() -> None:
    """And nothing is kept in its place."""
    kept = WeightedLru[str, int](10)
    kept.put("a", 1, 11)

    assert (kept.get("a"), kept.weight) == (None, 0)
    kept.put("b", 1, 1)
    kept.clear()
    assert (kept.get("b"), kept.weight) == (None, 0)


def test_evictions_are_reported_and_removals_are_not() -> None:
    """With key and value; what was replaced, removed or cleared is known to the caller."""
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
