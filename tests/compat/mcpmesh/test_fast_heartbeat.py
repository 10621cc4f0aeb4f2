"""HEAD heartbeats while Redis is slow or unavailable: a healthy agent never gets an error."""

import asyncio
from typing import Any, cast

import pytest

from registry.cache.reflector import Reflector
from registry.compat.mcpmesh.fast_heartbeat import FastHeartbeats
from registry.errors import StoreUnavailable
from registry.store.agents import Agents, HeartbeatResult
from tests.support.builders import an_agent
from tests.support.polling import async_wait_until
from tests.support.resolution_builders import make_resolver, view_of

QUEUE_FULL = StoreUnavailable("Too many requests wait for Redis; try again shortly", reason="queue_full")


class FakeAgentStore:
    """A store that completes heartbeats when the test decides, or rejects them."""

    def __init__(self) -> None:
        self.error: StoreUnavailable | None = None
        self.heartbeats: list[asyncio.Future[HeartbeatResult]] = []

    def heartbeat(self, _agent_id: str, _mode: str) -> "asyncio.Future[HeartbeatResult]":
        """Receive a heartbeat."""
        if self.error is not None:
            raise self.error
        self.heartbeats.append(asyncio.get_running_loop().create_future())
        return self.heartbeats[-1]


class FakeReflector:
    """A reflector with a view that receives no changes."""

    following = True

    def __init__(self) -> None:
        capabilities = [{"name": "c", "function_name": "f", "dependencies": [{"capability": "d"}]}]
        self.view = view_of(an_agent("a", capabilities=capabilities), an_agent("expired", status="expired"))


@pytest.fixture
def store() -> FakeAgentStore:
    """Provide a store that does not respond yet."""
    return FakeAgentStore()


@pytest.fixture
def reflector() -> FakeReflector:
    """Provide a reflector that follows the store."""
    return FakeReflector()


@pytest.fixture
def fast_heartbeats(reflector: FakeReflector, store: FakeAgentStore) -> FastHeartbeats:
    """Provide the heartbeat service over both."""
    resolutions = make_resolver(cast(Any, None))
    return FastHeartbeats(cast(Reflector, reflector), cast(Agents, store), resolutions)


async def test_healthy_agents_are_accepted_while_the_queue_is_full(
    store: FakeAgentStore, fast_heartbeats: FastHeartbeats
) -> None:
    """After a 503 the SDK sends five times as many heartbeats; other agents get one, because their state is unknown."""
    store.error = QUEUE_FULL

    assert await fast_heartbeats.extend("a") == "unchanged"
    for agent_id in "expired", "unknown":
        with pytest.raises(StoreUnavailable) as caught:
            await fast_heartbeats.extend(agent_id)
        assert caught.value.reason == "queue_full"


async def test_a_late_result_of_the_store_counts_at_the_next_heartbeat(
    store: FakeAgentStore, fast_heartbeats: FastHeartbeats
) -> None:
    """The call to the store continues after the response."""
    assert await fast_heartbeats.extend("a") == "unchanged"
    (late,) = store.heartbeats
    assert not late.cancelled()
    late.set_result(HeartbeatResult("healthy", 1, 0, "another digest"))
    await asyncio.sleep(0)

    assert await fast_heartbeats.extend("a") == "changed"


async def test_an_agent_is_not_sent_twice_to_fetch_the_same_change(
    store: FakeAgentStore, fast_heartbeats: FastHeartbeats
) -> None:
    """It fetches from another replica, which does not notify this one; its old digest would never be replaced.

    Found with three replicas and a Redis with 200 ms latency: agents that had just fetched were sent again.
    """
    await respond_late(store, fast_heartbeats, "another digest")
    assert await fast_heartbeats.extend("a") == "changed"

    assert await fast_heartbeats.extend("a") == "unchanged"
    store.heartbeats[-1].set_result(HeartbeatResult("healthy", 2, 0, "another digest"))
    await asyncio.sleep(0)
    assert await fast_heartbeats.extend("a") == "changed"


async def test_no_agent_is_sent_to_fetch_while_the_store_is_unavailable(
    reflector: FakeReflector, store: FakeAgentStore, fast_heartbeats: FastHeartbeats
) -> None:
    """It would get a 503 and retry again and again."""
    await respond_late(store, fast_heartbeats, "another digest")

    reflector.following = False
    assert await fast_heartbeats.extend("a") == "unchanged"
    reflector.following = True
    store.error = QUEUE_FULL
    assert await fast_heartbeats.extend("a") == "unchanged"


async def respond_late(store: FakeAgentStore, fast_heartbeats: FastHeartbeats, digest: str) -> None:
    """Let the replica receive the stored digest of the agent after its response."""
    assert await fast_heartbeats.extend("a") == "unchanged"
    store.heartbeats[-1].set_result(HeartbeatResult("healthy", 1, 0, digest))
    await asyncio.sleep(0)


@pytest.mark.parametrize("agent_id", ["unknown", "expired"])
async def test_an_agent_that_is_not_known_as_healthy_waits_for_the_store(
    agent_id: str, store: FakeAgentStore, fast_heartbeats: FastHeartbeats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a 503 the SDK would send five times as many heartbeats; nothing shows what the right response is."""
    monkeypatch.setattr("registry.compat.mcpmesh.fast_heartbeat._REDIS_TIMEOUT_S", 0.001)
    response = asyncio.create_task(fast_heartbeats.extend(agent_id))
    await asyncio.wait([response], timeout=0.1)
    assert not response.done()

    store.heartbeats[0].set_result(HeartbeatResult("unknown_agent", 1, 0))

    assert await response == "unknown"


async def test_the_caller_gets_the_reason_for_an_unknown_agent(
    store: FakeAgentStore, fast_heartbeats: FastHeartbeats
) -> None:
    """The store did not respond within its own timeout."""
    response = asyncio.create_task(fast_heartbeats.extend("unknown"))
    await async_wait_until(lambda: store.heartbeats, description="the heartbeat is sent")
    store.heartbeats[0].set_exception(QUEUE_FULL)

    with pytest.raises(StoreUnavailable) as caught:
        await response
    assert caught.value.reason == "queue_full"
