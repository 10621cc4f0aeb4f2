"""Responses to heartbeats while the cache is behind or the store fails."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

import orjson
import pytest

from registry.cache.reflector import Reflector
from registry.config.settings import Settings
from registry.errors import StoreUnavailable, UnknownAgent
from registry.model.registration.parse import parse_registration
from registry.service.liveness.heartbeat_service import HeartbeatService
from registry.service.registration.registration_service import RegistrationService
from registry.service.resolution.cycle_guard import CycleGuard
from registry.service.resolution.resolution_traces import ResolutionTraces
from registry.store.agents import Agents, HeartbeatOutcome, HeartbeatResult
from registry.store.store import Store
from tests.support.reflectors import make_reflector
from tests.support.resolution_builders import make_resolver


class FakeStore:
    """A store whose response to a heartbeat depends on the id."""

    def __init__(self) -> None:
        self.results: dict[str, HeartbeatOutcome | Exception] = {
            "gone": "unknown_agent",
            "broken": "bad_record",
            "away": StoreUnavailable("away", outcome="unknown"),
        }
        self.waiting = self.max_waiting = self.calls = 0

    def heartbeat(self, agent_id: str, *, load: str, response_digest: str) -> "asyncio.Task[HeartbeatResult]":
        """Return the result one loop iteration later."""
        assert (load, response_digest) == ("", "")
        return asyncio.create_task(self._respond(agent_id))

    async def _respond(self, agent_id: str) -> HeartbeatResult:
        self.calls += 1
        self.waiting += 1
        self.max_waiting = max(self.max_waiting, self.waiting)
        await asyncio.sleep(0)
        self.waiting -= 1
        result = self.results.get(agent_id, "healthy")
        if isinstance(result, Exception):
            raise result
        return HeartbeatResult(result, 1_000, 0)


def heartbeats_over_fake_store() -> tuple[HeartbeatService, FakeStore]:
    """Return a service over a fake store, and the store; it only records heartbeats."""
    store, nothing = FakeStore(), cast(Any, None)
    return HeartbeatService(nothing, cast(Agents, store), nothing, nothing, nothing, {}), store


@contextlib.asynccontextmanager
async def following(reflector: Reflector) -> AsyncIterator[None]:
    """Let a reflector follow the log, and be up to date at the end."""
    running = asyncio.create_task(reflector.run())
    try:
        yield
        await reflector.wait_fresh()
    finally:
        running.cancel()
        await asyncio.wait({running})


async def test_a_heartbeat_is_accepted_while_the_cache_is_behind(store: Store, settings: Settings) -> None:
    """A replica with a stale cache rejected heartbeats of all agents with dependencies after two seconds.

    The response is now built from the cached state; the next one contains the newer providers.
    """
    reflector, resolutions = (
        make_reflector(store.change_log),
        make_resolver(store.resolution_store),
    )
    traces = ResolutionTraces(reflector, store.agents, store.resolution_store, resolutions, lambda *_: {})
    registrations = RegistrationService(store.agents, CycleGuard(reflector, store.agents), traces, settings, {})
    heartbeats = HeartbeatService(reflector, store.agents, registrations, resolutions, traces, {})

    async def register(agent_id: str, *capabilities: str) -> None:
        tool = {"function_name": "f", "capability": agent_id, "dependencies": list(capabilities)}
        sent = {"agent_id": agent_id, "metadata": {"endpoint": "http://a:1", "tools": [tool]}}
        await registrations.register(parse_registration(sent))

    async def resolved_provider() -> Any:
        at, body = await heartbeats.heartbeat("me")
        assert (await store.agents.last_heartbeats(["me"])).times == [at]
        return orjson.loads(b"{%s}" % body.removeprefix(b","))["dependencies_resolved"]["f"]["date"]

    async with following(reflector):
        await register("me", "date")
    await register("date")
    first = await resolved_provider()
    async with following(reflector):
        second = await resolved_provider()

    assert first is None
    assert second["agent_id"] == "date"


@pytest.mark.parametrize("tools_before", [None, [{"function_name": "f", "capability": "me"}]])
async def test_dependencies_registered_through_another_replica_are_in_the_next_response(
    store: Store, settings: Settings, tools_before: list[dict[str, Any]] | None
) -> None:
    """This replica has the agent without dependencies, and detects its registration by the stored digest."""
    reflector, resolutions = make_reflector(store.change_log), make_resolver(store.resolution_store)
    traces = ResolutionTraces(reflector, store.agents, store.resolution_store, resolutions, lambda *_: {})
    registrations = RegistrationService(store.agents, CycleGuard(reflector, store.agents), traces, settings, {})
    heartbeats = HeartbeatService(reflector, store.agents, registrations, resolutions, traces, {})
    other_reflector, other_resolver = make_reflector(store.change_log), make_resolver(store.resolution_store)
    other_traces = ResolutionTraces(
        other_reflector, store.agents, store.resolution_store, other_resolver, lambda *_: {}
    )
    other = RegistrationService(store.agents, CycleGuard(other_reflector, store.agents), other_traces, settings, {})
    before: dict[str, Any] = {"agent_id": "me", "endpoint": "http://a:1"}
    if tools_before is not None:
        before = {"agent_id": "me", "metadata": {"endpoint": "http://a:1", "tools": tools_before}}
    tool = {"function_name": "f", "capability": "me", "dependencies": ["date"]}
    after = {"agent_id": "me", "metadata": {"endpoint": "http://a:1", "tools": [tool]}}

    async with following(reflector), following(other_reflector):
        await registrations.register_and_resolve(parse_registration(before))
        await heartbeats.heartbeat("me")
        await other.register_and_resolve(parse_registration(after))
        _, body = await heartbeats.heartbeat("me")

    assert b'"dependencies_resolved":{"f":{"date":null}}' in body
    assert (await store.agents.heartbeat("me")).response_digest.encode() in body


async def test_heartbeats_of_many_agents_succeed_or_fail_one_by_one() -> None:
    """The results follow the order of the ids; a damaged record is an error of the store."""
    heartbeats, _ = heartbeats_over_fake_store()

    results = await heartbeats.heartbeat_many(["a", "gone", "b", "broken", "away", "a"])

    assert [result if isinstance(result, int) else type(result) for result in results] == [
        1_000,
        UnknownAgent,
        1_000,
        StoreUnavailable,
        StoreUnavailable,
        1_000,
    ]
    assert "damaged" in str(results[3])
    assert "away" in str(results[4])


async def test_a_thousand_heartbeats_leave_room_for_other_requests() -> None:
    """At most 200 heartbeats of one request are in flight, so that it cannot fill the queue of the store."""
    heartbeats, store = heartbeats_over_fake_store()

    assert len(await heartbeats.heartbeat_many([f"a{n}" for n in range(1000)])) == 1000

    assert store.calls == 1000
    assert store.max_waiting <= 200
