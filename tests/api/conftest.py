"""A registry in this process, on the test's own store, spoken to over HTTP without a network."""

from collections.abc import AsyncIterator

import httpx2
import pytest

from tests.support.in_process_registry import in_process_registry


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[httpx2.AsyncClient]:
    """Provide a client of a replica whose settings are the defaults."""
    async with in_process_registry(redis_url) as client:
        yield client
