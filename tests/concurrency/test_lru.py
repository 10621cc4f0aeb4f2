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
