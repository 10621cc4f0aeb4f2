"""A registry in this process, called over ASGI."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx2

from registry.compat.mcpmesh.spec_fields import McpMeshSpec
from registry.config.settings import Settings
from registry.main import open_registry
from registry.model.agent import use_spec_type
from tests.support.http_calls import REQUEST_TIMEOUT_S
from tests.support.polling import async_wait_until


@contextlib.asynccontextmanager
async def in_process_registry(url: str, **fields: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """Provide a client of a running registry on the store at `url`, once it is ready; `fields` are settings."""
    async with open_registry(Settings(redis_url=url, **fields)) as registry:
        transport = httpx2.ASGITransport(registry.api_app, raise_app_exceptions=True)
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://localhost", timeout=REQUEST_TIMEOUT_S
        ) as client:
            await async_wait_until(lambda: registry.status.ready, description="the replica is ready")
            yield client
    use_spec_type(McpMeshSpec)  # a setting may have selected another type for this process
