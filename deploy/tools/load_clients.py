"""Who calls through the balancer: agents that try again, watchers that resume, readers that only count."""

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

_PATIENCE = 30.0
_SERVER_ERROR = 500
_OK = 200
# A try that failed is repeated after a random share of this, so that not all come back at once.
_PAUSE = 0.3
# Between two calls of the background.
_REST = 0.02


def a_session(url: str) -> aiohttp.ClientSession:
    """Return a session without a limit of connections: what is called at once goes out at once."""
    timeout = aiohttp.ClientTimeout(total=_PATIENCE)
    return aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0), timeout=timeout)


@dataclass
class Load:
    """What came of many registrations at once: who is registered, after how long, and what went wrong on the way."""

    asked: int
    ids: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def percentile(self, share: float) -> float:
        """Return the latency, with repeated tries, that this share of the registrations did not exceed, in seconds."""
        return sorted(self.latencies)[math.ceil(share * len(self.latencies)) - 1] if self.latencies else math.nan


async def register_at_once(
    session: aiohttp.ClientSession, agents: Sequence[dict[str, Any]], on_answer: Callable[[int], None]
) -> Load:
    """Register all agents at once, each over a connection of its own; `on_answer` is told how many are done."""
    load = Load(len(agents))

    async def register(agent: dict[str, Any]) -> None:
        began = time.perf_counter()
        while time.perf_counter() - began < _PATIENCE:
            trouble = await _try(session, agent)
            if trouble is None:
                load.latencies.append(time.perf_counter() - began)
                load.ids.append(agent["id"])
                on_answer(len(load.ids))
                return
            load.troubles.append(trouble)
            await asyncio.sleep(random.uniform(_PAUSE / 10, _PAUSE))

    began = time.perf_counter()
    await asyncio.gather(*map(register, agents))
    load.seconds = time.perf_counter() - began
    return load


async def _try(session: aiohttp.ClientSession, agent: dict[str, Any]) -> str | None:
    """Register once; say what went wrong, None if nothing did."""
    try:
        async with session.post("/agents", json=agent) as answer:
            body = await answer.text()
    except (aiohttp.ClientError, TimeoutError) as error:
        return f"{type(error).__name__}: {error}"
    return None if answer.status == _OK else f"{answer.status} {body[:200]}"


@dataclass
class Reads:
    """Calls that go on until there are enough: how many, the longest in seconds, how many stale, what went wrong."""

    count: int = 0
    longest: float = 0.0
    stale: int = 0
    troubles: list[str] = field(default_factory=list)
    enough: bool = False

    async def go_on(self, session: aiohttp.ClientSession, method: str, path: str, document: object) -> None:
        """Call, rest a moment, call again; nothing is tried twice."""
        while not self.enough:
            began = time.perf_counter()
            try:
                async with session.request(method, path, json=document) as answer:
                    body = await answer.text()
                if answer.status != _OK:
                    self.troubles.append(f"{answer.status} {body[:200]}")
                self.stale += "x-registry-stale" in answer.headers
            except (aiohttp.ClientError, TimeoutError) as error:
                self.troubles.append(f"{type(error).__name__}: {error}")
            self.count += 1
            self.longest = max(self.longest, time.perf_counter() - began)
            await asyncio.sleep(_REST)


class Watch:
    """A watch that is resumed wherever it ends; `seen` tells when each event came, by kind and id."""

    def __init__(self, session: aiohttp.ClientSession, query: str, version: str) -> None:
        self.version = version
        self.seen: dict[tuple[str, str], list[float]] = {}
        self.resumed = 0
        self.signs = [time.monotonic()]  # of life: events, bookmarks and keep-alives
        self._session = session
        self._query = query
        self._open = asyncio.Event()
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        opened = asyncio.create_task(self._open.wait())
        await asyncio.wait([self._task, opened], timeout=_PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        opened.cancel()
        self.check()
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def check(self) -> None:
        """Raise what ended the watch for good, if anything did."""
        if self._task.done():
            self._task.result()

    async def reaches(self, events: AbstractSet[tuple[str, str]]) -> None:
        """Wait until all these events were seen. Raises AssertionError when they are not in time."""
        deadline = time.monotonic() + _PATIENCE
        while missing := events - self.seen.keys():
            self.check()
            if time.monotonic() >= deadline:
                raise AssertionError(f"the watch has not shown {len(missing)} events, such as {min(missing)}")
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), 1)

    @property
    def longest_silence(self) -> float:
        """The longest time without a sign of life, in seconds."""
        moments = [*self.signs, time.monotonic()]
        return max(later - sooner for sooner, later in itertools.pairwise(moments))

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                await self._follow()
            self.resumed += 1
            await asyncio.sleep(random.uniform(_PAUSE / 10, _PAUSE))

    async def _follow(self) -> None:
        path = f"/agents?watch=true&resource_version={self.version}{self._query}"
        async with self._session.get(path, timeout=aiohttp.ClientTimeout(sock_connect=5)) as answer:
            if answer.status >= _SERVER_ERROR:
                return
            if answer.status != _OK:
                raise AssertionError(f"the watch was answered with {answer.status} {await answer.text()}")
            self._open.set()
            async for line in answer.content:
                self.signs.append(time.monotonic())
                if line.strip():
                    self._note(orjson.loads(line))

    def _note(self, event: dict[str, Any]) -> None:
        if event["type"] == "ERROR":
            raise AssertionError(f"the watch ended with {event['object']}")
        self.version = event["resource_version"]
        if event["type"] != "BOOKMARK":
            self.seen.setdefault((event["type"], event["object"]["id"]), []).append(time.monotonic())
            self._news.set()
