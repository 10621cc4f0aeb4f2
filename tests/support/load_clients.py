"""Clients of a fleet that keep calling during faults and record requests and responses."""

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
from tests.support.call_journal import CallJournal, CallKind, ClientCall
from tests.support.watch_client import WatchStream, open_stream
from tests.support.watch_recorder import AgentFilter, WatchRecording

# A client that finds everybody away looks again after so many seconds; a writer pauses as long between two calls.
RETRY_INTERVAL_S = 0.02
# Who keeps an agent alive beats as often, in seconds.
HEARTBEAT_INTERVAL_S = 0.4
# A client that heard nothing for so long goes on elsewhere; keep-alives would come each 15 s.
STREAM_IDLE_TIMEOUT_S = 3.0
# Longer than the registry may take, so that what takes too long is seen to.
_REQUEST_TIMEOUT_S = 6.0
_DEGRADED_STATUSES = ("degraded", "expired")
# Only what no client may be told for trouble: 404 and 410 are truths about the mesh.
CONNECTION_ERRORS = (OSError, httpx2.TransportError, asyncio.IncompleteReadError, TimeoutError)


def registration_of(agent: Agent) -> dict[str, Any]:
    """Return what an agent registered with."""
    return _decode_spec(agent.spec)


@cache
def _decode_spec(spec: bytes) -> dict[str, Any]:
    read: dict[str, Any] = orjson.loads(spec)
    return read


FILTERS: tuple[tuple[dict[str, str], AgentFilter], ...] = (
    ({}, lambda _agent: True),
    ({"namespace": "n"}, lambda agent: registration_of(agent).get("namespace") == "n"),
    ({"label_selector": "k in (1, 2)"}, lambda agent: registration_of(agent).get("labels", {}).get("k") in ("1", "2")),
    ({"status": "healthy"}, lambda agent: agent.status == "healthy"),
    (
        {"capability": "read"},
        lambda agent: "read" in {each["name"] for each in registration_of(agent).get("capabilities", ())},
    ),
    ({"agent_id": "w1-3"}, lambda agent: agent.id == "w1-3"),
)


@dataclass
class LoadContext:
    """What the clients share: where they may ask, what they note, and when they are to end.

    `writers_stopped` ends those who write, `all_stopped` all others. `urls` may change while they run.
    """

    urls: list[str]
    journal: CallJournal = field(default_factory=CallJournal)
    writers_stopped: asyncio.Event = field(default_factory=asyncio.Event)
    all_stopped: asyncio.Event = field(default_factory=asyncio.Event)

    async def pause(self, seconds: float = RETRY_INTERVAL_S) -> None:
        """Wait a moment, or until the test is over."""
        # Not wait_for: in Python 3.11 it may swallow that it was cancelled.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.all_stopped.wait()

    async def send(
        self,
        client: httpx2.AsyncClient,
        url: str,
        kind: CallKind,
        agent_id: str = "",
        body: dict[str, Any] | None = None,
    ) -> ClientCall:
        """Make one call of a replica and note what came of it."""
        began = time.monotonic()
        try:
            if kind == "register":
                answer = await client.post(f"{url}/agents", json=body)
            elif kind == "heartbeat":
                answer = await client.post(f"{url}/heartbeat", json={"agent_id": agent_id})
            else:
                answer = await client.delete(f"{url}/agents/{agent_id}")
        except CONNECTION_ERRORS:
            deed = ClientCall(kind, agent_id, url, began, time.monotonic(), 0)
        else:
            deed = ClientCall(
                kind,
                agent_id,
                url,
                began,
                time.monotonic(),
                _registry_status(answer),
                *_version_and_server_time(answer),
            )
        self.journal.calls.append(deed)
        return deed

    async def list(
        self, client: httpx2.AsyncClient, url: str, query: dict[str, str], matches: AgentFilter
    ) -> ClientCall:
        """Ask a replica for a list and note what it says."""
        began = time.monotonic()
        try:
            answer = await client.get(f"{url}/agents", params=query)
        except CONNECTION_ERRORS:
            deed = ClientCall("list", "", url, began, time.monotonic(), 0)
        else:
            version, _ = _version_and_server_time(answer)
            view = None
            if answer.status_code == 200:
                view = {agent["id"]: int(agent["resource_version"]) for agent in answer.json()["agents"]}
            deed = ClientCall(
                "list", "", url, began, time.monotonic(), _registry_status(answer), version, 0, view, matches
            )
        self.journal.calls.append(deed)
        return deed


def _registry_status(answer: httpx2.Response) -> int:
    """Return the status of an answer of ours; what a balancer says in its own words is no answer."""
    return answer.status_code if answer.headers.get("x-request-id") else 0


