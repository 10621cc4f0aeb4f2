"""A registry in this process behind a real socket, for behaviour of the HTTP server."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2

from registry.config.settings import Settings
from registry.http_server.connection_table import ConnectionLimits, ConnectionTable
from registry.http_server.listener import Listener
from registry.main import Registry, open_registry
from tests.support.http_calls import REQUEST_TIMEOUT_S
from tests.support.polling import async_wait_until


@dataclass(frozen=True)
class ServedRegistry:
    """A running registry, its URL, a client of it, and its connections with the reasons of those it refused."""

    registry: Registry
    url: str
    client: httpx2.AsyncClient
    connections: ConnectionTable
    refused: Counter[str]

    async def advance(self, seconds: int) -> None:
        """Advance the clock of the deadlines of connections; the event loop closes those that are late."""
        for _ in range(seconds):
            self.connections.tick()
            await asyncio.sleep(0)


def _count(counter: Counter[str], name: str) -> None:
    counter[name] += 1


@contextlib.asynccontextmanager
async def served_registry(
    redis_url: str, limits: ConnectionLimits | None = None, /, **fields: Any
) -> AsyncIterator[ServedRegistry]:
    """Provide a registry on the store at `redis_url`, once it is ready; `fields` are settings."""
    refused: Counter[str] = Counter()
    async with open_registry(Settings(redis_url=redis_url, **fields)) as registry:
        with Listener(
            "127.0.0.1", 0, "--port", limits or ConnectionLimits(), lambda reason: refused.update([reason])
        ) as listener:
            listener.start(registry.api_app)
            try:
                async with httpx2.AsyncClient(base_url=listener.url, timeout=REQUEST_TIMEOUT_S) as client:
                    await async_wait_until(lambda: registry.status.ready, description="the replica is ready")
                    yield ServedRegistry(registry, listener.url, client, listener.connections, refused)
            finally:
                registry.close_streams()
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    await listener.stop()
