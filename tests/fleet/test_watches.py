"""Watchers that are slow, many, late or start from an invalid version: each event once and in order, or 410."""

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import cast
from urllib.parse import urlsplit

import pytest

from tests.fleet.conftest import FleetMaker
from tests.support.fleet_under_load import FleetUnderLoad
from tests.support.http_calls import a_registration
from tests.support.polling import async_wait_until
from tests.support.raw_http import RawResponse, open_raw_connection
from tests.support.watch_client import open_stream, open_watch


async def register(fleet: FleetUnderLoad, number: int, agent_id: str, **fields: object) -> int:
    """Register an agent through one replica; return its version."""
    async with open_raw_connection(fleet.urls[number]) as connection:
        response = await connection.request("POST", "/agents", a_registration(agent_id, **fields))
    assert response.status == 200, response.body
    return int(response.body["resource_version"])


async def call(fleet: FleetUnderLoad, number: int, method: str, path: str) -> RawResponse:
    """Send one request to one replica."""
    async with open_raw_connection(fleet.urls[number]) as connection:
        return await connection.request(method, path)


@contextmanager
def unread_watch(url: str) -> Iterator[None]:
    """Open a watch of all agents without reading its events."""
    where = urlsplit(url)
    with socket.socket() as tcp:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        tcp.connect((where.hostname, where.port))
        tcp.sendall(b"GET /agents?watch=true HTTP/1.1\r\nhost: localhost\r\n\r\n")
        yield


# The number of watches that are not read, and the memory that each may cost.
UNREAD_WATCHES, MAX_BYTES_EACH = 5, 1 << 20


@pytest.mark.fault(31, "Watchers never read")
@pytest.mark.slow
async def test_watchers_that_never_read_are_disconnected(run_fleet: FleetMaker) -> None:
    """Each costs its replica at most a megabyte, compared with the replicas that have none."""
    async with run_fleet() as fleet:
        # The other watchers use other replicas, so that the watchers of this one can be counted.
        url = fleet.load.urls.pop(0)
        await fleet.wait_for_resumes()
        await change_agents(fleet)
        before = [each.resident_bytes for each in fleet.replicas]
        with ExitStack() as stack:
            for _ in range(UNREAD_WATCHES):
                stack.enter_context(unread_watch(url))
            await async_wait_until(lambda: has_watches(fleet, UNREAD_WATCHES), description="the watches are open")
            while not await has_watches(fleet, 0):
                await change_agents(fleet)
        grown = [each.resident_bytes - size for each, size in zip(fleet.replicas, before, strict=True)]

        assert grown[0] - max(grown[1:]) < UNREAD_WATCHES * MAX_BYTES_EACH
        fleet.load.urls.append(url)
        await fleet.wait_for_resumes()


async def has_watches(fleet: FleetUnderLoad, times: int) -> bool:
    """Return whether the first replica has the given number of watches."""
    return await fleet.read_metric(0, "mcp_registry_watchers") == times


async def change_agents(fleet: FleetUnderLoad) -> None:
    """Make 200 changes of 2 KB, which every watch without a filter receives."""
    marker = f"{time.monotonic()}"
    agents = [a_registration(f"heavy-{at}", metadata={"at": marker, "weight": "x" * 2000}) for at in range(200)]
    async with open_raw_connection(fleet.urls[1]) as connection:
        response = await connection.request("POST", "/agents/batch", {"agents": agents})
    assert response.status == 200, response.body


class CountingWatch(asyncio.Protocol):
    """A watch that records the versions of its events and checks that they rise."""

    _EVENT = re.compile(rb'^\{"type":"(?:ADDED|MODIFIED|DELETED)".*"resource_version":"(\d+)"\}$', re.MULTILINE)

    def __init__(self) -> None:
        self.versions: list[int] = []
        self.began = asyncio.get_running_loop().create_future()
        self.transport: asyncio.WriteTransport
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        self.transport = cast("asyncio.WriteTransport", transport)
        self.transport.write(b"GET /agents?watch=true&namespace=crowded HTTP/1.1\r\nhost: localhost\r\n\r\n")

    def data_received(self, data: bytes) -> None:
        """Count the events."""
        if not self.began.done():
            self.began.set_result(data.startswith(b"HTTP/1.1 200 "))
        buffer = self._rest + data
        cut = buffer.rfind(b"\n") + 1
        self._rest = buffer[cut:]
        for found in self._EVENT.finditer(buffer, 0, cut):
            version = int(found[1])
            assert not self.versions or version > self.versions[-1], "a version came twice, or out of order"
            self.versions.append(version)


