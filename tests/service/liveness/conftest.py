"""Fixtures of the tests of leader election and the sweep."""

from collections.abc import AsyncIterator

import pytest
import redis

from tests.service.liveness.sweeping_replicas import Replica
from tests.support.server_time import clear_outage


@pytest.fixture
def no_outage(redis_client: redis.Redis) -> None:
    """Delete the record of the last outage."""
    clear_outage(redis_client)


@pytest.fixture
async def pair(redis_url: str) -> AsyncIterator[tuple[Replica, Replica]]:
    """Provide two replicas on one store; the first leads."""
    one, two = Replica(redis_url, "one"), Replica(redis_url, "two")
    assert await one.tick()
    assert not await two.tick()
    yield one, two
    await one.store.close()
    await two.store.close()
