"""Benchmarks of the client: the import, and a call of a dependency compared with a call by the MCP SDK."""

import asyncio
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from typing import Any

from mcp import Client
from mcp_mesh_client.agent.agent_function import AgentFunction
from mcp_mesh_client.agent.local_agent import LocalAgent
from mcp_mesh_client.event_loop_thread import EventLoopThread

from benchmarks.context import BenchmarkContext
from benchmarks.provider import RESULT, TOOL
from benchmarks.servers import Server
from benchmarks.table import Table, milliseconds, verdict

_IMPORT_RUNS = 9
_CALLS_PER_ROUND, _ROUNDS = 10, 300
_MAX_RATIO = 1.05
# A new interpreter runs this program and prints the CPU time of the import.
_IMPORT_PROGRAM = "import time; began = time.process_time(); import {}; print(time.process_time() - began)"

Case = Callable[[], Awaitable[None]]


async def import_time(_lab: BenchmarkContext) -> Table:
    """Import the client, its base and the libraries that it imports later, alternately, in new interpreters."""
    names = ("asyncio", "mcp_mesh_client", "httpx2", "mcp")
    durations: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(_IMPORT_RUNS):
        for name in names:
            done = await asyncio.to_thread(
                subprocess.run, [sys.executable, "-c", _IMPORT_PROGRAM.format(name)], capture_output=True, check=True
            )
            durations[name].append(float(done.stdout))
    table = Table("Importing, CPU time in ms", ("import", "median", "worst", "of asyncio", "target"))
    for name in names:
        median = statistics.median(durations[name])
        limit = 150 if name == "mcp_mesh_client" else None
        ratio = median / statistics.median(durations["asyncio"])
        table.add(
            name,
            milliseconds(median),
            milliseconds(max(durations[name])),
            f"{ratio:.2f}",
            verdict(median * 1000, at_most=limit),
        )
    return table


@contextlib.contextmanager
def _running_provider(context: BenchmarkContext) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.provider"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        server = Server(process, context.options.cores.servers)
        try:
            assert process.stdout is not None
            yield process.stdout.readline().decode().strip()
        finally:
            server.stop()


async def injected_call(context: BenchmarkContext) -> Table:
    """Call one tool of one provider alternately: by the SDK, and as a dependency of functions of both kinds.

    A function that is not async cannot await the SDK, so its call is compared with an SDK call that is submitted to an
    event loop in another thread. Each round compares calls that follow each other directly; the median round counts.
    """
    agent = LocalAgent()
    with _running_provider(context) as endpoint:
        url = f"{endpoint}/mcp"
        try:
            async with Client(url) as client, _open_in_thread(agent.thread, Client(url)) as other:
                durations = await _measure_calls(_call_cases(agent, endpoint, client, other))
        finally:
            await asyncio.to_thread(agent.close)
    table = Table(
        f"A call of a tool, {_ROUNDS} rounds of {_CALLS_PER_ROUND}, ms",
        ("call", "median", "best", "of the SDK's", "target"),
    )
    for name, reference_name, limit in (
        ("SDK, awaited", None, None),
        ("dependency, awaited", "SDK, awaited", _MAX_RATIO),
        ("SDK, from a thread", None, None),
        ("dependency, from a thread", "SDK, from a thread", _MAX_RATIO),
    ):
        ratio = None if reference_name is None else _median_ratio(durations[name], durations[reference_name])
        target = "" if ratio is None or limit is None else f"<= {limit:.2f} {'met' if ratio <= limit else 'MISSED'}"
        ratio_text = "" if ratio is None else f"{ratio:.3f}"
        table.add(
            name,
            milliseconds(statistics.median(durations[name])),
            milliseconds(min(durations[name])),
            ratio_text,
            target,
        )
    return table


async def _measure_calls(cases: dict[str, Case]) -> dict[str, list[float]]:
    """Return the seconds per call of each case, for each round after a warm-up round."""
    durations: dict[str, list[float]] = {name: [] for name in cases}
    for round_number in range(_ROUNDS + 1):
        # The order alternates from round to round.
        for name in list(cases)[:: 1 if round_number % 2 else -1]:
            started = time.perf_counter()
            await cases[name]()
            if round_number:
                durations[name].append((time.perf_counter() - started) / _CALLS_PER_ROUND)
    return durations


@contextlib.asynccontextmanager
async def _open_in_thread(thread: EventLoopThread, client: Client) -> AsyncIterator[Client]:
    """Open a client on the event loop of a thread, in one task."""
    opened: Future[None] = Future()
    end = asyncio.Event()

    async def run_client() -> None:
        async with client:
            opened.set_result(None)
            await end.wait()

    async def close() -> None:
        end.set()

    running = thread.submit(run_client())
    await asyncio.wrap_future(opened)
    try:
        yield client
    finally:
        await asyncio.wrap_future(thread.submit(close()))
        await asyncio.wrap_future(running)


def _median_ratio(seconds: list[float], reference: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(seconds, reference, strict=True))


def _call_cases(agent: LocalAgent, endpoint: str, client: Client, other: Client) -> dict[str, Case]:
    """Return the cases: each makes several calls in sequence and checks the responses."""

    async def by_sdk() -> None:
        for _ in range(_CALLS_PER_ROUND):
            result = await client.call_tool(TOOL)
            assert result.structured_content == {"result": RESULT}

    def sdk_in_thread() -> None:
        for _ in range(_CALLS_PER_ROUND):
            result = agent.thread.submit(other.call_tool(TOOL)).result()
            assert result.structured_content == {"result": RESULT}

    by_dependency, dependency_in_thread = _dependency_cases(agent, endpoint)
    return {
        "SDK, awaited": by_sdk,
        "dependency, awaited": by_dependency,
        "SDK, from a thread": lambda: asyncio.to_thread(sdk_in_thread),
        "dependency, from a thread": lambda: asyncio.to_thread(dependency_in_thread),
    }


def _dependency_cases(agent: LocalAgent, endpoint: str) -> tuple[Case, Callable[[], None]]:
    """Return the same calls as dependencies of an async function and of a blocking one."""

    async def use(it: Any = None) -> Any:
        return await it()

    def use_blocking(it: Any = None) -> Any:
        return it()

    wrappers = []
    for original in (use, use_blocking):
        function = AgentFunction(original, original.__name__, [{"capability": "use"}], ["it"], agent.caller, 30.0)
        function.dependencies["it"].resolve({"agent_id": "provider", "endpoint": endpoint, "tool_name": TOOL})
        wrappers.append(function.wrapper)
    awaited, blocking = wrappers

    async def by_dependency() -> None:
        for _ in range(_CALLS_PER_ROUND):
            assert await awaited() == RESULT

    def dependency_in_thread() -> None:
        for _ in range(_CALLS_PER_ROUND):
            assert blocking() == RESULT

    return by_dependency, dependency_in_thread
