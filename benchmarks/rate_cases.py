"""The benchmark cases that measure rates: requests per CPU-second of the server process."""

import asyncio
import itertools
import statistics
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks import agents
from benchmarks.context import CONNECTIONS, CONSTANT_EXCHANGE, REPEATS, STEP_TIMEOUT_S, BenchmarkContext
from benchmarks.load_generator import Clients, Exchange, quantile
from benchmarks.servers import RedisStore, Server
from benchmarks.table import Table, milliseconds, verdict

_WARM_UP_S = 1.0


@dataclass(slots=True)
class RateMeasurement:
    """One rate in requests per CPU-second, measured several times. CPU times and latencies are in seconds."""

    label: str
    size: int | None
    target: int | None
    server: Server
    port: int
    store: RedisStore | None
    source: Iterator[Exchange]
    per_cpu: list[float] = field(default_factory=list)
    per_second: list[float] = field(default_factory=list)
    store_cpu: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    with_unrelated_changes: bool = False

    async def run(self, seconds: float) -> None:
        """Measure once: warm up, then count responses and the CPU time of the server."""
        async with asyncio.timeout(STEP_TIMEOUT_S), Clients(self.port, connections=CONNECTIONS) as clients:
            load = asyncio.create_task(clients.closed_loop(self.source))
            changes = asyncio.create_task(
                _unrelated_changes(self.port) if self.with_unrelated_changes else asyncio.sleep(0)
            )
            await _sleep_or_fail(load, _WARM_UP_S)
            clients.reset()
            cpu, store, started = self._cpu()
            await _sleep_or_fail(load, seconds)
            cpu, store, elapsed = (
                after - before for after, before in zip(self._cpu(), (cpu, store, started), strict=True)
            )
            latencies = clients.latencies[:]
            clients.stop()
            await load
            changes.cancel()
            await asyncio.gather(changes, return_exceptions=True)
        responses = len(latencies)
        self.per_cpu.append(responses / cpu)
        self.per_second.append(responses / elapsed)
        self.store_cpu.append(store / responses)
        self.p50.append(quantile(latencies, 0.5))
        self.p99.append(quantile(latencies, 0.99))

    def _cpu(self) -> tuple[float, float, float]:
        store = self.store.cpu_seconds if self.store is not None else 0.0
        return self.server.cpu_seconds, store, time.perf_counter()


async def _unrelated_changes(port: int) -> None:
    """Change an agent that is in none of the lists, twenty times a second, until cancelled."""
    async with Clients(port, connections=1) as clients:
        changes = agents.registrations(1, namespace="elsewhere")
        await clients.open_loop(changes, rate=20, seconds=STEP_TIMEOUT_S, spin=False)


def _etag(url: str) -> str:
    with urllib.request.urlopen(url) as response:  # noqa: S310 - loopback
        return str(response.headers["etag"])


async def measure_rates(context: BenchmarkContext, names: Sequence[str]) -> Table:
    """Measure all rates round robin, so that a busy minute of the machine affects every rate."""
    port = context.constant.port
    constant = RateMeasurement(
        "constant", None, None, context.constant, port, None, itertools.repeat(CONSTANT_EXCHANGE)
    )
    measurements = [constant]
    for name, case in _RATE_CASES.items():
        if name in names:
            measurements += await case(context, context.options.agents)
    for repeat in range(REPEATS):
        print(f"rates, repeat {repeat + 1} of {REPEATS}")
        for measure in measurements:
            await measure.run(context.options.seconds)
    return _rate_table(measurements, constant)


async def _measure(
    context: BenchmarkContext, label: str, size: int, target: int | None, source: Iterator[Exchange]
) -> RateMeasurement:
    mesh = await context.mesh(size)
    return RateMeasurement(label, size, target, mesh.replica, mesh.replica.port, mesh.store, source)


