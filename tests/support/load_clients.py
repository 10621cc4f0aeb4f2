"""Clients of a fleet that go on whatever happens, and write down what they asked and what they were told."""

import asyncio
import contextlib
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any
from urllib.parse import urlencode

import httpx2
import orjson

from registry.model.agent import Agent
from tests.support.call_journal import Deed, Journal, What
from tests.support.watch_client import WatchStream, asking
from tests.support.watch_recorder import Recording, Wants

# A client that finds everybody away looks again after so many seconds; a writer pauses as long between two calls.
PAUSE = 0.02
# Who keeps an agent alive beats as often, in seconds.
BEAT_EVERY = 0.4
# A client that heard nothing for so long goes on elsewhere; keep-alives would come each 15 s.
SILENCE = 3.0
# Longer than the registry may take, so that what takes too long is seen to.
_PATIENCE = 6.0
_MARKED = ("degraded", "expired")
# Only what no client may be told for trouble: 404 and 410 are truths about the mesh.
TROUBLE = (OSError, httpx2.TransportError, asyncio.IncompleteReadError, TimeoutError)


def spec_of(agent: Agent) -> dict[str, Any]:
    """Return what an agent registered with."""
    return _read(agent.spec)


@cache
def _read(spec: bytes) -> dict[str, Any]:
    read: dict[str, Any] = orjson.loads(spec)
    return read


FILTERS: tuple[tuple[dict[str, str], Wants], ...] = (
    ({}, lambda _agent: True),
    ({"namespace": "n"}, lambda agent: spec_of(agent).get("namespace") == "n"),
    ({"label_selector": "k in (1, 2)"}, lambda agent: spec_of(agent).get("labels", {}).get("k") in ("1", "2")),
    ({"status": "healthy"}, lambda agent: agent.status == "healthy"),
    ({"capability": "read"}, lambda agent: "read" in {each["name"] for each in spec_of(agent).get("capabilities", ())}),
    ({"agent_id": "w1-3"}, lambda agent: agent.id == "w1-3"),
)


@dataclass
class Crowd:
    """What the clients share: where they may ask, what they note, and when they are to end.

    `stopped` ends those who write, `over` all others. `urls` may change while they run.
    """

    urls: list[str]
    journal: Journal = field(default_factory=Journal)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def pause(self, seconds: float = PAUSE) -> None:
        """Wait a moment, or until the test is over."""
        # Not wait_for: in Python 3.11 it may swallow that it was cancelled.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.over.wait()

    async def ask(
        self, client: httpx2.AsyncClient, url: str, what: What, agent_id: str = "", body: dict[str, Any] | None = None
    ) -> Deed:
        """Make one call of a replica and note what came of it."""
        began = time.monotonic()
        try:
            if what == "register":
                answer = await client.post(f"{url}/agents", json=body)
            elif what == "heartbeat":
                answer = await client.post(f"{url}/heartbeat", json={"agent_id": agent_id})
            else:
                answer = await client.delete(f"{url}/agents/{agent_id}")
        except TROUBLE:
            deed = Deed(what, agent_id, url, began, time.monotonic(), 0)
        else:
            deed = Deed(what, agent_id, url, began, time.monotonic(), _status(answer), *_told(answer))
        self.journal.deeds.append(deed)
        return deed

    async def list(self, client: httpx2.AsyncClient, url: str, query: dict[str, str], wants: Wants) -> Deed:
        """Ask a replica for a list and note what it says."""
        began = time.monotonic()
        try:
            answer = await client.get(f"{url}/agents", params=query)
        except TROUBLE:
            deed = Deed("list", "", url, began, time.monotonic(), 0)
        else:
            version, _ = _told(answer)
            view = None
            if answer.status_code == 200:
                view = {agent["id"]: int(agent["resource_version"]) for agent in answer.json()["agents"]}
            deed = Deed("list", "", url, began, time.monotonic(), _status(answer), version, 0, view, wants)
        self.journal.deeds.append(deed)
        return deed


def _status(answer: httpx2.Response) -> int:
    """Return the status of an answer of ours; what a balancer says in its own words is no answer."""
    return answer.status_code if answer.headers.get("x-request-id") else 0


def _told(answer: httpx2.Response) -> tuple[int, int]:
    """Return the version and the server's milliseconds an answer names; a refusal must be one that is allowed."""
    if not _status(answer):
        return 0, 0
    body = answer.json()
    if answer.status_code == 503:
        assert answer.headers["retry-after"], answer.text
        assert body["error"] in ("store_unavailable", "not_ready"), answer.text
    elif answer.status_code == 404:
        assert body["error"] == "unknown_agent", answer.text
    at = datetime.fromisoformat(body["timestamp"]) if "timestamp" in body else None
    return int(body.get("resource_version") or 0), 0 if at is None else round(at.timestamp() * 1000)


def a_client() -> httpx2.AsyncClient:
    """Return a client that takes whatever is in the way for trouble in time."""
    return httpx2.AsyncClient(timeout=_PATIENCE)


class Writer:
    """Registers, beats and unregisters agents of its own at random through random replicas."""

    def __init__(self, crowd: Crowd, number: int) -> None:
        self._crowd = crowd
        self._number = number
        self._random = random.Random(number)  # noqa: S311 - a test's own dice
        self._writes = 0

    async def run(self) -> None:
        """Write until the writers are told to stop."""
        async with a_client() as client:
            while not self._crowd.stopped.is_set():
                await self._write(client, self._random.choice(self._crowd.urls))
                await self._crowd.pause()

    async def _write(self, client: httpx2.AsyncClient, url: str) -> None:
        dice = self._random
        agent_id, what = f"w{self._number}-{dice.randrange(6)}", dice.random()
        if what < 0.2:
            await self._crowd.ask(client, url, "unregister", agent_id)
        elif what < 0.5:
            await self._crowd.ask(client, url, "heartbeat", agent_id)
        else:
            self._writes += 1
            body = {
                "id": agent_id,
                "endpoint": "http://a:1",
                "namespace": dice.choice(["n", "m"]),
                "labels": {"k": dice.choice("123"), "write": str(self._writes)},
                "capabilities": dice.choice([["read"], ["write"], ["read", "write"]]),
                "timeout_threshold": 3600,
            }
            await self._crowd.ask(client, url, "register", agent_id, body)


