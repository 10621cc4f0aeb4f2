"""Heartbeats in, health out."""

import asyncio
from typing import Any, cast

import pytest

from registry.cache.view import Record
from registry.errors import StoreUnavailable, UnknownAgent
from registry.model.agent import Status
from registry.service.discovery.discovery import AgentSnapshot, Discovery
from registry.service.liveness.agent_health import HeartbeatRecorder
from registry.store.agents import Agents, HeartbeatOutcome, HeartbeatResult
from tests.support.builders import an_agent


class Store:
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


def liveness(sight: AgentSnapshot | None = None) -> tuple[HeartbeatRecorder, Store]:
    """Return a liveness over that store, which sees one agent."""

    class Seeing:
        async def agent(self, _agent_id: str) -> AgentSnapshot | None:
            return sight

    store = Store()
    return HeartbeatRecorder(cast(Agents, store), cast(Discovery, Seeing())), store


async def test_a_heartbeat_is_the_time_it_was_taken_at_or_an_error() -> None:
    """Unknown is unknown; a damaged record is trouble of the store, never 404."""
    live, _ = liveness()

    assert await live.record("a") == 1_000
    with pytest.raises(UnknownAgent):
        await live.record("gone")
    with pytest.raises(StoreUnavailable, match="damaged"):
        await live.record("broken")
    with pytest.raises(StoreUnavailable, match="away"):
        await live.record("away")


async def test_many_succeed_or_fail_each_alone_in_the_order_given() -> None:
    """One result for each, whatever became of the others."""
    live, _ = liveness()

    results = await live.record_many(["a", "gone", "b", "broken", "away", "a"])

    assert [result if isinstance(result, int) else type(result) for result in results] == [
        1_000,
        UnknownAgent,
        1_000,
        StoreUnavailable,
        StoreUnavailable,
        1_000,
    ]


async def test_a_thousand_leave_room_for_others() -> None:
    """They go to the store a call's worth at a time, so that one request cannot fill its queue."""
    live, store = liveness()

    assert len(await live.record_many([f"a{n}" for n in range(1000)])) == 1000

    assert store.calls == 1000
    assert store.most <= 200


HEALTH: list[tuple[Status, int | None, dict[str, Any], int | None, int]] = [
    ("pending", None, {}, None, 30_000),
    ("pending", None, {"health_interval": 7.5}, None, 7_500),
    ("healthy", 5_000, {}, 95_000, 35_000),
    ("healthy", 5_000, {"health_interval": 1}, 95_000, 6_000),
    ("degraded", 99_999, {}, 1, 129_999),
    ("expired", 200_000, {}, 0, 230_000),
]


@pytest.mark.parametrize(("status", "heartbeat", "fields", "since", "expected"), HEALTH)
async def test_health_is_told_by_the_redis_servers_clock(
    status: Status, heartbeat: int | None, fields: dict[str, Any], since: int | None, expected: int
) -> None:
    """Now is 100 s, the timeout 60 s; before the first heartbeat there is none to count from, and never less than 0."""
    record = Record(an_agent("a", status=status, **fields), heartbeat, 0.0)
    live, _ = liveness(AgentSnapshot(record, 100_000, None))

    health = await live.health("a")

    assert (health.status, health.last_heartbeat, health.elapsed_ms, health.next_heartbeat) == (
        status,
        heartbeat,
        since,
        expected,
    )
    assert health.message
