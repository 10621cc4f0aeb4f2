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

# Seconds until a client without a response tries the next replica, and between two calls of a writer.
RETRY_INTERVAL_S = 0.02
# Seconds between two heartbeats of a persistent agent.
HEARTBEAT_INTERVAL_S = 0.4
# After this time without an event a follower resumes on another replica; keep-alives come every 15 s.
STREAM_IDLE_TIMEOUT_S = 3.0
# Longer than the time in which a replica responds without Redis; a call that takes longer is counted as late.
_REQUEST_TIMEOUT_S = 6.0
_DEGRADED_STATUSES = ("degraded", "expired")
# Failures of a connection. A 404 or 410 is not one of them: it is a correct response.
CONNECTION_ERRORS = (OSError, httpx2.TransportError, asyncio.IncompleteReadError, TimeoutError)


def registration_of(agent: Agent) -> dict[str, Any]:
    """Return the registration of an agent."""
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
    """State that the clients share: URLs of the replicas, journal of the calls, and stop events.

    `writers_stopped` ends the writers, `all_stopped` the other clients. `urls` may change while they run.
    """

    urls: list[str]
    journal: CallJournal = field(default_factory=CallJournal)
    writers_stopped: asyncio.Event = field(default_factory=asyncio.Event)
    all_stopped: asyncio.Event = field(default_factory=asyncio.Event)

    async def pause(self, seconds: float = RETRY_INTERVAL_S) -> None:
        """Wait for some seconds, or until the test is over."""
        # Not wait_for: in Python 3.11 it can swallow a cancellation.
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
        """Send one request to a replica, and record the call with its response."""
        began = time.monotonic()
        try:
            if kind == "register":
                response = await client.post(f"{url}/agents", json=body)
            elif kind == "heartbeat":
                response = await client.post(f"{url}/heartbeat", json={"agent_id": agent_id})
            else:
                response = await client.delete(f"{url}/agents/{agent_id}")
        except CONNECTION_ERRORS as error:
            call = ClientCall(kind, agent_id, url, began, time.monotonic(), 0, timed_out=_is_timeout(error))
        else:
            call = ClientCall(
                kind,
                agent_id,
                url,
                began,
                time.monotonic(),
                _registry_status(response),
                *_version_and_server_time(response),
            )
        self.journal.calls.append(call)
        return call

    async def list(
        self, client: httpx2.AsyncClient, url: str, query: dict[str, str], matches: AgentFilter
    ) -> ClientCall:
        """Request a list from a replica, and record the call with its response."""
        began = time.monotonic()
        try:
            response = await client.get(f"{url}/agents", params=query)
        except CONNECTION_ERRORS as error:
            call = ClientCall("list", "", url, began, time.monotonic(), 0, timed_out=_is_timeout(error))
        else:
            version, _ = _version_and_server_time(response)
            view = None
            if response.status_code == 200:
                view = {agent["id"]: int(agent["resource_version"]) for agent in response.json()["agents"]}
            call = ClientCall(
                "list", "", url, began, time.monotonic(), _registry_status(response), version, 0, view, matches
            )
        self.journal.calls.append(call)
        return call


def _is_timeout(error: BaseException) -> bool:
    return isinstance(error, TimeoutError | httpx2.TimeoutException)


def _registry_status(response: httpx2.Response) -> int:
    """Return the status of a response of the registry; 0 for an error of a balancer."""
    return response.status_code if response.headers.get("x-request-id") else 0


def _version_and_server_time(response: httpx2.Response) -> tuple[int, int]:
    """Return the version and the server time in milliseconds in a response; assert that an error is an allowed one."""
    if not _registry_status(response):
        return 0, 0
    body = response.json()
    if response.status_code == 503:
        assert response.headers["retry-after"], response.text
        assert body["error"] in ("store_unavailable", "not_ready"), response.text
    elif response.status_code == 404:
        assert body["error"] == "unknown_agent", response.text
    timestamp = datetime.fromisoformat(body["timestamp"]) if "timestamp" in body else None
    return int(body.get("resource_version") or 0), 0 if timestamp is None else round(timestamp.timestamp() * 1000)