async def _heartbeats(context: BenchmarkContext, size: int) -> list[RateMeasurement]:
    return [
        await _measure(context, "heartbeat", each, 10_000, itertools.cycle(agents.heartbeats(each)))
        for each in (size // 100, size, size * 10)
    ]


async def _dependency_heartbeats(context: BenchmarkContext, size: int) -> list[RateMeasurement]:
    """Measure heartbeats of agents with three dependencies each, and of agents without dependencies."""
    mesh = await context.mesh(size, build=agents.consumer)
    versions: dict[int, bytes] = {}
    async with asyncio.timeout(STEP_TIMEOUT_S), Clients(mesh.replica.port, connections=CONNECTIONS) as clients:
        # Twice: on a busy machine the cache is behind at first, and the next heartbeat has another version.
        for _ in range(2):
            await clients.closed_loop(agents.heartbeats_recording_versions(size, versions))
    sources = (
        ("heartbeat, 3 dependencies", itertools.cycle(agents.heartbeats_with_known_version(versions))),
        ("heartbeat, 3 dependencies sent", itertools.cycle(list(agents.heartbeats_recording_versions(size, {})))),
    )
    port = mesh.replica.port
    return [
        await _measure(context, "heartbeat", size, 10_000, itertools.cycle(agents.heartbeats(size))),
        *(RateMeasurement(label, size, None, mesh.replica, port, mesh.store, source) for label, source in sources),
    ]


async def _mcp_heartbeats(context: BenchmarkContext, size: int) -> list[RateMeasurement]:
    """Measure heartbeats as MCP tool calls, in both protocol versions, and over HTTP."""
    sources = (
        ("heartbeat", agents.heartbeats(size)),
        ("heartbeat over MCP, 2025-11-25", agents.mcp_heartbeats(size, "2025-11-25")),
        ("heartbeat over MCP, 2026-07-28", agents.mcp_heartbeats(size, "2026-07-28")),
    )
    return [await _measure(context, label, size, None, itertools.cycle(source)) for label, source in sources]


async def _registrations(context: BenchmarkContext, size: int) -> list[RateMeasurement]:
    return [await _measure(context, "register", size, 5_000, agents.registrations(size))]


async def _discoveries(context: BenchmarkContext, size: int) -> list[RateMeasurement]:
    sizes = (size // 10, size, size * 10)
    measurements = [
        await _measure(context, "discover", each, 8_000, itertools.cycle(agents.discoveries(each))) for each in sizes
    ]
    # The same queries at each size: a difference comes from agents that do not match.
    for each in sizes[1:]:
        queries = itertools.cycle(agents.discoveries(each)[:100])
        measurements.append(await _measure(context, "discover, 100 names", each, 8_000, queries))
    return measurements


async def _lists(context: BenchmarkContext, size: int) -> list[RateMeasurement]:
    """Measure lists while agents that are in none of them change.

    A tenth of all agents is in one namespace: in a store of 10,000 that is a list of 1,000. A separate mesh is used,
    because registrations would change the lists.
    """
    mesh = await context.mesh(size, exclusive=True)
    rows, port = size // 10, mesh.replica.port
    etag = await asyncio.to_thread(_etag, f"http://127.0.0.1:{port}/agents?namespace=ns-1&limit=100")
    sources = (
        ("page of 100", 3_000, agents.page(100)),
        (f"list of {rows:,}", 1_000, agents.full_list(rows)),
        ("page of 100, unchanged: 304", None, agents.conditional_page(etag)),
    )
    return [
        RateMeasurement(
            label, size, target, mesh.replica, port, mesh.store, itertools.repeat(exchange), with_unrelated_changes=True
        )
        for label, target, exchange in sources
    ]


_RATE_CASES: Mapping[str, Callable[[BenchmarkContext, int], Awaitable[list[RateMeasurement]]]] = {
    "heartbeat": _heartbeats,
    "dependencies": _dependency_heartbeats,
    "mcp": _mcp_heartbeats,
    "register": _registrations,
    "discover": _discoveries,
    "lists": _lists,
}
CASE_NAMES = tuple(_RATE_CASES)


def _rate_table(measurements: Sequence[RateMeasurement], constant: RateMeasurement) -> Table:
    table = Table(
        "Requests per CPU-second of the server process, all its 100 clients busy",
        (
            *("case", "agents", "per CPU-s", "min to max", "of constant", "target"),
            *("per second", "p50 ms", "p99 ms", "Redis us each", "RSS MB"),
        ),
    )
    constant_rate = statistics.median(constant.per_cpu)
    for each in measurements:
        rate = statistics.median(each.per_cpu)
        table.add(
            each.label,
            f"{each.size:,}" if each.size is not None else "",
            f"{rate:,.0f}",
            f"{min(each.per_cpu):,.0f} to {max(each.per_cpu):,.0f}",
            f"{rate / constant_rate:.2f}",
            verdict(rate, at_least=each.target),
            f"{statistics.median(each.per_second):,.0f}",
            milliseconds(statistics.median(each.p50)),
            milliseconds(statistics.median(each.p99)),
            f"{statistics.median(each.store_cpu) * 1e6:.0f}" if each.store is not None else "",
            f"{each.server.resident_bytes / 1e6:.0f}",
        )
    return table


async def _sleep_or_fail(load: "asyncio.Task[None]", seconds: float) -> None:
    """Let the load run for this time. Raises its error if it ends before."""
    done, _ = await asyncio.wait((load,), timeout=seconds)
    if done:
        await load
        raise RuntimeError("The load ended too early")
