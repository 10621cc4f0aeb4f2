"""A duration is a number of seconds or a text with a unit, wherever the client takes one."""

import pytest
from mcp_mesh_client import CapabilityTimeout, InvalidData, RegistryClient
from mcp_mesh_client.config import load_config
from mcp_mesh_client.durations import check_duration, to_seconds

from registry.duration import parse_duration
from tests.support.served_registry import served_registry


@pytest.mark.parametrize("text", ["30", "1.5", "500ms", "30s", "1.5m", "2h", "7d", "1h30m", "1d2h3m4s5ms", " 30s "])
def test_a_text_is_read_as_the_registry_reads_it(text: str) -> None:
    """In settings, registrations and queries."""
    assert to_seconds(text, "timeout") == pytest.approx(parse_duration(text).total_seconds())


@pytest.mark.parametrize("text", ["", "soon", "1h30", "30m1h", "-5s", "1s2s", "5us"])
def test_another_text_is_invalid(text: str) -> None:
    """The error names the field."""
    with pytest.raises(InvalidData, match=r"^timeout: expected a number of seconds, or a text such as 500ms"):
        to_seconds(text, "timeout")


@pytest.mark.parametrize("value", [0, -1, "0s", True, None, 1e9, "400d"])
def test_a_duration_is_positive_and_at_most_a_year(value: object) -> None:
    """Where zero has no meaning."""
    with pytest.raises(InvalidData, match=r"^health_interval: expected seconds above 0"):
        check_duration(value, "health_interval")


def test_the_options_of_a_client_are_durations() -> None:
    """A time to live may be 0."""
    config = load_config(None, None, timeout="500ms", attempt_timeout=0.2, cache_ttl="0", offline_ttl="1h30m")

    assert (config.timeout, config.attempt_timeout, config.cache_ttl, config.offline_ttl) == (0.5, 0.2, 0, 5400)
    with pytest.raises(InvalidData, match=r"^timeout: expected above 0"):
        load_config(None, None, timeout="0s")


async def test_the_waits_of_a_client_are_durations(redis_url: str) -> None:
    """For a capability, and for a change of a list."""
    async with served_registry(redis_url) as served, RegistryClient(served.url) as client:
        with pytest.raises(CapabilityTimeout, match=r"after 0\.05 s"):
            await client.wait_for("nothing", timeout="50ms")
        listed = await client.agents(wait="50ms")

    assert "error" not in listed
    assert listed["agents"] == []
