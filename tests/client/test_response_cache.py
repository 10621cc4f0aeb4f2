"""The response cache is bounded, returns copies, and is stale after a write."""

import time

import pytest
from mcp_mesh_client.response_cache import CachedResponse, ResponseCache


def put(cache: ResponseCache, key: str, body: bytes = b'{"a":[1]}') -> None:
    """Store a response in the cache."""
    cache.put(key, CachedResponse(body, None, time.monotonic(), cache.write_count))


def test_the_least_recently_used_response_is_evicted_first() -> None:
    """A read counts as a use."""
    cache = ResponseCache(2, 10)
    put(cache, "a")
    put(cache, "b")
    cache.get("a")
    put(cache, "c")

    assert [key for key in "abc" if cache.get(key)] == ["a", "c"]


def test_the_size_in_bytes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A response larger than the limit is not stored."""
    monkeypatch.setattr("mcp_mesh_client.response_cache._MAX_CACHE_BYTES", 10)
    cache = ResponseCache(100, 10)
    for key in "abc":
        put(cache, key, b"[1234]")
    put(cache, "d", b"[12345678901]")

    assert [key for key in "abcd" if cache.get(key)] == ["c"]
    cache.remove("c")
    assert cache._total_bytes == 0


def test_callers_cannot_change_a_cached_response() -> None:
    """Each call decodes a new object."""
    cache = ResponseCache(2, 10)
    put(cache, "a")
    cached = cache.get("a")
    assert cached is not None

    cached.decode()["a"].append(2)

    assert cached.decode() == {"a": [1]}


def test_a_response_is_fresh_for_its_ttl_and_until_a_write() -> None:
    """A confirmed response is fresh again, with the version of the confirmation."""
    cache = ResponseCache(2, 10)
    put(cache, "a", b'{"resource_version":"1"}')
    cached = cache.get("a")
    assert cached is not None
    assert cache.is_fresh(cached)

    cache.invalidate_all()
    assert not cache.is_fresh(cached)
    cached.confirm("7", time.monotonic(), cache.write_count)
    assert cache.is_fresh(cached)
    assert cached.decode() == {"resource_version": "7"}
    cached.fetched_at -= 10
    assert not cache.is_fresh(cached)


def test_a_cache_of_size_0_stores_nothing() -> None:
    """A TTL of 0 makes every response stale."""
    empty, without_ttl = ResponseCache(0, 10), ResponseCache(1, 0)
    put(empty, "a")
    put(without_ttl, "a")
    cached = without_ttl.get("a")
    assert cached is not None

    assert empty.get("a") is None
    assert not without_ttl.is_fresh(cached)
