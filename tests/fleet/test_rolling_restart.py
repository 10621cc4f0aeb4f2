"""Three replicas behind a balancer with health checks are restarted one by one under load: no request fails."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis

from registry.model.change import Change
from registry.store.record_codec import decode_change
from tests.support.http_calls import REQUEST_TIMEOUT_S, a_registration, register
from tests.support.load_balancers import HAPROXY_PATH, haproxy, round_robin_balancer
from tests.support.machine_speed import scaled
from tests.support.polling import async_wait_until
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica
from tests.support.watch_client import open_stream
from tests.support.watch_recorder import UnbrokenLog, WatchRecording, check_recording

# Seconds; many times the detection time of either balancer.
SHUTDOWN_DELAY_S = scaled(3.0)
WRITERS, READERS, WATCHERS = 6, 4, 6
# Seconds between two calls of a client: a steady load below the limit of the machine.
PAUSE_S = 0.01
# The fewest calls and resumed watches with which the test shows anything.
MIN_CALLS, MIN_RESUMES = 500, 3

BalancerAt = Callable[[Sequence[str], Path], AbstractAsyncContextManager[str]]


class Load:
    """Clients that make calls until `stop` is set; `failures` describes each failed call."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.calls = 0
        self.failures: list[str] = []
        self.acknowledged: dict[str, int] = {}
        self.recordings: list[WatchRecording] = []
        self.stop = asyncio.Event()

    async def write(self, name: str) -> None:
        """Register an agent, send its heartbeat and read each write back, repeatedly."""
        async with httpx2.AsyncClient(base_url=self.url, timeout=REQUEST_TIMEOUT_S) as client:
            number = 0
            while not self.stop.is_set():
                number += 1
                body = a_registration(name, namespace="n", labels={"number": str(number)})
                result = await self._call(client, "POST", "/agents", json=body)
                if result is not None:
                    self.acknowledged[name] = version = int(result["resource_version"])
                    read = await self._call(client, "GET", f"/agents/{name}")
                    if read is not None and int(read["resource_version"]) < version:
                        self.failures.append(f"{name} is at {version}, but reads {read['resource_version']}")
                await self._call(client, "POST", "/heartbeat", json={"agent_id": name})
                await asyncio.sleep(PAUSE_S)

    async def read(self) -> None:
        """List, search and count, over connections of 1 or 50 calls each."""
        paths = ("/agents", "/agents?namespace=n&status=healthy", "/capabilities", "/metrics", "/mcp/tools")
        while not self.stop.is_set():
            async with httpx2.AsyncClient(base_url=self.url, timeout=REQUEST_TIMEOUT_S) as client:
                for _ in range(random.choice([1, 50])):  # noqa: S311 - a test's own dice
                    await self._call(client, "GET", random.choice(paths))  # noqa: S311
                    await asyncio.sleep(PAUSE_S)

    async def watch(self) -> None:
        """List and watch; each stream must end with a bookmark, from which the next watch resumes."""
        async with httpx2.AsyncClient(base_url=self.url, timeout=REQUEST_TIMEOUT_S) as client:
            listed = (await client.get("/agents")).json()
        state = {agent["id"]: int(agent["resource_version"]) for agent in listed["agents"]}
        recording = WatchRecording(lambda _agent: True, int(listed["resource_version"]), state)
        self.recordings.append(recording)
        while not self.stop.is_set():
            try:
                await self._follow(recording)
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                self.failures.append(f"a watch: {error!r}")

    async def _follow(self, recording: WatchRecording) -> None:
        target = f"/agents?watch=true&resource_version={recording.last_version}"
        async with open_stream(self.url, target) as stream:
            if stream.status != 200:
                self.failures.append(f"a watch: {stream.status} {await stream.json_body()}")
                return
            recording.resume()
            event = None
            while not self.stop.is_set() and (event := await stream.next_event()) is not None:
                recording.record(event.kind, event.agent_id, event.version)
            last = recording.received[-1].kind if recording.received else ""
            if event is None and not (stream.ended_cleanly and last == "BOOKMARK"):
                self.failures.append(f"a watch ended {'' if stream.ended_cleanly else 'un'}cleanly after {last!r}")

    async def _call(self, client: httpx2.AsyncClient, method: str, path: str, **more: Any) -> Any:
        self.calls += 1
        try:
            response = await client.request(method, path, **more)
        except httpx2.TransportError as error:
            self.failures.append(f"{method} {path}: {error!r}")
            return None
        if response.status_code != 200:
            self.failures.append(f"{method} {path}: {response.status_code} {response.text}")
            return None
        return response.json()


