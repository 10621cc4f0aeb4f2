"""The primary dies, freezes or is demoted while agents register and clients watch: a short gap, and never a lie."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx2
import pytest
import redis

from registry.model.agent import Agent
from registry.store.codec import change_from
from tests.support.polling import async_wait_until
from tests.support.redis_sentinels import DOWN_AFTER, Guarded
from tests.support.redis_server import RedisServer
from tests.support.served_registry import Served, serving
from tests.support.watch_client import asking
from tests.support.watch_recorder import Past, Recording, check

GAP = DOWN_AFTER + 3
LOG = "{mesh}:log"


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    """Provide a primary, a replica and three Sentinels."""
    with Guarded() as running:
        yield running


@contextlib.asynccontextmanager
async def two(url: str, **fields: Any) -> AsyncIterator[list[Served]]:
    """Provide two replicas of the registry."""
    async with serving(url, **fields) as one, serving(url, **fields) as other:
        yield [one, other]


@dataclass
class Writer:
    """Registers one new agent after the other through each replica in turn, and notes what it was told and when."""

    replicas: list[Served]
    accepted: dict[str, float] = field(default_factory=dict)
    refused: list[httpx2.Response] = field(default_factory=list)

    async def run(self) -> None:
        """Write for ever."""
        number = 0
        while True:
            agent_id = f"a{number}"
            client = self.replicas[number % len(self.replicas)].client
            answer = await client.post("/agents", json={"id": agent_id, "endpoint": "http://a:1"})
            if answer.status_code == 200:
                self.accepted[agent_id] = time.monotonic()
            else:
                self.refused.append(answer)
            number += 1
            await asyncio.sleep(0.01)

    @property
    def gap(self) -> float:
        """The longest time without an accepted write, in seconds."""
        times = [*self.accepted.values(), time.monotonic()]
        return max(after - before for before, after in itertools.pairwise(times))


@dataclass
class Watcher:
    """Lists, watches from there, resumes where a stream ends, and lists again where it must."""

    replica: Served
    recordings: list[Recording] = field(default_factory=list)

    async def run(self) -> None:
        """Watch for ever."""
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                await self._from_a_list()
            await asyncio.sleep(0.02)

    async def _from_a_list(self) -> None:
        listed = await self.replica.client.get("/agents")
        if listed.status_code != 200:
            return
        body = listed.json()
        state = {agent["id"]: int(agent["resource_version"]) for agent in body["agents"]}
        recording = Recording(_everything, int(body["resource_version"]), state)
        self.recordings.append(recording)
        while await self._watch(recording):
            recording.resume()

    async def _watch(self, recording: Recording) -> bool:
        """Watch from where the recording is; return whether to go on there."""
        target = f"/agents?watch=true&resource_version={recording.reached}"
        async with asking(self.replica.url, target) as stream:
            if stream.status != 200:
                return stream.status == 503
            while (event := await stream.event(patience=30)) is not None:
                if event.kind == "ERROR":
                    return False
                recording.note(event.kind, event.agent_id, event.version)
        return True


def _everything(_agent: Agent) -> bool:
    return True


def past_of(server: RedisServer) -> Past:
    """Return the log as a server has it."""
    with redis.Redis.from_url(server.url, socket_timeout=5) as client:
        return Past(
            [
                change_from((entry_id, [part for pair in fields.items() for part in pair]))
                for entry_id, fields in client.xrange(LOG)
            ]
        )


@contextlib.asynccontextmanager
async def load(replicas: list[Served]) -> AsyncIterator[tuple[Writer, list[Watcher]]]:
    """Provide a writer and a watcher of each replica, all of them busy."""
    writer, watchers = Writer(replicas), [Watcher(each) for each in replicas]
    tasks = [asyncio.create_task(writer.run()), *(asyncio.create_task(each.run()) for each in watchers)]
    try:
        await async_wait_until(lambda: len(writer.accepted) > 20, description="the writer writes")
        await async_wait_until(lambda: all(each.recordings for each in watchers), description="the watchers watch")
        yield writer, watchers
        assert not [task for task in tasks if task.done()]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def back(writer: Writer) -> None:
    """Wait until writes have failed and succeed again."""
    await async_wait_until(lambda: writer.refused, description="writes fail", timeout=10)
    count = len(writer.accepted)
    await async_wait_until(lambda: len(writer.accepted) > count + 20, description="writes are back", timeout=20)


def assert_honest(writer: Writer) -> None:
    """Assert that clients were told of trouble with the store, and of nothing that is not their business."""
    for answer in writer.refused:
        assert answer.status_code == 503, answer.text
        assert "READONLY" not in answer.text
        assert answer.headers["retry-after"] == "1"
    assert writer.gap <= GAP


async def assert_told_the_truth(watchers: list[Watcher], now: RedisServer) -> None:
    """Assert that each watcher saw everything once and in order, or was told to list again."""
    past = past_of(now)
    for watcher in watchers:
        last = watcher.recordings[-1]
        await async_wait_until(partial(_has_reached, last, past.last), description="the watcher has seen it all")
        check(last, [past_of(now)])


def _has_reached(recording: Recording, version: int) -> bool:
    return recording.reached >= version


@pytest.mark.fault(19, "Sentinels promote another Redis")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_writes_come_back_soon_after_the_primary_is_gone(how: str, guarded: Guarded) -> None:
    """Within the time Sentinel takes to notice, and three seconds; nobody is lied to meanwhile."""
    async with two(guarded.url) as replicas, load(replicas) as (writer, watchers):
        if how == "killed":
            guarded.primary.kill()
        else:
            guarded.primary.pause()
        gone = time.monotonic()
        await back(writer)
        assert_honest(writer)
        await assert_told_the_truth(watchers, guarded.replica)
        accepted = dict(writer.accepted)
        held = {agent["id"] for agent in (await replicas[0].client.get("/agents")).json()["agents"]}

    # Replication is not waited for: what was acknowledged in the last moment may be lost, and nothing else.
    lost = [gone - at for agent_id, at in accepted.items() if agent_id not in held]
    assert all(-0.5 < before < 1 for before in lost)


@pytest.mark.fault(20, "The old primary wakes beside the new one")
@pytest.mark.timeout(120)
async def test_an_old_primary_that_wakes_is_not_written_to(guarded: Guarded) -> None:
    """It believes for seconds that it is still the one; a connection that was idle meanwhile must not trust it."""
    async with serving(guarded.url) as served:
        body = {"id": "a", "endpoint": "http://a:1"}
        assert (await served.client.post("/agents", json=body)).status_code == 200
        guarded.primary.pause()
        await async_wait_until(lambda: not served.registry.overview.ready, description="the registry misses it")
        await async_wait_until(
            lambda: served.registry.overview.ready and _is_primary(guarded.replica),
            description="the registry follows the new primary",
            timeout=20,
        )
        guarded.primary.resume()

        answer = await served.client.post("/agents", json=body | {"id": "b"})

        assert answer.status_code == 200, answer.text
        assert "b" in {change.agent.id for change in past_of(guarded.replica).changes if change.agent}


def _is_primary(server: RedisServer) -> bool:
    with contextlib.suppress(redis.ConnectionError), redis.Redis.from_url(server.url) as client:
        return bool(client.role()[0] in (b"master", "master"))
    return False
