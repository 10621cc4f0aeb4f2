"""What agents are told when they beat, on a replica that has trouble of its own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import orjson

from registry.cache.reflector import Reflector
from registry.compat.mcpmesh.policy import match_policies
from registry.config.settings import Settings
from registry.model.registration.parse import parse_registration
from registry.service.discovery.discovery import Discovery
from registry.service.liveness.agent_health import HeartbeatRecorder
from registry.service.liveness.heartbeat import HeartbeatService
from registry.service.registration.registration import RegistrationService
from registry.service.resolution.cycle_guard import CycleGuard
from registry.service.resolution.load_cache import LoadCache
from registry.service.resolution.ranking_cache import RankingCache
from registry.service.resolution.resolver import DependencyResolver
from registry.store.store import Store
from tests.support.reflectors import make_reflector


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
        DependencyResolver(RankingCache(match_policies()), LoadCache(store.resolution_store)),
    )
    registrations = RegistrationService(store.agents, CycleGuard(feed, store.agents), settings)
    liveness = HeartbeatRecorder(store.agents, Discovery(feed, store.agents))
    wiring = HeartbeatService(feed, store.agents, store.resolution_store, registrations, liveness, resolutions)

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
