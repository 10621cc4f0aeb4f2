"""Late heartbeats: when they are read, and that every resolution that depends on them changes."""

from typing import Any, cast

import pytest

from registry.cache.view import View
from registry.service.resolution import late_providers
from registry.store.agents import Agents
from registry.store.redis_health import ProbeResult
from tests.support.builders import an_agent
from tests.support.resolution_builders import FakeHeartbeats, make_resolver, provider_agent, view_of

CONSUMER = an_agent("me", capabilities=[{"name": "g", "function_name": "f", "dependencies": [{"capability": "c"}]}])


class Clock:
    """The monotonic clock and the clock of Redis, which the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, heartbeats: FakeHeartbeats) -> None:
        self._heartbeats = heartbeats
        self._now_s = 1_000.0
        for module in ("late_providers", "resolver"):
            monkeypatch.setattr(f"registry.service.resolution.{module}.time.monotonic", lambda: self._now_s)

    def advance(self, seconds: float) -> None:
        """Move both clocks."""
        self._now_s += seconds
        self._heartbeats.now += round(seconds * 1000)


class Mesh:
    """A consumer with a resolver, and providers whose heartbeats the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, view: View) -> None:
        self.heartbeats = FakeHeartbeats()
        self.heartbeats.now = 1_000_000
        self.clock = Clock(monkeypatch, self.heartbeats)
        self.resolver = make_resolver(None, self.heartbeats)
        self.view = view

    def heartbeat(self, *agent_ids: str) -> None:
        """Send heartbeats."""
        self.heartbeats.by_agent |= dict.fromkeys(agent_ids, self.heartbeats.now)

    async def provider(self) -> Any:
        """Return the provider that the consumer receives with a heartbeat."""
        record = self.view.records["me"]
        resolution = self.resolver.find_current(self.view, record)
        if resolution is None:
            resolution = await self.resolver.resolve_current(self.view, record)
        assert self.resolver.resolve(self.view, record) is resolution
        return resolution.response_fields["dependencies_resolved"]["f"]["c"]["agent_id"]


@pytest.fixture
def mesh(monkeypatch: pytest.MonkeyPatch) -> Mesh:
    """Provide two equal providers whose timeout is 60 s: each is late after 45 s."""
    return Mesh(monkeypatch, view_of(CONSUMER, provider_agent("old", created=1), provider_agent("new", created=2)))


async def test_a_provider_with_a_late_heartbeat_is_replaced_until_its_next_heartbeat(mesh: Mesh) -> None:
    """The consumer receives the other one, although nothing changed in the change log."""
    mesh.heartbeat("old", "new")
    assert await mesh.provider() == "new"
    mesh.clock.advance(30)
    mesh.heartbeat("old")
    assert await mesh.provider() == "new"

    mesh.clock.advance(15.5)
    assert await mesh.provider() == "old"
    mesh.heartbeat("new")
    mesh.clock.advance(2)
    assert await mesh.provider() == "new"


async def test_a_provider_is_not_read_again_before_it_can_be_late(mesh: Mesh) -> None:
    """One read covers both providers until the first can be late; after that a late one is read every two seconds."""
    mesh.heartbeat("old", "new")
    for _ in range(45):
        assert await mesh.provider() == "new"
        mesh.clock.advance(0.99)
    assert mesh.heartbeats.requests == [["new", "old"]]

    mesh.heartbeat("old")
    for _ in range(10):
        mesh.clock.advance(0.99)
        assert await mesh.provider() == "old"
    assert len(mesh.heartbeats.requests) <= 7


async def test_providers_that_are_all_late_are_ranked_as_before(mesh: Mesh) -> None:
    """After an outage, for example, before its end is known."""
    mesh.heartbeat("old", "new")
    mesh.clock.advance(50)

    assert await mesh.provider() == "new"


async def test_a_single_provider_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be reordered."""
    mesh = Mesh(monkeypatch, view_of(CONSUMER, provider_agent("only")))

    assert await mesh.provider() == "only"
    assert mesh.heartbeats.requests == []


async def test_the_interval_of_the_registration_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a health interval of 5 s a provider is late after 7.5 s."""
    quick = an_agent("quick", capabilities=[{"name": "c", "version": "1.0.0"}], health_interval=5)
    mesh = Mesh(monkeypatch, view_of(CONSUMER, quick, provider_agent("slow")))
    mesh.heartbeat("quick", "slow")
    assert await mesh.provider() == "quick"

    mesh.clock.advance(7.4)
    assert await mesh.provider() == "quick"
    mesh.clock.advance(0.2)
    assert await mesh.provider() == "slow"


async def test_providers_are_not_late_because_of_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time counts from the end of the outage, as it does for the status."""
    heartbeats = FakeHeartbeats()
    heartbeats.now = 1_000_000
    clock = Clock(monkeypatch, heartbeats)
    probe = ProbeResult(0, 1_040_000)
    late = late_providers.LateProviders(cast(Agents, heartbeats), lambda: probe)
    resolver = make_resolver(None, heartbeats)
    view = view_of(CONSUMER, provider_agent("a"), provider_agent("b"))
    ranking = resolver.ranking(view, CONSUMER, CONSUMER.indexed.capabilities[0].dependencies[0])
    heartbeats.by_agent = {"a": 1_000_000, "b": 1_000_000}

    clock.advance(50)
    await late.refresh(view, [ranking])
    assert late.late == set()
    clock.advance(36)
    await late.refresh(view, [ranking])
    assert late.late == {"a", "b"}


async def test_unknown_agents_are_dropped_when_there_are_too_many(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then all heartbeats are read again."""
    monkeypatch.setattr(late_providers, "_MAX_KNOWN_AGENTS", 1)
    mesh.heartbeat("old")
    mesh.heartbeats.by_agent["new"] = mesh.heartbeats.now - 46_000
    assert await mesh.provider() == "old"
    mesh.clock.advance(2)

    assert await mesh.provider() == "old"