def open_http_client() -> httpx2.AsyncClient:
    """Return a client whose requests time out."""
    return httpx2.AsyncClient(timeout=_REQUEST_TIMEOUT_S)


class RandomWriter:
    """Registers its own agents, sends heartbeats and unregisters them, at random and through random replicas."""

    def __init__(self, context: LoadContext, number: int) -> None:
        self._context = context
        self._number = number
        self._random = random.Random(number)  # noqa: S311 - not for security
        self._write_count = 0

    async def run(self) -> None:
        """Write until the writers stop."""
        async with open_http_client() as client:
            while not self._context.writers_stopped.is_set():
                await self._write(client, self._random.choice(self._context.urls))
                await self._context.pause()

    async def _write(self, client: httpx2.AsyncClient, url: str) -> None:
        generator = self._random
        agent_id, choice = f"w{self._number}-{generator.randrange(6)}", generator.random()
        if choice < 0.2:
            await self._context.send(client, url, "unregister", agent_id)
        elif choice < 0.5:
            await self._context.send(client, url, "heartbeat", agent_id)
        else:
            self._write_count += 1
            body = {
                "id": agent_id,
                "endpoint": "http://a:1",
                "namespace": generator.choice(["n", "m"]),
                "labels": {"k": generator.choice("123"), "write": str(self._write_count)},
                "capabilities": generator.choice([["read"], ["write"], ["read", "write"]]),
                "timeout_threshold": 3600,
            }
            await self._context.send(client, url, "register", agent_id, body)


class PersistentAgent:
    """Keeps one agent healthy: sends heartbeats, retries at once, and registers again after a 404."""

    def __init__(self, context: LoadContext, agent_id: str, *, timeout: float) -> None:
        self._context = context
        self._id = agent_id
        self._body = {"id": agent_id, "endpoint": "http://a:1", "capabilities": ["live"], "timeout_threshold": timeout}
        self._next_replica = random.randrange(8)  # noqa: S311 - any start is valid

    async def run(self) -> None:
        """Send heartbeats until all clients stop."""
        async with open_http_client() as client:
            registered = False
            while not self._context.all_stopped.is_set():
                self._next_replica += 1
                url = self._context.urls[self._next_replica % len(self._context.urls)]
                kind: CallKind = "heartbeat" if registered else "register"
                call = await self._context.send(client, url, kind, self._id, self._body)
                sent_heartbeat = registered and call.status == 200
                registered = call.status == 200 or (registered and call.status != 404)
                if sent_heartbeat:
                    self._context.journal.persistent_agents.add(self._id)
                await self._context.pause(HEARTBEAT_INTERVAL_S if sent_heartbeat else RETRY_INTERVAL_S)


class IntermittentAgent:
    """Misses heartbeats until it is degraded, recovers with one heartbeat, and starts over."""

    def __init__(self, context: LoadContext, agent_id: str, *, timeout: float) -> None:
        self._context = context
        self._id = agent_id
        self._body = {"id": agent_id, "endpoint": "http://a:1", "capabilities": ["live"], "timeout_threshold": timeout}

    async def run(self) -> None:
        """Alternate between degraded and healthy until the writers stop."""
        async with open_http_client() as client:
            await self._until_accepted(client, "register")
            while not self._context.writers_stopped.is_set():
                await self._until_degraded(client)
                await self._until_accepted(client, "heartbeat")

    async def _until_accepted(self, client: httpx2.AsyncClient, kind: CallKind) -> None:
        while not self._context.writers_stopped.is_set():
            url = random.choice(self._context.urls)  # noqa: S311 - not for security
            call = await self._context.send(client, url, kind, self._id, self._body)
            if call.status == 404:
                kind = "register"
            elif call.status == 200 and kind == "heartbeat":
                return
            elif call.status == 200:
                kind = "heartbeat"
            await self._context.pause()

    async def _until_degraded(self, client: httpx2.AsyncClient) -> None:
        """Wait until the agent is degraded or removed; the log shows later whether that was in time."""
        while not self._context.writers_stopped.is_set():
            await self._context.pause(0.2)
            url = random.choice(self._context.urls)  # noqa: S311 - not for security
            with contextlib.suppress(*CONNECTION_ERRORS):
                response = await client.get(f"{url}/agents/{self._id}/status")
                if _registry_status(response) == 404 or (
                    _registry_status(response) == 200 and response.json()["status"] in _DEGRADED_STATUSES
                ):
                    return


