"""The benchmark of searches: the longest time for which one occupies the event loop of a replica."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from starlette.types import ASGIApp, Message

from benchmarks import agents
from benchmarks.context import STEP_TIMEOUT_S, BenchmarkContext
from benchmarks.table import Table, milliseconds, verdict
from registry.config.settings import Settings
from registry.main import open_registry

_MAX_STEP_MS = 20
_MAX_NAME_CHARS, _MAX_NAMES = 253, 100
# Nearly the name of an agent's capability, up to the maximum length.
_LONG_NAME = (agents.shared_capability(7) + "-own-agent-") * 20
_WORDS = ("documnt", "archve", "reprts", "agnet", "serches", "offrs", "capabilty")


def _searches(size: int) -> dict[str, str]:
    """Return the target of each request; together the longest and the most expensive searches that are allowed."""
    similar = [f"capability={agents.shared_capability(number)}x" for number in range(_MAX_NAMES)]
    # As many of the longest names as a query string of 8 KiB contains.
    longest = [f"capability={number:02d}{_LONG_NAME[: _MAX_NAME_CHARS - 2]}" for number in range(30)]
    any_of = "/agents?fuzzy_match=true&match=any&"
    text = quote(" ".join(_WORDS * 6)[:_MAX_NAME_CHARS])
    return {
        "1 name, similar to 1 of 10 agents": f"/agents?fuzzy_match=true&{similar[0]}",
        "1 name of 253 characters": f"/agents?fuzzy_match=true&capability={_LONG_NAME[:_MAX_NAME_CHARS]}",
        "100 names": any_of + "&".join(similar),
        "30 names of 253 characters": any_of + "&".join(longest),
        f"matches all {size:,} agents": f"{any_of}capability=common&capability=own&capability=agent",
        "text in capabilities": "/capabilities?q=documnts",
        "text of 42 words in capabilities": f"/capabilities?q={text}",
        f"matches all {4 * size:,} capabilities": "/capabilities?q=a",
    }


async def search_steps(context: BenchmarkContext) -> Table:
    """Run searches on a replica in this process, and measure the CPU time between two turns of other tasks."""
    size = context.options.agents
    mesh = await context.mesh(size)
    header = ("search", "agents", "CPU ms", "steps", "longest ms", "target")
    table = Table("Searches, CPU time for which one occupies the event loop at a time", header)
    async with open_registry(Settings(redis_url=mesh.store.url)) as registry:
        await registry.reflector.wait_fresh()
        for name, target in _searches(size).items():
            async with asyncio.timeout(STEP_TIMEOUT_S), _measure_steps() as steps:
                await _get(registry.api_app, target)
            table.add(
                name,
                f"{size:,}",
                milliseconds(steps.total_s),
                f"{steps.count:,}",
                milliseconds(steps.longest_s),
                verdict(steps.longest_s * 1000, at_most=_MAX_STEP_MS),
            )
    return table


@dataclass(slots=True)
class _Steps:
    count: int = 0
    total_s: float = 0.0
    longest_s: float = 0.0


@contextlib.asynccontextmanager
async def _measure_steps() -> AsyncIterator[_Steps]:
    """Yield the steps of all other tasks meanwhile: the CPU time of this thread between two of its own turns."""
    steps = _Steps()

    async def observe() -> None:
        while True:
            started = time.thread_time()
            await asyncio.sleep(0)
            elapsed = time.thread_time() - started
            steps.count += 1
            steps.total_s += elapsed
            steps.longest_s = max(steps.longest_s, elapsed)

    observer = asyncio.create_task(observe())
    try:
        yield steps
    finally:
        observer.cancel()


async def _get(app: ASGIApp, target: str) -> None:
    """Send a GET request to an application. Raises AssertionError unless the response is 200."""
    path, _, query = target.partition("?")
    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(b"host", b"localhost")],
        "http_version": "1.1",
        "scheme": "http",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "extensions": {},
    }
    messages: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        messages.append(message)

    await app(scope, receive, send)
    assert messages[0]["status"] == 200, messages