def _version_and_server_time(answer: httpx2.Response) -> tuple[int, int]:
    """Return the version and the server's milliseconds an answer names; a refusal must be one that is allowed."""
    if not _registry_status(answer):
        return 0, 0
    body = answer.json()
    if answer.status_code == 503:
        assert answer.headers["retry-after"], answer.text
        assert body["error"] in ("store_unavailable", "not_ready"), answer.text
    elif answer.status_code == 404:
        assert body["error"] == "unknown_agent", answer.text
    at = datetime.fromisoformat(body["timestamp"]) if "timestamp" in body else None
    return int(body.get("resource_version") or 0), 0 if at is None else round(at.timestamp() * 1000)


def open_http_client() -> httpx2.AsyncClient:
    """Return a client that takes whatever is in the way for trouble in time."""
    return httpx2.AsyncClient(timeout=_REQUEST_TIMEOUT_S)


class RandomWriter:
    """Registers, beats and unregisters agents of its own at random through random replicas."""

    def __init__(self, crowd: LoadContext, number: int) -> None:
        self._crowd = crowd
        self._number = number
        self._random = random.Random(number)  # noqa: S311 - a test's own dice
        self._write_count = 0

    async def run(self) -> None:
        """Write until the writers are told to stop."""
        async with open_http_client() as client:
            while not self._crowd.writers_stopped.is_set():
                await self._write(client, self._random.choice(self._crowd.urls))
                await self._crowd.pause()

    async def _write(self, client: httpx2.AsyncClient, url: str) -> None:
        dice = self._random
        agent_id, what = f"w{self._number}-{dice.randrange(6)}", dice.random()
        if what < 0.2:
            await self._crowd.send(client, url, "unregister", agent_id)
        elif what < 0.5:
            await self._crowd.send(client, url, "heartbeat", agent_id)
        else:
            self._write_count += 1
            body = {
                "id": agent_id,
                "endpoint": "http://a:1",
                "namespace": dice.choice(["n", "m"]),
                "labels": {"k": dice.choice("123"), "write": str(self._write_count)},
                "capabilities": dice.choice([["read"], ["write"], ["read", "write"]]),
                "timeout_threshold": 3600,
            }
            await self._crowd.send(client, url, "register", agent_id, body)


class PersistentAgent:
    """Keeps one agent alive: beats again and again, tries again at once, registers anew where it is told to."""

    def __init__(self, crowd: LoadContext, agent_id: str, *, timeout: float) -> None:
        self._crowd = crowd
        self._id = agent_id
        self._body = {"id": agent_id, "endpoint": "http://a:1", "capabilities": ["live"], "timeout_threshold": timeout}
        self._next_replica = random.randrange(8)  # noqa: S311 - where it begins matters not

    async def run(self) -> None:
        """Beat until everything is over."""
        async with open_http_client() as client:
            known = False
            while not self._crowd.all_stopped.is_set():
                self._next_replica += 1
                url = self._crowd.urls[self._next_replica % len(self._crowd.urls)]
                what: CallKind = "heartbeat" if known else "register"
                deed = await self._crowd.send(client, url, what, self._id, self._body)
                beats = known and deed.status == 200
                known = deed.status == 200 or (known and deed.status != 404)
                if beats:
                    self._crowd.journal.persistent_agents.add(self._id)
                await self._crowd.pause(HEARTBEAT_INTERVAL_S if beats else RETRY_INTERVAL_S)


class IntermittentAgent:
    """Falls silent, waits until it is marked, comes back, and falls silent again."""

    def __init__(self, crowd: LoadContext, agent_id: str, *, timeout: float) -> None:
        self._crowd = crowd
        self._id = agent_id
        self._body = {"id": agent_id, "endpoint": "http://a:1", "capabilities": ["live"], "timeout_threshold": timeout}

    async def run(self) -> None:
        """Live and fall silent until the writers are told to stop."""
        async with open_http_client() as client:
            await self._until_accepted(client, "register")
            while not self._crowd.writers_stopped.is_set():
                await self._until_degraded(client)
                await self._until_accepted(client, "heartbeat")

    async def _until_accepted(self, client: httpx2.AsyncClient, what: CallKind) -> None:
        while not self._crowd.writers_stopped.is_set():
            url = random.choice(self._crowd.urls)  # noqa: S311 - a test's own dice
            deed = await self._crowd.send(client, url, what, self._id, self._body)
            if deed.status == 404:
                what = "register"
            elif deed.status == 200 and what == "heartbeat":
                return
            elif deed.status == 200:
                what = "heartbeat"
            await self._crowd.pause()

    async def _until_degraded(self, client: httpx2.AsyncClient) -> None:
        """Wait until it is marked, or not there any more. That it comes, and in time, the log is asked later."""
        while not self._crowd.writers_stopped.is_set():
            await self._crowd.pause(0.2)
            url = random.choice(self._crowd.urls)  # noqa: S311 - a test's own dice
            with contextlib.suppress(*CONNECTION_ERRORS):
                answer = await client.get(f"{url}/agents/{self._id}/status")
                if _registry_status(answer) == 404 or (
                    _registry_status(answer) == 200 and answer.json()["status"] in _DEGRADED_STATUSES
                ):
                    return


