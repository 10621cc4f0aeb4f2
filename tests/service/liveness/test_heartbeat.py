"""What agents are told when they beat, on a replica that has trouble of its own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import orjson

from registry.cache.reflector import Feed
from registry.config.settings import Settings
from registry.model.registration.parse import read_registration
from registry.service.discovery.discovery import Discovery
from registry.service.liveness.agent_health import Liveness
from registry.service.liveness.heartbeat import Wiring
from registry.service.registration.registration import Registrations
from registry.service.resolution.cycle_guard import Edges
from registry.service.resolution.load_cache import Loads
from registry.service.resolution.match_policy import RuleBook
from registry.service.resolution.ranking_cache import Rankings
from registry.service.resolution.resolver import Resolutions
from registry.store.store import Store


@contextlib.asynccontextmanager
async def followed(feed: Feed) -> AsyncIterator[None]:
    """Let a feed follow the log, and be up to date at the end."""
    running = asyncio.create_task(feed.run())
    try:
        yield
        await feed.fresh()
    finally:
        running.cancel()
        await asyncio.wait({running})


async def test_a_heartbeat_counts_where_news_is_late(store: Store, settings: Settings) -> None:
    """A replica that filled its cache, or was busy, refused heartbeats of all who need something, after two seconds.

    They are taken now, and answered from what the replica holds; what it does not know yet comes with the next.
    """
    feed, resolutions = Feed(store.changes), Resolutions(Rankings(RuleBook()), Loads(store.wires))
    registrations = Registrations(store.agents, Edges(feed, store.agents), settings)
    liveness = Liveness(store.agents, Discovery(feed, store.agents))
    wiring = Wiring(feed, store.agents, store.wires, registrations, liveness, resolutions)

    async def register(agent_id: str, *needs: str) -> None:
        tool = {"function_name": "f", "capability": agent_id, "dependencies": list(needs)}
        sent = {"agent_id": agent_id, "metadata": {"endpoint": "http://a:1", "tools": [tool]}}
        await registrations.register(read_registration(sent))

    async def told() -> Any:
        at, body = await wiring.beat("me")
        assert (await store.agents.last_heard(["me"])).at == [at]
        return orjson.loads(b"{%s}" % body.removeprefix(b","))["dependencies_resolved"]["f"]["date"]

    async with followed(feed):
        await register("me", "date")
    await register("date")
    late = await told()
    async with followed(feed):
        soon = await told()

    assert late is None
    assert soon["agent_id"] == "date"
