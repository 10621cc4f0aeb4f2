"""Watchers that are slow, many, late, or ask for what never was: each event once and in order, or 410."""

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
    async with open_raw_connection(fleet.urls[number]) as line:
        answer = await line.request("POST", "/agents", a_registration(agent_id, **fields))
    assert answer.status == 200, answer.body
    return int(answer.body["resource_version"])


async def ask(fleet: FleetUnderLoad, number: int, method: str, path: str) -> RawResponse:
    """Make one call of one replica."""
    async with open_raw_connection(fleet.urls[number]) as line:
        return await line.request(method, path)


@contextmanager
def deaf(url: str) -> Iterator[None]:
    """Provide a client that watches everything and reads nothing."""
    where = urlsplit(url)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((where.hostname, where.port))
        connection.sendall(b"GET /agents?watch=true HTTP/1.1\r\nhost: a\r\n\r\n")
        yield


# How many there are, what each may cost in bytes, and seconds until it is let go.
DEAF, COST, LET_GO = 5, 1 << 20, 15


@pytest.mark.fault(31, "Watchers never read")
@pytest.mark.slow
async def test_deaf_watchers_are_let_go_and_cost_nothing(a_fleet: FleetMaker) -> None:
    """Within 15 s; their replica needs at most a megabyte for each more than those that have none."""
    async with a_fleet(timeout=55) as fleet:
        # The others watch elsewhere, so that who watches here can be counted.
        url = fleet.load.urls.pop(0)
        await fleet.wait_for_resumes()
        await fill(fleet)
        before = [each.resident_bytes for each in fleet.replicas]
        with ExitStack() as stack:
            for _ in range(DEAF):
                stack.enter_context(deaf(url))
            await async_wait_until(lambda: watched(fleet, DEAF), description="they watch")
            began = time.monotonic()
            while not await watched(fleet, 0):
                assert time.monotonic() - began < LET_GO
                await fill(fleet)
        grown = [each.resident_bytes - size for each, size in zip(fleet.replicas, before, strict=True)]

        assert grown[0] - max(grown[1:]) < DEAF * COST
        fleet.load.urls.append(url)
        await fleet.wait_for_resumes()


async def watched(fleet: FleetUnderLoad, times: int) -> bool:
    """Tell whether the first replica serves so many watches."""
    return await fleet.read_metric(0, "mcp_registry_watchers") == times


async def fill(fleet: FleetUnderLoad) -> None:
    """Make 200 changes of 2 KB, which all who watch everything get."""
    turn = f"{time.monotonic()}"
    agents = [a_registration(f"heavy-{at}", metadata={"at": turn, "weight": "x" * 2000}) for at in range(200)]
    async with open_raw_connection(fleet.urls[1]) as line:
        answer = await line.request("POST", "/agents/batch", {"agents": agents})
    assert answer.status == 200, answer.body


class Counter(asyncio.Protocol):
    """One watch; counts what came, checks that versions rise, and notes when each came."""

    _EVENT = re.compile(rb'^\{"type":"(?:ADDED|MODIFIED|DELETED)".*"resource_version":"(\d+)"\}$', re.MULTILINE)

    def __init__(self) -> None:
        self.came: dict[int, float] = {}
        self.began = asyncio.get_running_loop().create_future()
        self.transport: asyncio.WriteTransport
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self.transport = cast("asyncio.WriteTransport", transport)
        self.transport.write(b"GET /agents?watch=true&namespace=crowded HTTP/1.1\r\nhost: a\r\n\r\n")

    def data_received(self, data: bytes) -> None:
        """Count."""
        if not self.began.done():
            self.began.set_result(data.startswith(b"HTTP/1.1 200 "))
        whole = self._rest + data
        cut = whole.rfind(b"\n") + 1
        self._rest = whole[cut:]
        for found in self._EVENT.finditer(whole, 0, cut):
            version = int(found[1])
            assert not self.came or version > next(reversed(self.came)), "a version came twice, or out of order"
            self.came[version] = time.monotonic()


@asynccontextmanager
async def counters(fleet: FleetUnderLoad, count: int) -> AsyncIterator[list[Counter]]:
    """Provide so many watches, spread over the replicas."""
    loop = asyncio.get_running_loop()
    found: list[Counter] = []
    try:
        for at in range(count):
            host, _, port = fleet.urls[at % len(fleet.urls)].removeprefix("http://").partition(":")
            _, counter = await loop.create_connection(Counter, host, int(port))
            found.append(counter)
        assert all(await asyncio.gather(*(counter.began for counter in found)))
        yield found
    finally:
        for counter in found:
            counter.transport.close()


