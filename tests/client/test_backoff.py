"""Pauses that grow, and spread."""

import pytest
from mcp_mesh_client.backoff import Backoff


def test_the_bound_doubles_to_its_most_and_the_pause_is_anywhere_below(monkeypatch: pytest.MonkeyPatch) -> None:
    """Full jitter: from 0 to the bound; a success begins anew."""
    bounds: list[tuple[float, float]] = []

    def widest(low: float, high: float) -> float:
        bounds.append((low, high))
        return high

    monkeypatch.setattr("random.uniform", widest)
    backoff = Backoff(0.1, 300)

    for _ in range(14):
        backoff.next_pause()
    backoff.reset()
    backoff.next_pause()

    assert bounds[:4] == [(0, 0.1), (0, 0.2), (0, 0.4), (0, 0.8)]
    assert bounds[12:14] == [(0, 300), (0, 300)]
    assert bounds[14] == (0, 0.1)
