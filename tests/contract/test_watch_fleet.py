"""Three replicas on one store while everything goes wrong in turn: watchers that go on elsewhere are told the truth."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx2
import orjson
import pytest
import redis

from registry.model.agent import Agent
from registry.model.change import Change
from registry.store.codec import change_from
from tests.support.eventually import async_wait_until
from tests.support.recorder import Past, Recording, Wants, check
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica
from tests.support.watch_client import WatchStream, asking

LOG = "{mesh}:log"
# A client that finds everybody away looks again after so many seconds; a writer pauses as long between two calls.
PAUSE = 0.02
# A client that heard nothing for so long goes on elsewhere; keep-alives would come each 15 s.
SILENCE = 3.0
# Only what no client may be told for trouble: 404 and 410 are truths about the mesh.
TROUBLE = (OSError, httpx2.TransportError, asyncio.IncompleteReadError, TimeoutError)


def spec_of(agent: Agent) -> dict[str, Any]:
    """Return what an agent registered with."""
    spec: dict[str, Any] = orjson.loads(agent.spec)
    return spec


FILTERS: tuple[tuple[dict[str, str], Wants], ...] = (
    ({}, lambda _agent: True),
    ({"namespace": "n"}, lambda agent: spec_of(agent).get("namespace") == "n"),
    ({"label_selector": "k in (1, 2)"}, lambda agent: spec_of(agent).get("labels", {}).get("k") in ("1", "2")),
    ({"status": "healthy"}, lambda agent: agent.status == "healthy"),
    ({"capability": "read"}, lambda agent: "read" in {each["name"] for each in spec_of(agent)["capabilities"]}),
    ({"agent_id": "a3"}, lambda agent: agent.id == "a3"),
)


class Truth:
    """Everything that was ever in the log, read before it is taken away."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(url, socket_timeout=10)
        self._logs: list[dict[int, Change]] = [{}]

    @property
    def pasts(self) -> list[Past]:
        """The histories there were, the present one last."""
        return [Past([log[version] for version in sorted(log)]) for log in self._logs if log]

    def read(self) -> None:
        """Read the log as it is."""
        self._note(self._redis.xrange(LOG))

    def trim(self, keep: int) -> None:
        """Read the log and cut it, with nothing between the two."""
        with self._redis.pipeline(transaction=True) as both:
            both.xrange(LOG)
            both.xtrim(LOG, maxlen=keep, approximate=False)
            self._note(both.execute()[0])

    def flush(self) -> None:
        """Read the log and forget everything, with nothing between the two."""
        with self._redis.pipeline(transaction=True) as both:
            both.xrange(LOG)
            both.flushall()
            self._note(both.execute()[0])
        self._logs.append({})

    def silence_the_bell(self) -> None:
        """Let the server announce nothing any more."""
        self._redis.config_set("notify-keyspace-events", "")

    def _note(self, entries: Any) -> None:
        for entry_id, fields in entries:
            change = change_from((entry_id, [part for pair in fields.items() for part in pair]))
            self._logs[-1][change.version] = change


@dataclass
class Fleet:
    """A store that keeps what it acknowledged, and its replicas; `running` are those that a client may ask."""

    server: RedisServer
    replicas: list[Replica]
    truth: Truth
    urls: list[str]
    stopped: asyncio.Event
    over: asyncio.Event

    async def pause(self, seconds: float = PAUSE) -> None:
        """Wait a moment, or until the test is over."""
        # Not wait_for: in Python 3.11 it may swallow that it was cancelled.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.over.wait()


class Writer:
    """Registers, beats and unregisters at random through random replicas, whatever they answer."""

    def __init__(self, fleet: Fleet, seed: int) -> None:
        self.written = 0
        self.answers: set[int] = set()
        self._fleet = fleet
        self._random = random.Random(seed)  # noqa: S311 - a test's own dice

    async def run(self) -> None:
        """Write until the test is over."""
        async with httpx2.AsyncClient(timeout=4) as client:
            while not self._fleet.stopped.is_set():
                with contextlib.suppress(*TROUBLE):
                    answer = await self._write(client, self._random.choice(self._fleet.urls))
                    self.answers.add(answer.status_code)
                    self.written += answer.status_code == 200
                await self._fleet.pause()

    async def _write(self, client: httpx2.AsyncClient, url: str) -> httpx2.Response:
        dice = self._random
        agent_id, what = f"a{dice.randrange(12)}", dice.random()
        if what < 0.2:
            return await client.delete(f"{url}/agents/{agent_id}")
        if what < 0.5:
            return await client.post(f"{url}/heartbeat", json={"agent_id": agent_id})
        body = {
            "id": agent_id,
            "endpoint": "http://a:1",
            "namespace": dice.choice(["n", "m"]),
            "labels": {"k": dice.choice("123")},
            "capabilities": dice.choice([["read"], ["write"], ["read", "write"]]),
        }
        return await client.post(f"{url}/agents", json=body)