@contextlib.asynccontextmanager
async def under_load(url: str) -> AsyncIterator[Load]:
    """Run the load during the block, then wait until every client has stopped."""
    load = Load(url)
    async with asyncio.TaskGroup() as group:
        for number in range(WRITERS):
            group.create_task(load.write(f"w{number}"))
        for _ in range(READERS):
            group.create_task(load.read())
        for _ in range(WATCHERS):
            group.create_task(load.watch())
        try:
            yield load
        finally:
            load.stop.set()
            # Each watcher waits for one more event; this registration causes it.
            async with httpx2.AsyncClient(base_url=url, timeout=REQUEST_TIMEOUT_S) as client:
                await register(client, "the-last")


async def wait_for_calls(load: Load, more: int) -> None:
    """Wait until the given number of further calls were made."""
    before = load.calls
    await async_wait_until(lambda: load.calls >= before + more, description="the load continues")


def complete_log(url: str) -> UnbrokenLog:
    """Return all entries of the change log."""
    with redis.Redis.from_url(url) as client:
        entries: Any = client.xrange("{mesh}:log")
    changes: list[Change] = [
        decode_change((entry_id, [part for pair in fields.items() for part in pair])) for entry_id, fields in entries
    ]
    return UnbrokenLog(changes)


@pytest.mark.fault(2, "All replicas are restarted one by one")
@pytest.mark.parametrize(
    "balancer", [round_robin_balancer, pytest.param(haproxy, marks=pytest.mark.slow)], ids=["ours", "haproxy"]
)
async def test_a_rolling_restart_fails_no_request(balancer: BalancerAt, tmp_path: Path) -> None:
    """Every response is 200, every stream ends with a bookmark and resumes elsewhere, and no write is lost."""
    if balancer is haproxy and HAPROXY_PATH is None:
        pytest.skip("haproxy is not installed; apt-get install haproxy")
    with RedisServer("--appendonly", "yes", "--appendfsync", "always", tcp=True) as server:
        replicas = [
            Replica(server.url, REGISTRY_SHUTDOWN_DELAY=f"{SHUTDOWN_DELAY_S:.1f}s", LOG_LEVEL="warning")
            for _ in range(3)
        ]
        try:
            await asyncio.gather(*(asyncio.to_thread(replica.start) for replica in replicas))
            async with balancer([replica.url for replica in replicas], tmp_path) as url, under_load(url) as load:
                await wait_for_calls(load, 100)
                for replica in replicas:
                    await asyncio.to_thread(replica.stop)
                    await wait_for_calls(load, 50)
                    await asyncio.to_thread(replica.start)
                    # The balancer must detect the replica before the next one stops.
                    await wait_for_calls(load, 100)
            log = complete_log(server.url)
        finally:
            for replica in replicas:
                replica.kill()

    assert load.failures == [], "\n".join(load.failures)
    assert load.calls >= MIN_CALLS
    resumes = sum(len(recording.resumes) for recording in load.recordings)
    assert resumes >= MIN_RESUMES + len(load.recordings)
    for recording in load.recordings:
        check_recording(recording, [log])
    stored = log.versions_at(lambda _agent: True, log.last)
    assert {name: stored[name] >= version for name, version in load.acknowledged.items()} == dict.fromkeys(
        load.acknowledged, True
    )