@asynccontextmanager
async def counting_watches(fleet: FleetUnderLoad, count: int) -> AsyncIterator[list[CountingWatch]]:
    """Provide the given number of watches, distributed over the replicas."""
    loop = asyncio.get_running_loop()
    found: list[CountingWatch] = []
    try:
        for at in range(count):
            host, _, port = fleet.urls[at % len(fleet.urls)].removeprefix("http://").partition(":")
            _, watch = await loop.create_connection(CountingWatch, host, int(port))
            found.append(watch)
        assert all(await asyncio.gather(*(watch.began for watch in found)))
        yield found
    finally:
        for watch in found:
            watch.transport.close()


@pytest.mark.fault(32, "1,000 watchers receive one change after the other")
@pytest.mark.slow
async def test_a_thousand_watchers_see_every_change(run_fleet: FleetMaker) -> None:
    """In order; `benchmarks/watch_latency.py` measures how fast."""
    async with run_fleet(load=False) as fleet, counting_watches(fleet, 1000) as found:
        versions = [
            await register(fleet, at % 3, f"c{at % 50}", namespace="crowded", labels={"at": str(at)})
            for at in range(1000)
        ]

        await async_wait_until(
            lambda: all(len(watch.versions) == 1000 for watch in found),
            description="all watches received all events",
        )
        assert all(watch.versions == versions for watch in found)


@pytest.mark.fault(33, "The log is trimmed past a watcher")
async def test_a_watcher_behind_the_log_receives_410(run_fleet: FleetMaker) -> None:
    """With the current version, on every replica; a list and a watch from there converge."""
    async with run_fleet(load=False, REGISTRY_WATCH_HISTORY="100") as fleet:
        start = await register(fleet, 0, "first")
        with fleet.log_recorder.reading():
            for at in range(400):
                last = await register(fleet, at % 3, f"a{at % 7}", labels={"at": str(at)})
        fleet.log_recorder.entries_removed = True

        for url in fleet.urls:
            async with open_stream(url, f"/agents?watch=true&resource_version={start}") as stream:
                assert stream.status == 410
                body = await stream.json_body()
                assert (body["error"], body["resource_version"]) == ("version_too_old", str(last))
        listed = await call(fleet, 1, "GET", "/agents")
        async with open_watch(fleet.urls[2], resource_version=listed.body["resource_version"]) as stream:
            version = await register(fleet, 0, "next")
            assert [(event.kind_and_id, event.version) for event in await stream.next_events(1)] == [
                (("ADDED", "next"), version)
            ]


@pytest.mark.fault(34, "A watch starts from a future version or another timeline")
async def test_a_watch_of_an_unknown_version_receives_410(run_fleet: FleetMaker) -> None:
    """From each replica, and never outdated events."""
    async with run_fleet() as fleet:
        fleet.tolerate(extra_delay_s=10)
        before = await register(fleet, 0, "before")
        for url in fleet.urls:
            await assert_gone(url, before + 1_000_000, "version_ahead")

        fleet.log_recorder.flush()

        await fleet.wait_for_writes()
        for url in fleet.urls:
            await assert_gone(url, before, "version_too_old")


async def assert_gone(url: str, version: int, error: str) -> None:
    """Assert that a watch from a version receives 410."""
    async with open_stream(url, f"/agents?watch=true&resource_version={version}") as stream:
        assert stream.status == 410
        assert (await stream.json_body())["error"] == error


@pytest.mark.fault(35, "The log is trimmed exactly at a removal")
@pytest.mark.parametrize("retained", [True, False], ids=["the removal stays", "the removal goes"])
async def test_no_removal_is_missed(run_fleet: FleetMaker, retained: bool) -> None:  # noqa: FBT001
    """A replica with an empty change buffer sends the removal, or 410."""
    async with run_fleet(load=False) as fleet:
        before = await register(fleet, 0, "doomed")
        await call(fleet, 0, "DELETE", "/agents/doomed")
        after = await register(fleet, 0, "next")
        fleet.log_recorder.trim(2 if retained else 1)
        victim = await fleet.kill_replica(2)
        await asyncio.to_thread(victim.start)

        await assert_gone(victim.url, before, "version_too_old")
        fleet.log_recorder.read()
        removal = next(change for change in fleet.log_recorder.logs[-1].changes if change.kind == "remove")
        if retained:
            async with open_watch(victim.url, resource_version=removal.version) as stream:
                assert [(event.kind_and_id, event.version) for event in await stream.next_events(1)] == [
                    (("ADDED", "next"), after)
                ]
        else:
            await assert_gone(victim.url, removal.version, "version_too_old")


async def test_watchers_of_a_deleted_log_list_again(run_fleet: FleetMaker) -> None:
    """Watchers that may have missed an event get 410 and list again; the restarted replica has no change buffer."""
    async with run_fleet() as fleet:
        fleet.log_recorder.trim(0)
        victim = await fleet.kill_replica(2)
        await asyncio.to_thread(victim.start)

        await async_wait_until(
            lambda: all(each.relist_count for each in fleet.followers), description="all followers listed again"
        )
        await fleet.wait_for_resumes()
