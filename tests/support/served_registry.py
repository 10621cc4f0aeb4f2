"""A registry in this process behind a real socket, for behaviour of the HTTP server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2

from registry.config.settings import Settings
from registry.http_server.listener import Listener
from registry.main import Registry, open_registry
from tests.support.http_calls import REQUEST_TIMEOUT_S
from tests.support.polling import async_wait_until


@dataclass(frozen=True)
class ServedRegistry:
    """A running registry, its URL and a client of it."""

    registry: Registry
    url: str
    client: httpx2.AsyncClient


@contextlib.asynccontextmanager
async def served_registry(redis_url: str, **fields: Any) -> AsyncIterator[ServedRegistry]:
    """Provide a registry on the store at `redis_url`, once it is ready; `fields` are settings."""
    async with open_registry(Settings(redis_url=redis_url, **fields)) as registry:
        with Listener("127.0.0.1", 0, "--port") as listener:
            listener.start(registry.api_app)
            try:
                async with httpx2.AsyncClient(base_url=listener.url, timeout=REQUEST_TIMEOUT_S) as client:
                    await async_wait_until(lambda: registry.status.ready, description="the replica is ready")
                    yield ServedRegistry(registry, listener.url, client)
            finally:
                registry.close_streams()
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    await listener.stop()
