"""Clients of the load balancer: registrations with retries, watches that resume, and background calls."""

import asyncio
import contextlib
import itertools
import math
import random
import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
import orjson

_TIMEOUT_S = 30.0
_HTTP_SERVER_ERROR = 500
_HTTP_OK = 200
# A failed attempt is repeated after a random part of this, so that not all retry at once.
_MAX_RETRY_DELAY_S = 0.3
# Pause between two background calls.
_CALL_INTERVAL_S = 0.02


def open_session(url: str) -> aiohttp.ClientSession:
    """Return a session without a connection limit, so that concurrent calls are sent at once."""
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    return aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0), timeout=timeout)


@dataclass
class LoadResult:
    """The result of many concurrent registrations: registered ids, latencies, and errors of single attempts."""

    requested: int
    registered_ids: list[str] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    duration_s: float = 0.0

    def latency_percentile(self, fraction: float) -> float:
        """Return the latency in seconds, retries included, that this share of the registrations did not exceed."""
        return (
            sorted(self.latencies_s)[math.ceil(fraction * len(self.latencies_s)) - 1] if self.latencies_s else math.nan
        )


async def register_concurrently(
    session: aiohttp.ClientSession, agents: Sequence[dict[str, Any]], on_registered: Callable[[int], None]
) -> LoadResult:
    """Register all agents at once, each over its own connection; `on_registered` receives the number so far."""
    load = LoadResult(len(agents))

    async def register(agent: dict[str, Any]) -> None:
        started = time.perf_counter()
        while time.perf_counter() - started < _TIMEOUT_S:
            error = await _try_register(session, agent)
            if error is None:
                load.latencies_s.append(time.perf_counter() - started)
                load.registered_ids.append(agent["id"])
                on_registered(len(load.registered_ids))
                return
            load.errors.append(error)
            await asyncio.sleep(random.uniform(_MAX_RETRY_DELAY_S / 10, _MAX_RETRY_DELAY_S))

    started = time.perf_counter()
    await asyncio.gather(*map(register, agents))
    load.duration_s = time.perf_counter() - started
    return load


async def _try_register(session: aiohttp.ClientSession, agent: dict[str, Any]) -> str | None:
    """Register once; return the error, or None."""
    try:
        async with session.post("/agents", json=agent) as response:
            body = await response.text()
    except (aiohttp.ClientError, TimeoutError) as error:
        return f"{type(error).__name__}: {error}"
    return None if response.status == _HTTP_OK else f"{response.status} {body[:200]}"


@dataclass
class BackgroundCalls:
    """Calls until `stop_requested`: their number, the longest in seconds, the number of stale ones, and errors."""

    count: int = 0
    longest_s: float = 0.0
    stale_count: int = 0
    errors: list[str] = field(default_factory=list)
    stop_requested: bool = False

    async def call_until_stopped(
        self, session: aiohttp.ClientSession, method: str, path: str, document: object
    ) -> None:
        """Call at an interval; a failed call is not repeated."""
        while not self.stop_requested:
            started = time.perf_counter()
            try:
                async with session.request(method, path, json=document) as response:
                    body = await response.text()
                if response.status != _HTTP_OK:
                    self.errors.append(f"{response.status} {body[:200]}")
                self.stale_count += "x-registry-stale" in response.headers
            except (aiohttp.ClientError, TimeoutError) as error:
                self.errors.append(f"{type(error).__name__}: {error}")
            self.count += 1
            self.longest_s = max(self.longest_s, time.perf_counter() - started)
            await asyncio.sleep(_CALL_INTERVAL_S)


class ResumingWatch:
    """A watch that resumes when it ends; `event_times` has the arrival times of each event by type and id."""

    def __init__(self, session: aiohttp.ClientSession, query: str, version: str) -> None:
        self.version = version
        self.event_times: dict[tuple[str, str], list[float]] = {}
        self.resume_count = 0
        self.received_at = [time.monotonic()]  # times of events, bookmarks and keep-alives
        self._session = session
        self._query = query
        self._opened = asyncio.Event()
        self._event_received = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        opened = asyncio.create_task(self._opened.wait())
        await asyncio.wait([self._task, opened], timeout=_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        opened.cancel()
        self.raise_if_failed()
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def raise_if_failed(self) -> None:
        """Raise the error that ended the watch, if there is one."""
        if self._task.done():
            self._task.result()

    async def wait_for_events(self, events: AbstractSet[tuple[str, str]]) -> None:
        """Wait until all these events have arrived. Raises AssertionError after the timeout."""
        deadline = time.monotonic() + _TIMEOUT_S
        while missing := events - self.event_times.keys():
            self.raise_if_failed()
            if time.monotonic() >= deadline:
                raise AssertionError(f"the watch has not received {len(missing)} events, such as {min(missing)}")
            self._event_received.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._event_received.wait(), 1)

    @property
    def longest_gap_s(self) -> float:
        """The longest time without any data, in seconds."""
        moments = [*self.received_at, time.monotonic()]
        return max(later - earlier for earlier, later in itertools.pairwise(moments))

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                await self._read_stream()
            self.resume_count += 1
            await asyncio.sleep(random.uniform(_MAX_RETRY_DELAY_S / 10, _MAX_RETRY_DELAY_S))

    async def _read_stream(self) -> None:
        path = f"/agents?watch=true&resource_version={self.version}{self._query}"
        async with self._session.get(path, timeout=aiohttp.ClientTimeout(sock_connect=5)) as response:
            if response.status >= _HTTP_SERVER_ERROR:
                return
            if response.status != _HTTP_OK:
                raise AssertionError(f"the watch returned {response.status} {await response.text()}")
            self._opened.set()
            async for line in response.content:
                self.received_at.append(time.monotonic())
                if line.strip():
                    self._record_event(orjson.loads(line))

    def _record_event(self, event: dict[str, Any]) -> None:
        if event["type"] == "ERROR":
            raise AssertionError(f"the watch ended with {event['object']}")
        self.version = event["resource_version"]
        if event["type"] != "BOOKMARK":
            self.event_times.setdefault((event["type"], event["object"]["id"]), []).append(time.monotonic())
            self._event_received.set()
