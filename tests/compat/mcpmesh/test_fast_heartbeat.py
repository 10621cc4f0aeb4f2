"""Signs of life where Redis is slow, or not there: who is healthy is never sent away."""

import asyncio
from typing import Any, cast

import pytest

from registry.cache.reflector import Reflector
from registry.compat.mcpmesh.fast_heartbeat import FastHeartbeats
from registry.errors import StoreUnavailable
from registry.store.agents import Agents, HeartbeatResult
from tests.support.builders import an_agent
from tests.support.resolution_builders import make_resolver, view_of

CROWDED = StoreUnavailable("Too many requests wait for Redis; try again shortly", reason="queue_full")


class Slow:
    """A store whose heartbeats are answered when the test says so, or refused."""

    def __init__(self) -> None:
        self.refuses: StoreUnavailable | None = None
        self.beats: list[asyncio.Future[HeartbeatResult]] = []

    def heartbeat(self, _agent_id: str, _mode: str) -> "asyncio.Future[HeartbeatResult]":
        """Take a heartbeat."""
        if self.refuses is not None:
            raise self.refuses
        self.beats.append(asyncio.get_running_loop().create_future())
        return self.beats[-1]


class Held:
    """A feed that holds a view and gets no news."""

    following = True

    def __init__(self) -> None:
        needs = [{"name": "c", "function_name": "f", "dependencies": [{"capability": "d"}]}]
        self.view = view_of(an_agent("a", capabilities=needs), an_agent("unknown", status="expired"))


@pytest.fixture
def store() -> Slow:
    """A store that does not answer yet."""
    return Slow()


@pytest.fixture
def feed() -> Held:
    """A feed that follows the store."""
    return Held()


@pytest.fixture
def keeping(feed: Held, store: Slow) -> FastHeartbeats:
    """What keeps agents over these."""
    resolutions = make_resolver(cast(Any, None))
    return FastHeartbeats(cast(Reflector, feed), cast(Agents, store), resolutions)


async def test_the_healthy_are_kept_where_too_many_wait(store: Slow, keeping: FastHeartbeats) -> None:
    """They were told 503, and each sends five times as much then; of others nothing is known."""
    store.refuses = CROWDED

    assert await keeping.extend("a") == "unchanged"
    for agent_id in "unknown", "nobody":
        with pytest.raises(StoreUnavailable) as caught:
            await keeping.extend(agent_id)
        assert caught.value.reason == "queue_full"


async def test_what_the_store_says_late_is_known_at_the_next_sign_of_life(store: Slow, keeping: FastHeartbeats) -> None:
    """The call goes on when nobody waits for it any more, and counts."""
    assert await keeping.extend("a") == "unchanged"
    (late,) = store.beats
    assert not late.cancelled()
    late.set_result(HeartbeatResult("healthy", 1, "another digest"))
    await asyncio.sleep(0)

    assert await keeping.extend("a") == "changed"


async def test_who_was_sent_to_ask_is_not_sent_again_by_what_was_known_before(
    store: Slow, keeping: FastHeartbeats
) -> None:
    """Another replica answers it, and this one does not hear of that: it knew the old digest for ever.

    Found with three replicas and a Redis that took 200 ms: agents that had just asked were sent to ask again.
    """
    await _told_late(store, keeping, "another digest")
    assert await keeping.extend("a") == "changed"

    assert await keeping.extend("a") == "unchanged"
    store.beats[-1].set_result(HeartbeatResult("healthy", 2, "another digest"))
    await asyncio.sleep(0)
    assert await keeping.extend("a") == "changed"


async def test_nobody_is_sent_to_ask_a_store_that_is_away(feed: Held, store: Slow, keeping: FastHeartbeats) -> None:
    """It would be answered 503, and try again and again; it was told 202 where its answer had changed before."""
    await _told_late(store, keeping, "another digest")

    feed.following = False
    assert await keeping.extend("a") == "unchanged"
    feed.following = True
    store.refuses = CROWDED
    assert await keeping.extend("a") == "unchanged"


async def _told_late(store: Slow, keeping: FastHeartbeats, digest: str) -> None:
    """Let the replica learn what the agent was told last, too late for the one who waits."""
    assert await keeping.extend("a") == "unchanged"
    store.beats[-1].set_result(HeartbeatResult("healthy", 1, digest))
    await asyncio.sleep(0)


async def test_who_waits_for_an_unknown_agent_is_told_why(store: Slow, keeping: FastHeartbeats) -> None:
    """Nothing says that it is alive."""
    with pytest.raises(StoreUnavailable) as caught:
        await keeping.extend("nobody")

    assert caught.value.reason == "timeout"
    store.beats[0].set_exception(CROWDED)
    await asyncio.sleep(0)
