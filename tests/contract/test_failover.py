"""Failover while agents register and clients watch: writes pause briefly, and no response is wrong."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx2
import pytest
import redis

from registry.model.agent import Agent
from registry.store.record_codec import decode_change
from tests.support.http_calls import REQUEST_TIMEOUT_S
from tests.support.polling import async_wait_until
from tests.support.redis_sentinels import SentinelGroup
from tests.support.redis_server import RedisServer
from tests.support.served_registry import ServedRegistry, served_registry
from tests.support.watch_client import open_stream
from tests.support.watch_recorder import UnbrokenLog, WatchRecording, check_recording

LOG = "{mesh}:log"


@pytest.fixture
def sentinels() -> Iterator[SentinelGroup]:
    """Provide a primary, a replica and three Sentinels."""
    with SentinelGroup() as running:
        yield running


@contextlib.asynccontextmanager
async def two_replicas(url: str, **fields: Any) -> AsyncIterator[list[ServedRegistry]]:
    """Provide two replicas of the registry."""
    async with served_registry(url, **fields) as one, served_registry(url, **fields) as other:
        yield [one, other]


@dataclass
class Writer:
    """Registers new agents through the replicas in turn; stores the accepted ids and the error responses."""

    replicas: list[ServedRegistry]
    accepted: list[str] = field(default_factory=list)
    failed: list[httpx2.Response] = field(default_factory=list)

    async def run(self) -> None:
        """Write until cancelled."""
        number = 0
        while True:
            agent_id = f"a{number}"
            client = self.replicas[number % len(self.replicas)].client
            response = await client.post("/agents", json={"id": agent_id, "endpoint": "http://a:1"})
            if response.status_code == 200:
                self.accepted.append(agent_id)
            else:
                self.failed.append(response)
            number += 1
            await asyncio.sleep(0.01)


@dataclass
class Watcher:
    """Lists and watches; resumes when a stream ends, and lists again if the resume is rejected."""

    replica: ServedRegistry
    recordings: list[WatchRecording] = field(default_factory=list)

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                await self._list_and_watch()
            await asyncio.sleep(0.02)

    async def _list_and_watch(self) -> None:
        response = await self.replica.client.get("/agents")
        if response.status_code != 200:
            return
        body = response.json()
        state = {agent["id"]: int(agent["resource_version"]) for agent in body["agents"]}
        recording = WatchRecording(_match_all, int(body["resource_version"]), state)
        self.recordings.append(recording)
        while await self._watch(recording):
            recording.resume()

    async def _watch(self, recording: WatchRecording) -> bool:
        """Watch from the last recorded version; return whether to resume there."""
        target = f"/agents?watch=true&resource_version={recording.last_version}"
        async with open_stream(self.replica.url, target) as stream:
            if stream.status != 200:
                return stream.status == 503
            while (event := await stream.next_event()) is not None:
                if event.kind == "ERROR":
                    return False
                recording.record(event.kind, event.agent_id, event.version)
        return True


def _match_all(_agent: Agent) -> bool:
    return True


def log_of(server: RedisServer) -> UnbrokenLog:
    """Return the change log stored on a server."""
    with redis.Redis.from_url(server.url, socket_timeout=REQUEST_TIMEOUT_S) as client:
        return UnbrokenLog(
            [
                decode_change((entry_id, [part for pair in fields.items() for part in pair]))
                for entry_id, fields in client.xrange(LOG)
            ]
        )


@contextlib.asynccontextmanager
async def load(replicas: list[ServedRegistry]) -> AsyncIterator[tuple[Writer, list[Watcher]]]:
    """Run a writer, and a watcher for each replica, during the block."""
    writer, watchers = Writer(replicas), [Watcher(each) for each in replicas]
    tasks = [asyncio.create_task(writer.run()), *(asyncio.create_task(each.run()) for each in watchers)]
    try:
        await async_wait_until(lambda: len(writer.accepted) > 20, description="the writer has written")
        await async_wait_until(
            lambda: all(each.recordings for each in watchers), description="the watchers have started"
        )
        yield writer, watchers
        assert not [task for task in tasks if task.done()]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def wait_for_recovery(writer: Writer) -> None:
    """Wait until writes have failed and succeed again."""
    await async_wait_until(lambda: writer.failed, description="writes fail")
    count = len(writer.accepted)
    await async_wait_until(lambda: len(writer.accepted) > count + 20, description="writes succeed again")


def assert_only_store_errors(writer: Writer) -> None:
    """Assert that failed writes got a 503 without internal details."""
    for response in writer.failed:
        assert response.status_code == 503, response.text
        assert "READONLY" not in response.text
        assert response.headers["retry-after"] == "1"


async def assert_watches_complete(watchers: list[Watcher], primary: RedisServer) -> None:
    """Assert that each watcher received every event once and in order since its last list."""
    log = log_of(primary)
    for watcher in watchers:
        last = watcher.recordings[-1]
        await async_wait_until(partial(_has_reached, last, log.last), description="the watcher has all events")
        check_recording(last, [log_of(primary)])


def _has_reached(recording: WatchRecording, version: int) -> bool:
    return recording.last_version >= version


@pytest.mark.fault(19, "Sentinels promote another Redis")
@pytest.mark.parametrize("failure", ["killed", "frozen"])
async def test_writes_recover_after_the_primary_fails(failure: str, sentinels: SentinelGroup) -> None:
    """No response in between is wrong."""
    async with two_replicas(sentinels.url) as replicas, load(replicas) as (writer, watchers):
        if failure == "killed":
            sentinels.primary.kill()
        else:
            sentinels.primary.pause()
        await wait_for_recovery(writer)
        assert_only_store_errors(writer)
        await assert_watches_complete(watchers, sentinels.replica)
        accepted = list(writer.accepted)
        registered = {agent["id"] for agent in (await replicas[0].client.get("/agents")).json()["agents"]}

    # Writes do not wait for replication: the last ones before the failure may be lost, none before or after them.
    runs = [stored for stored, _ in itertools.groupby(accepted, key=registered.__contains__)]
    assert runs in ([True], [True, False, True])


@pytest.mark.fault(20, "The old primary returns beside the new one")
async def test_a_resumed_old_primary_receives_no_writes(sentinels: SentinelGroup) -> None:
    """For seconds it still reports the role of a primary; an idle connection to it must not be trusted."""
    async with served_registry(sentinels.url) as served:
        body = {"id": "a", "endpoint": "http://a:1"}
        assert (await served.client.post("/agents", json=body)).status_code == 200
        sentinels.primary.pause()
        await async_wait_until(lambda: not served.registry.status.ready, description="the registry detects the outage")
        await async_wait_until(
            lambda: served.registry.status.ready and _is_primary(sentinels.replica),
            description="the registry follows the new primary",
        )
        sentinels.primary.resume()

        response = await served.client.post("/agents", json=body | {"id": "b"})

        assert response.status_code == 200, response.text
        assert "b" in {change.agent.id for change in log_of(sentinels.replica).changes if change.agent}


def _is_primary(server: RedisServer) -> bool:
    with contextlib.suppress(redis.ConnectionError), redis.Redis.from_url(server.url) as client:
        return bool(client.role()[0] in (b"master", "master"))
    return False
