"""Answers that are kept: bounded, unchangeable from outside, and not trusted after a write."""

import time

import pytest
from mcp_mesh_client.response_cache import CachedResponse, ResponseCache


def held_in(kept: ResponseCache, key: str, body: bytes = b'{"a":[1]}') -> None:
    """Keep an answer."""
    kept.put(key, CachedResponse(body, None, time.monotonic(), kept.write_count))


def test_the_least_used_goes_first() -> None:
    """Looking at one is using it."""
    kept = ResponseCache(2, 10)
    held_in(kept, "a")
    held_in(kept, "b")
    kept.get("a")
    held_in(kept, "c")

    assert [key for key in "abc" if kept.get(key)] == ["a", "c"]


def test_bytes_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is too large alone is not kept at all."""
    monkeypatch.setattr("mcp_mesh_client.response_cache._MAX_CACHE_BYTES", 10)
    kept = ResponseCache(100, 10)
    for key in "abc":
        held_in(kept, key, b"[1234]")
    held_in(kept, "d", b"[12345678901]")

    assert [key for key in "abcd" if kept.get(key)] == ["c"]
    kept.remove("c")
    assert kept._total_bytes == 0


def test_who_got_an_answer_cannot_change_it() -> None:
    """Each gets a new one."""
    kept = ResponseCache(2, 10)
    held_in(kept, "a")
    held = kept.get("a")
    assert held is not None

    held.decode()["a"].append(2)

    assert held.decode() == {"a": [1]}


def test_an_answer_is_good_for_its_time_and_until_a_write() -> None:
    """A confirmed one is good again, at the version of the confirmation."""
    kept = ResponseCache(2, 10)
    held_in(kept, "a", b'{"resource_version":"1"}')
    held = kept.get("a")
    assert held is not None
    assert kept.is_fresh(held)

    kept.invalidate_all()
    assert not kept.is_fresh(held)
    held.confirm("7", time.monotonic(), kept.write_count)
    assert kept.is_fresh(held)
    assert held.decode() == {"resource_version": "7"}
    held.fetched_at -= 10
    assert not kept.is_fresh(held)


def test_nothing_is_kept_where_nothing_may_be() -> None:
    """And nothing is good for no time."""
    none, forgetful = ResponseCache(0, 10), ResponseCache(1, 0)
    held_in(none, "a")
    held_in(forgetful, "a")
    held = forgetful.get("a")
    assert held is not None

    assert none.get("a") is None
    assert not forgetful.is_fresh(held)