class ListReader:
    """Lists with each filter, through one replica after the other."""

    def __init__(self, context: LoadContext) -> None:
        self._context = context

    async def run(self) -> None:
        """List until all clients stop."""
        round_number = 0
        async with open_http_client() as client:
            while not self._context.all_stopped.is_set():
                round_number += 1
                query, matches = FILTERS[round_number % len(FILTERS)]
                await self._context.list(
                    client, self._context.urls[round_number % len(self._context.urls)], query, matches
                )
                await self._context.pause(5 * RETRY_INTERVAL_S)


class WatchFollower:
    """Maintains a view with short watches, each on the next replica; lists again only after a 410.

    `relist_count` counts the 410s, `ended_streams` the streams that ended. With `lists` it starts with a list and
    receives server-sent events, otherwise it starts with the state in the stream and receives lines of JSON.
    `watch_timeout` is the maximum duration of a watch.
    """

    def __init__(
        self,
        context: LoadContext,
        query: dict[str, str],
        matches: AgentFilter,
        *,
        lists: bool,
        watch_timeout: str = "1s",
    ) -> None:
        self.recordings: list[WatchRecording] = []
        self.relist_count = 0
        self.ended_streams = 0
        self._context = context
        self._query = query
        self._matches = matches
        self._lists = lists
        self.watch_timeout = watch_timeout
        self._next_replica = random.randrange(3)  # noqa: S311 - any start is valid
        self._current: WatchRecording | None = None

    @property
    def last_version(self) -> int:
        """The version up to which the follower has received all changes."""
        return 0 if self._current is None else self._current.last_version

    @property
    def view(self) -> dict[str, int]:
        """The versions of the agents in its view, by id."""
        assert self._current is not None
        return self._current.view

    async def run(self) -> None:
        """Watch until all clients stop."""
        while not self._context.all_stopped.is_set():
            self._next_replica += 1
            url = self._context.urls[self._next_replica % len(self._context.urls)]
            with contextlib.suppress(*CONNECTION_ERRORS):
                if self._current is None:
                    await (self._list(url) if self._lists else self._watch_from_start(url))
                else:
                    await self._resume_watch(url, self._current)
            await self._context.pause()

    def _discard_recording(self) -> None:
        self.relist_count += 1
        self._current = None

    async def _list(self, url: str) -> None:
        async with open_http_client() as client:
            call = await self._context.list(client, url, self._query, self._matches)
        if call.status == 200:
            self._start_recording(call.version, dict(call.listed_versions or {}))

    async def _watch_from_start(self, url: str) -> None:
        target = {"watch": "true", "send_initial": "true", "timeout": self.watch_timeout} | self._query
        async with open_stream(url, f"/agents?{urlencode(target)}", timeout=STREAM_IDLE_TIMEOUT_S) as stream:
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
        headers = {"accept": "text/event-stream"} if self._lists else {}
        async with open_stream(url, f"/agents?{urlencode(target)}", headers, timeout=STREAM_IDLE_TIMEOUT_S) as stream:
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


def followers(context: LoadContext) -> Sequence[WatchFollower]:
    """Return a follower for each filter and each of the two stream formats."""
    return [
        WatchFollower(context, query, matches, lists=lists) for lists in (True, False) for query, matches in FILTERS
    ]