class Client:
    """Keeps a view by watching: short watches, each on another replica; lists again on 410 and on nothing else."""

    def __init__(self, fleet: Fleet, query: dict[str, str], wants: Wants, *, lists: bool) -> None:
        self.recordings: list[Recording] = []
        self.gone = 0
        self.ends = 0
        self._fleet = fleet
        self._query = query
        self._wants = wants
        self._lists = lists
        self._turn = random.randrange(3)  # noqa: S311 - where it begins matters not
        self._current: Recording | None = None

    @property
    def reached(self) -> int:
        """The version up to which it has seen everything."""
        return 0 if self._current is None else self._current.reached

    @property
    def view(self) -> dict[str, int]:
        """The agents by version it would tell of now."""
        assert self._current is not None
        return self._current.view

    async def run(self) -> None:
        """Watch until the test is over."""
        while not self._fleet.over.is_set():
            self._turn += 1
            url = self._fleet.urls[self._turn % len(self._fleet.urls)]
            with contextlib.suppress(*TROUBLE):
                if self._current is None:
                    await (self._list(url) if self._lists else self._begin(url))
                else:
                    await self._go_on(url, self._current)
            await self._fleet.pause()

    def _forget(self) -> None:
        self.gone += 1
        self._current = None

    async def _list(self, url: str) -> None:
        async with httpx2.AsyncClient(timeout=4) as client:
            answer = await client.get(f"{url}/agents", params=self._query)
        if answer.status_code == 200:
            body = answer.json()
            state = {agent["id"]: int(agent["resource_version"]) for agent in body["agents"]}
            self._start(int(body["resource_version"]), state)

    async def _begin(self, url: str) -> None:
        target = {"watch": "true", "send_initial": "true", "timeout": "1s"} | self._query
        async with asking(url, f"/agents?{urlencode(target)}") as stream:
            state: dict[str, int] = {}
            while stream.status == 200 and (event := await stream.event(SILENCE)) is not None:
                if event.kind == "BOOKMARK":
                    await self._follow(stream, self._start(event.version, state))
                    return
                assert event.kind == "ADDED", event
                state[event.agent_id] = event.version

    def _start(self, version: int, state: dict[str, int]) -> Recording:
        self._current = Recording(self._wants, version, state)
        self.recordings.append(self._current)
        return self._current

    async def _go_on(self, url: str, recording: Recording) -> None:
        target = {"watch": "true", "timeout": "1s", "resource_version": str(recording.reached)} | self._query
        form = {"accept": "text/event-stream"} if self._lists else {}
        async with asking(url, f"/agents?{urlencode(target)}", form) as stream:
            if stream.status == 410:
                assert int((await stream.body())["resource_version"]) > 0
                self._forget()
            elif stream.status == 200:
                recording.resume()
                await self._follow(stream, recording)
            else:
                assert stream.status == 503, await stream.body()

    async def _follow(self, stream: WatchStream, recording: Recording) -> None:
        while (event := await stream.event(SILENCE)) is not None:
            if event.kind == "ERROR":
                assert event.object["code"] == 410
                self._forget()
                return
            if event.kind != "BOOKMARK":
                assert int(event.object["resource_version"]) == event.version
            recording.note(event.kind, event.agent_id, event.version)
        self.ends += 1


@contextlib.asynccontextmanager
async def fleet() -> AsyncIterator[Fleet]:
    """Provide three replicas, started at once."""
    with RedisServer("--appendonly", "yes", "--appendfsync", "always", tcp=True) as server:
        replicas = [Replica(server.url, AGENT_TIMEOUT="10m", LOG_LEVEL="warning") for _ in range(3)]
        try:
            await asyncio.gather(*(asyncio.to_thread(replica.start) for replica in replicas))
            yield Fleet(
                server, replicas, Truth(server.url), [each.url for each in replicas], asyncio.Event(), asyncio.Event()
            )
        finally:
            for replica in replicas:
                with contextlib.suppress(AssertionError):
                    replica.kill()