class Striver:
    """Keeps one agent alive: beats again and again, tries again at once, registers anew where it is told to."""

    def __init__(self, crowd: Crowd, agent_id: str, *, timeout: float) -> None:
        self._crowd = crowd
        self._id = agent_id
        self._body = {"id": agent_id, "endpoint": "http://a:1", "capabilities": ["live"], "timeout_threshold": timeout}
        self._turn = random.randrange(8)  # noqa: S311 - where it begins matters not

    async def run(self) -> None:
        """Beat until everything is over."""
        async with a_client() as client:
            known = False
            while not self._crowd.over.is_set():
                self._turn += 1
                url = self._crowd.urls[self._turn % len(self._crowd.urls)]
                what: What = "heartbeat" if known else "register"
                deed = await self._crowd.ask(client, url, what, self._id, self._body)
                beats = known and deed.status == 200
                known = deed.status == 200 or (known and deed.status != 404)
                if beats:
                    self._crowd.journal.striving.add(self._id)
                await self._crowd.pause(BEAT_EVERY if beats else PAUSE)


class Mortal:
    """Falls silent, waits until it is marked, comes back, and falls silent again."""

    def __init__(self, crowd: Crowd, agent_id: str, *, timeout: float) -> None:
        self._crowd = crowd
        self._id = agent_id
        self._body = {"id": agent_id, "endpoint": "http://a:1", "capabilities": ["live"], "timeout_threshold": timeout}

    async def run(self) -> None:
        """Live and fall silent until the writers are told to stop."""
        async with a_client() as client:
            await self._until_taken(client, "register")
            while not self._crowd.stopped.is_set():
                await self._until_marked(client)
                await self._until_taken(client, "heartbeat")

    async def _until_taken(self, client: httpx2.AsyncClient, what: What) -> None:
        while not self._crowd.stopped.is_set():
            url = random.choice(self._crowd.urls)  # noqa: S311 - a test's own dice
            deed = await self._crowd.ask(client, url, what, self._id, self._body)
            if deed.status == 404:
                what = "register"
            elif deed.status == 200 and what == "heartbeat":
                return
            elif deed.status == 200:
                what = "heartbeat"
            await self._crowd.pause()

    async def _until_marked(self, client: httpx2.AsyncClient) -> None:
        """Wait until it is marked, or not there any more. That it comes, and in time, the log is asked later."""
        while not self._crowd.stopped.is_set():
            await self._crowd.pause(0.2)
            url = random.choice(self._crowd.urls)  # noqa: S311 - a test's own dice
            with contextlib.suppress(*TROUBLE):
                answer = await client.get(f"{url}/agents/{self._id}/status")
                if _status(answer) == 404 or (_status(answer) == 200 and answer.json()["status"] in _MARKED):
                    return


class Reader:
    """Lists by each filter in turn, through one replica after the other."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd

    async def run(self) -> None:
        """Read until everything is over."""
        turn = 0
        async with a_client() as client:
            while not self._crowd.over.is_set():
                turn += 1
                query, wants = FILTERS[turn % len(FILTERS)]
                await self._crowd.list(client, self._crowd.urls[turn % len(self._crowd.urls)], query, wants)
                await self._crowd.pause(5 * PAUSE)


class Follower:
    """Keeps a view by watching: short watches, each on another replica; lists again on 410 and on nothing else.

    `gone` counts how often it was told to list again, `ends` the streams that came to an end. With `lists` it begins
    with a list and takes server-sent events, else with the state in the stream, as lines of JSON. `longest` is
    how long a watch may last.
    """

    def __init__(self, crowd: Crowd, query: dict[str, str], wants: Wants, *, lists: bool, longest: str = "1s") -> None:
        self.recordings: list[Recording] = []
        self.gone = 0
        self.ends = 0
        self._crowd = crowd
        self._query = query
        self._wants = wants
        self._lists = lists
        self.longest = longest
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
        """Watch until everything is over."""
        while not self._crowd.over.is_set():
            self._turn += 1
            url = self._crowd.urls[self._turn % len(self._crowd.urls)]
            with contextlib.suppress(*TROUBLE):
                if self._current is None:
                    await (self._list(url) if self._lists else self._begin(url))
                else:
                    await self._go_on(url, self._current)
            await self._crowd.pause()

    def _forget(self) -> None:
        self.gone += 1
        self._current = None

    async def _list(self, url: str) -> None:
        async with a_client() as client:
            deed = await self._crowd.list(client, url, self._query, self._wants)
        if deed.status == 200:
            self._start(deed.version, dict(deed.view or {}))

    async def _begin(self, url: str) -> None:
        target = {"watch": "true", "send_initial": "true", "timeout": self.longest} | self._query
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
        target = {"watch": "true", "timeout": self.longest, "resource_version": str(recording.reached)} | self._query
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


def followers(crowd: Crowd) -> Sequence[Follower]:
    """Return a follower for each filter and each of the two forms."""
    return [Follower(crowd, query, wants, lists=lists) for lists in (True, False) for query, wants in FILTERS]
