"""Last heartbeats for lists: never more than a second old, and read in the cheaper of two ways."""

import asyncio
import random
from collections.abc import Sequence
from typing import TypeVar, cast

import pytest

from registry.cache.view import Record, View
from registry.errors import StoreUnavailable
from registry.model.change import LogPosition
from registry.service.discovery import last_heartbeats
from registry.service.discovery.last_heartbeats import MAX_HEARTBEAT_AGE_S, HeartbeatRefresher
from registry.store.agents import Agents, LastHeartbeats, RecentHeartbeats
from tests.support.builders import an_agent

AGENTS = 300

T = TypeVar("T")


class Clock:
    """The current time, as the monotonic clock of the registry and as the clock of Redis."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        """Stand in for the module `time`."""
        return self.now

    @property
    def server(self) -> int:
        """The same time by the clock of Redis, in milliseconds."""
        return int(self.now * 1000)


class FakeAgentStore:
    """Heartbeats as Redis stores them; counts the requests."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.times: dict[str, int] = {}
        self.lookups = 0
        self.polls = 0
        self.unavailable = False
        self.skew = 0

    def record_heartbeat(self, agent_id: str) -> None:
        """Store a heartbeat of an agent."""
        self.times[agent_id] = self.clock.server

    def last_heartbeats(self, agent_ids: Sequence[str]) -> "asyncio.Future[LastHeartbeats]":
        """Return the heartbeats of these agents."""
        self.lookups += len(agent_ids)
        return self._resolved_soon(LastHeartbeats([self.times.get(each) for each in agent_ids], self.clock.server))

    def heartbeats_since(self, moment: int | None) -> "asyncio.Future[RecentHeartbeats]":
        """Return all heartbeats since this time."""
        self.polls += 1
        low = self.clock.server - 5000 if moment is None else moment
        heartbeats = [(agent_id, at) for agent_id, at in self.times.items() if at >= low]
        return self._resolved_soon(RecentHeartbeats(heartbeats, self.clock.server + self.skew))

    def _resolved_soon(self, result: T) -> "asyncio.Future[T]":
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self.unavailable:
            future.get_loop().call_soon(future.set_exception, StoreUnavailable("away"))
        else:
            future.get_loop().call_soon(future.set_result, result)
        return future


class Mesh:
    """Agents in a view, and the refresher that reads their heartbeats."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.store = FakeAgentStore(clock)
        self.refresher = HeartbeatRefresher(cast(Agents, self.store))
        self.view = self.refill()

    def refill(self) -> View:
        """Fill a view with the current heartbeats of Redis."""
        self.view = View(LogPosition(1, "timeline"))
        for number in range(AGENTS):
            agent = an_agent(f"a{number}", number + 2)
            self.view.put(agent, self.store.times.get(agent.id), self.clock.now)
        return self.view

    @property
    def records(self) -> list[Record]:
        """All records of the view."""
        return [*self.view.records.values()]

    async def read(self, records: Sequence[Record]) -> None:
        """Refresh the records, and check that each heartbeat is at most a second old."""
        before = {
            agent_id: at
            for agent_id, at in self.store.times.items()
            if at <= (self.clock.now - MAX_HEARTBEAT_AGE_S) * 1000
        }
        await self.refresher.refresh(self.view, records)
        for record in records:
            assert (record.heartbeat or 0) >= before.get(record.agent.id, 0)
        assert self.clock.now - self.refresher.read_at(self.view, records) <= MAX_HEARTBEAT_AGE_S

    async def read_many_lists(self, seconds: int) -> None:
        """Read lists that cover all agents, twice a second."""
        for _ in range(2 * seconds):
            for at in range(0, AGENTS, 10):
                await self.read(self.records[at : at + 10])
            self.clock.now += 0.55


@pytest.fixture
def mesh(monkeypatch: pytest.MonkeyPatch) -> Mesh:
    """Provide a mesh with a low threshold for polling."""
    clock = Clock()
    monkeypatch.setattr(last_heartbeats, "time", clock)
    monkeypatch.setattr(last_heartbeats, "_MIN_LOOKUPS_FOR_POLLING", 100)
    return Mesh(clock)


async def test_a_few_heartbeats_are_looked_up_once_a_second(mesh: Mesh) -> None:
    """A cached heartbeat is not looked up again before it is stale."""
    for _ in range(6):
        await mesh.read(mesh.records[:10])
        await mesh.read(mesh.records[:10])
        mesh.clock.now += 1.1

    assert mesh.store.lookups == 5 * 10
    assert mesh.store.polls == 0


async def test_many_heartbeats_are_polled(mesh: Mesh) -> None:
    """While polling is on, no agent is looked up by id; one poll serves all lists for a second."""
    await mesh.read_many_lists(6)
    lookups, polls = mesh.store.lookups, mesh.store.polls

    await mesh.read_many_lists(10)

    assert mesh.store.lookups == lookups
    assert 5 <= mesh.store.polls - polls <= 11


async def test_polling_stops_when_demand_ends(mesh: Mesh) -> None:
    """A replica without reads does not poll."""
    await mesh.read_many_lists(6)
    mesh.clock.now += 60
    await mesh.read(mesh.records[:10])
    polls = mesh.store.polls

    mesh.clock.now += 60
    await mesh.read(mesh.records[:10])

    assert mesh.store.polls == polls


async def test_polling_does_not_start_when_too_many_agents_send_heartbeats(mesh: Mesh) -> None:
    """A poll would return more heartbeats than the lookups it replaces; the size of the last poll decides."""
    mesh.refresher._last_poll_count = 1_000_000

    await mesh.read_many_lists(4)

    assert mesh.store.polls == 0


@pytest.mark.parametrize("seed", range(20))
async def test_a_heartbeat_shown_is_never_more_than_a_second_old(mesh: Mesh, seed: int) -> None:
    """It holds with random heartbeats, refills, clock rollbacks and outages of the store."""
    chance = random.Random(seed)  # noqa: S311 - makes cases, guards nothing
    for _ in range(400):
        mesh.clock.now += chance.choice([0.01, 0.2, 0.7, 3.0])
        for agent_id in chance.sample(list(mesh.view.records), 20):
            mesh.store.record_heartbeat(agent_id)
        step = chance.random()
        mesh.store.skew = -60_000 if step < 0.02 else 0
        if step > 0.98:
            mesh.refill()
        mesh.store.unavailable = 0.95 < step < 0.97
        first = chance.randrange(AGENTS)
        try:
            await mesh.read(mesh.records[first : first + chance.choice([1, 10, 200])])
        except StoreUnavailable:
            assert mesh.store.unavailable


async def test_concurrent_reads_share_one_poll(mesh: Mesh) -> None:
    """The cancellation of one read does not affect the others."""
    await mesh.read_many_lists(6)
    mesh.clock.now += 1.5
    polls = mesh.store.polls
    reads = [asyncio.create_task(mesh.read(mesh.records[at : at + 10])) for at in range(0, AGENTS, 10)]
    await asyncio.sleep(0)
    reads[0].cancel()

    done = await asyncio.gather(*reads, return_exceptions=True)

    assert mesh.store.polls == polls + 1
    assert [type(each) for each in done if each is not None] == [asyncio.CancelledError]