@pytest.mark.fault(32, "1,000 watchers receive one change after the other")
@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_thousand_watchers_see_every_change(a_fleet: FleetMaker) -> None:
    """In order, and 99 of 100 events within a second.

    As many changes as one client makes, which waits for each answer: what counts the million events is one process on
    the same two cores, and 100 changes a second would measure that.
    """
    async with a_fleet(load=False, timeout=110) as fleet, counters(fleet, 1000) as found:
        made: dict[int, float] = {}
        for at in range(1000):
            asked = time.monotonic()
            made[await register(fleet, at % 3, f"c{at % 50}", namespace="crowded", labels={"at": str(at)})] = asked

        await async_wait_until(
            lambda: all(len(counter.came) == 1000 for counter in found), description="all saw all", timeout=10
        )
        late = sorted(came - made[version] for counter in found for version, came in counter.came.items())
        assert late[int(0.99 * len(late))] < 1


@pytest.mark.fault(33, "The log is trimmed past a watcher")
async def test_a_watcher_that_was_away_too_long_is_told(a_fleet: FleetMaker) -> None:
    """410 with the present version, on every replica; a list and a watch from there converge."""
    async with a_fleet(load=False, REGISTRY_WATCH_HISTORY="100") as fleet:
        start = await register(fleet, 0, "first")
        following = asyncio.create_task(asyncio.to_thread(fleet.log_recorder.read_repeatedly, 4))
        for at in range(400):
            last = await register(fleet, at % 3, f"a{at % 7}", labels={"at": str(at)})
        await following
        fleet.log_recorder.entries_removed = True

        for url in fleet.urls:
            async with open_stream(url, f"/agents?watch=true&resource_version={start}") as stream:
                assert stream.status == 410
                body = await stream.json_body()
                assert (body["error"], body["resource_version"]) == ("version_too_old", str(last))
        listed = await ask(fleet, 1, "GET", "/agents")
        async with open_watch(fleet.urls[2], resource_version=listed.body["resource_version"]) as stream:
            version = await register(fleet, 0, "next")
            assert [(event.kind_and_id, event.version) for event in await stream.next_events(1)] == [
                (("ADDED", "next"), version)
            ]


@pytest.mark.fault(34, "A watch starts from a future version or another timeline")
async def test_what_never_was_is_410_and_never_old_news(a_fleet: FleetMaker) -> None:
    """Within three seconds, from each replica."""
    async with a_fleet() as fleet:
        fleet.tolerate(extra_delay_s=10)
        before = await register(fleet, 0, "before")
        for url in fleet.urls:
            await gone(url, before + 1_000_000, "version_ahead")

        fleet.log_recorder.flush()

        await fleet.wait_for_writes()
        for url in fleet.urls:
            await gone(url, before, "version_too_old")


async def gone(url: str, version: int, error: str) -> None:
    """Assert that a watch from a version is refused in time."""
    began = time.monotonic()
    async with open_stream(url, f"/agents?watch=true&resource_version={version}") as stream:
        assert stream.status == 410
        assert (await stream.json_body())["error"] == error
    assert time.monotonic() - began < 3


@pytest.mark.fault(35, "The log is trimmed exactly at a removal")
@pytest.mark.parametrize("kept", [True, False], ids=["the removal stays", "the removal goes"])
async def test_no_removal_is_missed(a_fleet: FleetMaker, kept: bool) -> None:  # noqa: FBT001
    """A replica without a memory of its own gives the removal, or 410; never silence."""
    async with a_fleet(load=False) as fleet:
        before = await register(fleet, 0, "doomed")
        await ask(fleet, 0, "DELETE", "/agents/doomed")
        after = await register(fleet, 0, "next")
        fleet.log_recorder.trim(2 if kept else 1)
        victim = await fleet.kill_replica(2)
        await asyncio.to_thread(victim.start)

        await gone(victim.url, before, "version_too_old")
        fleet.log_recorder.read()
        removal = next(change for change in fleet.log_recorder.logs[-1].changes if change.kind == "remove")
        if kept:
            async with open_watch(victim.url, resource_version=removal.version) as stream:
                assert [(event.kind_and_id, event.version) for event in await stream.next_events(1)] == [
                    (("ADDED", "next"), after)
                ]
        else:
            await gone(victim.url, removal.version, "version_too_old")


async def test_a_log_that_is_taken_away_under_load(a_fleet: FleetMaker) -> None:
    """Whoever might have missed something is told 410 and lists again; the replica that comes new remembers nothing."""
    async with a_fleet() as fleet:
        fleet.log_recorder.trim(0)
        victim = await fleet.kill_replica(2)
        await asyncio.to_thread(victim.start)

        await async_wait_until(lambda: all(each.relist_count for each in fleet.followers), description="all were told")
        await fleet.wait_for_resumes()
