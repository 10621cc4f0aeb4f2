"""What agents are told when they beat, on a replica that has trouble of its own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

import orjson

from registry.cache.reflector import Reflector
from registry.config.settings import Settings
from registry.errors import StoreUnavailable, UnknownAgent
from registry.model.registration.parse import parse_registration
from registry.service.liveness.heartbeat import HeartbeatService
from registry.service.registration.registration import RegistrationService
from registry.service.resolution.cycle_guard import CycleGuard
from registry.service.resolution.traces import ResolutionTraces
from registry.store.agents import Agents, HeartbeatOutcome, HeartbeatResult
from registry.store.store import Store
from tests.support.reflectors import make_reflector
from tests.support.resolution_builders import make_resolver


class FakeStore:
    """A store whose answer to a heartbeat depends on the id."""

    def __init__(self) -> None:
        self.answers: dict[str, HeartbeatOutcome | Exception] = {
            "gone": "unknown_agent",
            "broken": "bad_record",
            "away": StoreUnavailable("away", outcome="unknown"),
        }
        self.waiting = self.most = self.calls = 0

    def heartbeat(self, agent_id: str, *, load: str, response_digest: str) -> "asyncio.Task[HeartbeatResult]":
        """Answer a tick later."""
        assert (load, response_digest) == ("", "")
        return asyncio.create_task(self._answer(agent_id))

    async def _answer(self, agent_id: str) -> HeartbeatResult:
        self.calls += 1
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        await asyncio.sleep(0)
        self.waiting -= 1
        answer = self.answers.get(agent_id, "healthy")
        if isinstance(answer, Exception):
            raise answer
        return HeartbeatResult(answer, 1_000)


def heartbeats_over_fake_store() -> tuple[HeartbeatService, FakeStore]:
    """Return a service that only records heartbeats, and its store."""
    store, nothing = FakeStore(), cast(Any, None)
    return HeartbeatService(nothing, cast(Agents, store), nothing, nothing, nothing, {}), store


@contextlib.asynccontextmanager
async def followed(feed: Reflector) -> AsyncIterator[None]:
    """Let a feed follow the log, and be up to date at the end."""
    running = asyncio.create_task(feed.run())
    try:
        yield
        await feed.wait_fresh()
    finally:
        running.cancel()
        await asyncio.wait({running})


async def test_a_heartbeat_counts_where_news_is_late(store: Store, settings: Settings) -> None:
    """A replica that filled its cache, or was busy, refused heartbeats of all who need something, after two seconds.

    They are taken now, and answered from what the replica holds; what it does not know yet comes with the next.
    """
    feed, resolutions = (
        make_reflector(store.change_log),
        make_resolver(store.resolution_store),
    )
    traces = ResolutionTraces(feed, store.agents, store.resolution_store, resolutions, lambda *_: {})
    registrations = RegistrationService(store.agents, CycleGuard(feed, store.agents), traces, settings, {})
    wiring = HeartbeatService(feed, store.agents, registrations, resolutions, traces, {})

    async def register(agent_id: str, *needs: str) -> None:
        tool = {"function_name": "f", "capability": agent_id, "dependencies": list(needs)}
        sent = {"agent_id": agent_id, "metadata": {"endpoint": "http://a:1", "tools": [tool]}}
        await registrations.register(parse_registration(sent))

    async def told() -> Any:
        at, body = await wiring.heartbeat("me")
        assert (await store.agents.last_heartbeats(["me"])).times == [at]
        return orjson.loads(b"{%s}" % body.removeprefix(b","))["dependencies_resolved"]["f"]["date"]

    async with followed(feed):
        await register("me", "date")
    await register("date")
    late = await told()
    async with followed(feed):
        soon = await told()

    assert late is None
    assert soon["agent_id"] == "date"


async def test_many_succeed_or_fail_each_alone_in_the_order_given() -> None:
    """Each agent has one result; an unknown agent is unknown, a damaged record is an error of the store."""
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


async def test_a_thousand_leave_room_for_others() -> None:
    """At most 200 heartbeats of one request are in flight, so that it cannot fill the queue of the store."""
    heartbeats, store = heartbeats_over_fake_store()

    assert len(await heartbeats.heartbeat_many([f"a{n}" for n in range(1000)])) == 1000

    assert store.calls == 1000
    assert store.most <= 200
