"""What filters may say of statuses; everything else is refused with a hint."""

import pytest

from registry.errors import MalformedRequest
from registry.service.discovery.statuses import expand_status

WORDS = {
    "pending": ("pending",),
    "healthy": ("healthy",),
    "degraded": ("degraded",),
    "expired": ("expired",),
    "unhealthy": ("degraded", "expired"),
    "offline": ("expired",),
    "any": ("pending", "healthy", "degraded", "expired"),
}


@pytest.mark.parametrize(("word", "means"), WORDS.items())
def test_a_status_word_stands_for_statuses(word: str, means: tuple[str, ...]) -> None:
    """The four, two that stand for several, and `any`."""
    assert expand_status(word, "status") == means


@pytest.mark.parametrize("word", ["", "Healthy", "all", "unknown", "healthy,degraded", "x" * 1000])
def test_another_status_word_is_refused_with_those_there_are(word: str) -> None:
    """The field is named, and the answer short."""
    with pytest.raises(MalformedRequest) as refused:
        expand_status(word, "agent_status")

    (detail,) = refused.value.details
    assert detail.field == "agent_status"
    assert all(known in detail.problem for known in WORDS)
    assert len(detail.problem) < 250