async def watched(happening: Callable[[Fleet, list[Client]], Coroutine[Any, Any, None]]) -> list[Client]:
    """Let something happen to a fleet under writers and watchers; then every promise must hold.

    Each client must see a write made after it all and converge to a fresh list. Returns the clients.
    """
    async with fleet() as running, asyncio.timeout(25), asyncio.TaskGroup() as group:
        clients = [Client(running, query, wants, lists=lists) for lists in (True, False) for query, wants in FILTERS]
        writers = [Writer(running, seed) for seed in range(3)]
        writing = [group.create_task(writer.run()) for writer in writers]
        watching = [group.create_task(client.run()) for client in clients]
        await wrote(writers, 30)
        await happening(running, clients)
        await wrote(writers, 30)
        running.stopped.set()
        await asyncio.gather(*writing)
        await converged(running, clients)
        running.over.set()
        await asyncio.gather(*watching)
        running.truth.read()
    assert {status for writer in writers for status in writer.answers} <= {200, 404, 503}
    pasts = running.truth.pasts
    for client in clients:
        for recording in client.recordings:
            check(recording, pasts)
        assert client.ends
        assert client.view == pasts[-1].view(client.recordings[-1].wants, pasts[-1].last)
    return clients


async def wrote(writers: list[Writer], more: int) -> None:
    """Wait until so many more writes were acknowledged."""
    before = sum(writer.written for writer in writers)
    await async_wait_until(
        lambda: sum(writer.written for writer in writers) >= before + more, description="writes are taken"
    )


async def converged(running: Fleet, clients: list[Client]) -> None:
    """Wait until every client, and a fresh list of every replica, has come to the last version."""
    last = 0
    async with httpx2.AsyncClient(timeout=4) as http:
        for url in running.urls:
            answer = await http.get(f"{url}/agents")
            assert answer.status_code == 200, answer.text
            last = max(last, int(answer.json()["resource_version"]))
    await async_wait_until(
        lambda: all(client.reached >= last for client in clients), description=f"every client reached {last}"
    )


async def seen(clients: list[Client]) -> None:
    """Wait until every client went on elsewhere once more, so that what happened has met all of them."""
    before = [client.ends + client.gone for client in clients]
    await async_wait_until(
        lambda: all(client.ends + client.gone > ends for client, ends in zip(clients, before, strict=True)),
        description="every client went on",
        timeout=8,
    )


def same_pasts(clients: list[Client]) -> None:
    """Nobody was sent back to a list: each client's watch is one unbroken recording."""
    assert [client.gone for client in clients] == [0] * len(clients)
    assert all(len(client.recordings) == 1 for client in clients)


async def test_a_replica_that_is_killed_and_a_bell_that_is_cut() -> None:
    """Clients go on at the other two, then at the one that came back, and nobody has to list again."""

    async def happening(running: Fleet, clients: list[Client]) -> None:
        victim = running.replicas[1]
        victim.kill()
        await seen(clients)
        await asyncio.to_thread(victim.start)
        running.urls[1] = victim.url
        running.truth.silence_the_bell()
        await seen(clients)

    same_pasts(await watched(happening))


async def test_a_store_that_freezes_and_is_restarted() -> None:
    """With AOF nothing was forgotten, so nobody has to list again: trouble with the store is never 410."""

    async def happening(running: Fleet, clients: list[Client]) -> None:
        running.server.pause()
        await running.pause(1.5)
        running.server.resume()
        await seen(clients)
        await asyncio.to_thread(running.server.kill)
        await asyncio.to_thread(running.server.restart)
        await seen(clients)

    same_pasts(await watched(happening))


@pytest.mark.parametrize("what", ["trimmed", "flushed"])
async def test_a_log_that_is_taken_away(what: str) -> None:
    """Whoever might have missed something is told 410 and lists again; nobody mixes two pasts; all converge."""

    async def happening(running: Fleet, clients: list[Client]) -> None:
        running.truth.read()
        if what == "flushed":
            running.truth.flush()
        else:
            # The replica that comes new has no memory of its own of what was trimmed.
            running.truth.trim(0)
            running.replicas[2].kill()
            await asyncio.to_thread(running.replicas[2].start)
            running.urls[2] = running.replicas[2].url
        await async_wait_until(
            lambda: all(client.gone for client in clients), description="every client was told", timeout=8
        )
        await seen(clients)

    clients = await watched(happening)

    assert all(len(client.recordings) > 1 for client in clients)
