"""Last heartbeats for lists: never older than a second, and asked for in whichever way asks for less."""

import asyncio
import random
from collections.abc import Sequence
from typing import TypeVar

import pytest

from registry.cache.view import Record, View
from registry.errors import StoreUnavailable
from registry.model.change import LogPosition
from registry.service.discovery import heartbeat_times
from registry.service.discovery.heartbeat_times import MAX_HEARTBEAT_AGE_S, HeartbeatRefresher
from registry.store.agents import LastHeartbeats, RecentHeartbeats
from tests.support.builders import an_agent

AGENTS = 300

T = TypeVar("T")


class Clock:
    """The moment, for the registry's monotonic clock and for the server's."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        """Stand in for the module `time`."""
        return self.now

    @property
    def server(self) -> int:
        """The same moment by the clock of Redis, in milliseconds."""
        return int(self.now * 1000)


class Times:
    """Heartbeats as Redis has them, and what was asked."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.at: dict[str, int] = {}
        self.asked = 0
        self.looks = 0
        self.away = False
        self.skew = 0

    def beat(self, agent_id: str) -> None:
        """Let an agent beat."""
        self.at[agent_id] = self.clock.server

    def last_heartbeats(self, agent_ids: Sequence[str]) -> "asyncio.Future[LastHeartbeats]":
        """Answer as the store does."""
        self.asked += len(agent_ids)
        return self._answered(LastHeartbeats([self.at.get(each) for each in agent_ids], self.clock.server))

    def heartbeats_since(self, moment: int | None) -> "asyncio.Future[RecentHeartbeats]":
        """Answer as the store does."""
        self.looks += 1
        low = self.clock.server - 5000 if moment is None else moment
        beats = [(agent_id, at) for agent_id, at in self.at.items() if at >= low]
        return self._answered(RecentHeartbeats(beats, self.clock.server + self.skew))

    def _answered(self, answer: T) -> "asyncio.Future[T]":
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self.away:
            future.get_loop().call_soon(future.set_exception, StoreUnavailable("away"))
        else:
            future.get_loop().call_soon(future.set_result, answer)
        return future


class Mesh:
    """Some agents in a view, whose last heartbeats are learnt by a hearing."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.times = Times(clock)
        self.hearing = HeartbeatRefresher(self.times)
        self.view = self.another_view()

    def another_view(self) -> View:
        """Fill a view with what Redis has now."""
        self.view = View(LogPosition(1, "history"))
        for number in range(AGENTS):
            agent = an_agent(f"a{number}", number + 2)
            self.view.put(agent, self.times.at.get(agent.id), self.clock.now)
        return self.view

    @property
    def records(self) -> list[Record]:
        """All of them."""
        return [*self.view.records.values()]

    async def read(self, records: Sequence[Record]) -> None:
        """Hear, and hold what is known then against the truth of a second ago."""
        before = {
            agent_id: at
            for agent_id, at in self.times.at.items()
            if at <= (self.clock.now - MAX_HEARTBEAT_AGE_S) * 1000
        }
        await self.hearing.refresh(self.view, records)
        for record in records:
            assert (record.heartbeat or 0) >= before.get(record.agent.id, 0)
        assert self.clock.now - self.hearing.read_at(self.view, records) <= MAX_HEARTBEAT_AGE_S

    async def busy(self, seconds: int) -> None:
        """Read many lists, twice a second all of them."""
        for _ in range(2 * seconds):
            for at in range(0, AGENTS, 10):
                await self.read(self.records[at : at + 10])
            self.clock.now += 0.55


@pytest.fixture
def mesh(monkeypatch: pytest.MonkeyPatch) -> Mesh:
    """Provide a mesh in which few are many."""
    clock = Clock()
    monkeypatch.setattr(heartbeat_times, "time", clock)
    monkeypatch.setattr(heartbeat_times, "_MIN_LOOKUPS_FOR_POLLING", 100)
    return Mesh(clock)


async def test_few_are_asked_for_one_by_one_and_once_a_second(mesh: Mesh) -> None:
    """What is known is not asked again before it is old."""
    for _ in range(6):
        await mesh.read(mesh.records[:10])
        await mesh.read(mesh.records[:10])
        mesh.clock.now += 1.1

    assert mesh.times.asked == 5 * 10
    assert mesh.times.looks == 0


async def test_many_are_learnt_by_looks_and_not_asked_for(mesh: Mesh) -> None:
    """Once looks have begun, who was heard of since is not asked for any more; a look serves a second."""
    await mesh.busy(6)
    asked, looks = mesh.times.asked, mesh.times.looks

    await mesh.busy(10)

    assert mesh.times.asked == asked
    assert 5 <= mesh.times.looks - looks <= 11


async def test_looks_end_with_the_demand(mesh: Mesh) -> None:
    """A quiet replica does not look."""
    await mesh.busy(6)
    mesh.clock.now += 60
    await mesh.read(mesh.records[:10])
    looks = mesh.times.looks

    mesh.clock.now += 60
    await mesh.read(mesh.records[:10])

    assert mesh.times.looks == looks


async def test_looks_do_not_begin_where_more_beat_than_are_asked_for(mesh: Mesh) -> None:
    """They would cost more than they save; what was learnt of their size is remembered."""
    mesh.hearing._last_poll_count = 1_000_000

    await mesh.busy(4)

    assert mesh.times.looks == 0


@pytest.mark.parametrize("seed", range(20))
async def test_what_is_shown_is_never_older_than_a_second(mesh: Mesh, seed: int) -> None:
    """Whatever beats when, through new views, clocks that step back and a store that is away now and then."""
    chance = random.Random(seed)  # noqa: S311 - makes cases, guards nothing
    for _ in range(400):
        mesh.clock.now += chance.choice([0.01, 0.2, 0.7, 3.0])
        for agent_id in chance.sample(list(mesh.view.records), 20):
            mesh.times.beat(agent_id)
        step = chance.random()
        mesh.times.skew = -60_000 if step < 0.02 else 0
        if step > 0.98:
            mesh.another_view()
        mesh.times.away = 0.95 < step < 0.97
        first = chance.randrange(AGENTS)
        try:
            await mesh.read(mesh.records[first : first + chance.choice([1, 10, 200])])
        except StoreUnavailable:
            assert mesh.times.away


async def test_those_who_look_at_once_share_one_look(mesh: Mesh) -> None:
    """And one of them who is cancelled takes nothing from the others."""
    await mesh.busy(6)
    mesh.clock.now += 1.5
    looks = mesh.times.looks
    reads = [asyncio.create_task(mesh.read(mesh.records[at : at + 10])) for at in range(0, AGENTS, 10)]
    await asyncio.sleep(0)
    reads[0].cancel()

    done = await asyncio.gather(*reads, return_exceptions=True)

    assert mesh.times.looks == looks + 1
    assert [type(each) for each in done if each is not None] == [asyncio.CancelledError]