class ListReader:
    """Lists by each filter in turn, through one replica after the other."""

    def __init__(self, crowd: LoadContext) -> None:
        self._crowd = crowd

    async def run(self) -> None:
        """Read until everything is over."""
        turn = 0
        async with open_http_client() as client:
            while not self._crowd.all_stopped.is_set():
                turn += 1
                query, wants = FILTERS[turn % len(FILTERS)]
                await self._crowd.list(client, self._crowd.urls[turn % len(self._crowd.urls)], query, wants)
                await self._crowd.pause(5 * RETRY_INTERVAL_S)


class WatchFollower:
    """Keeps a view by watching: short watches, each on another replica; lists again on 410 and on nothing else.

    `relist_count` counts how often it was told to list again, `ended_streams` the streams that came to an end. With
    `lists` it begins
    with a list and takes server-sent events, else with the state in the stream, as lines of JSON. `watch_timeout` is
    how long a watch may last.
    """

    def __init__(
        self, crowd: LoadContext, query: dict[str, str], matches: AgentFilter, *, lists: bool, watch_timeout: str = "1s"
    ) -> None:
        self.recordings: list[WatchRecording] = []
        self.relist_count = 0
        self.ended_streams = 0
        self._crowd = crowd
        self._query = query
        self._matches = matches
        self._lists = lists
        self.watch_timeout = watch_timeout
        self._next_replica = random.randrange(3)  # noqa: S311 - where it begins matters not
        self._current: WatchRecording | None = None

    @property
    def last_version(self) -> int:
        """The version up to which it has seen everything."""
        return 0 if self._current is None else self._current.last_version

    @property
    def view(self) -> dict[str, int]:
        """The agents by version it would tell of now."""
        assert self._current is not None
        return self._current.view

    async def run(self) -> None:
        """Watch until everything is over."""
        while not self._crowd.all_stopped.is_set():
            self._next_replica += 1
            url = self._crowd.urls[self._next_replica % len(self._crowd.urls)]
            with contextlib.suppress(*CONNECTION_ERRORS):
                if self._current is None:
                    await (self._list(url) if self._lists else self._watch_from_start(url))
                else:
                    await self._resume_watch(url, self._current)
            await self._crowd.pause()

    def _discard_recording(self) -> None:
        self.relist_count += 1
        self._current = None

    async def _list(self, url: str) -> None:
        async with open_http_client() as client:
            deed = await self._crowd.list(client, url, self._query, self._matches)
        if deed.status == 200:
            self._start_recording(deed.version, dict(deed.listed_versions or {}))

    async def _watch_from_start(self, url: str) -> None:
        target = {"watch": "true", "send_initial": "true", "timeout": self.watch_timeout} | self._query
        async with open_stream(url, f"/agents?{urlencode(target)}") as stream:
            state: dict[str, int] = {}
            while stream.status == 200 and (event := await stream.next_event(STREAM_IDLE_TIMEOUT_S)) is not None:
                if event.kind == "BOOKMARK":
                    await self._read_stream(stream, self._start_recording(event.version, state))
                    return
                assert event.kind == "ADDED", event
                state[event.agent_id] = event.version

    def _start_recording(self, version: int, state: dict[str, int]) -> WatchRecording:
        self._current = WatchRecording(self._matches, version, state)
        self.recordings.append(self._current)
        return self._current

    async def _resume_watch(self, url: str, recording: WatchRecording) -> None:
        target = {
            "watch": "true",
            "timeout": self.watch_timeout,
            "resource_version": str(recording.last_version),
        } | self._query
        form = {"accept": "text/event-stream"} if self._lists else {}
        async with open_stream(url, f"/agents?{urlencode(target)}", form) as stream:
            if stream.status == 410:
                assert int((await stream.json_body())["resource_version"]) > 0
                self._discard_recording()
            elif stream.status == 200:
                recording.resume()
                await self._read_stream(stream, recording)
            else:
                assert stream.status == 503, await stream.json_body()

    async def _read_stream(self, stream: WatchStream, recording: WatchRecording) -> None:
        while (event := await stream.next_event(STREAM_IDLE_TIMEOUT_S)) is not None:
            if event.kind == "ERROR":
                assert event.object["code"] == 410
                self._discard_recording()
                return
            if event.kind != "BOOKMARK":
                assert int(event.object["resource_version"]) == event.version
            recording.record(event.kind, event.agent_id, event.version)
        self.ended_streams += 1


def followers(crowd: LoadContext) -> Sequence[WatchFollower]:
    """Return a follower for each filter and each of the two forms."""
    return [WatchFollower(crowd, query, wants, lists=lists) for lists in (True, False) for query, wants in FILTERS]
