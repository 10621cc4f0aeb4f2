"""The benchmark cases with their repetitions and targets, and the cases that measure times."""

import asyncio
import contextlib
import itertools
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence

from benchmarks import agents, rate_cases
from benchmarks.client_cases import import_time, injected_call
from benchmarks.context import (
    CONNECTIONS,
    CONSTANT_EXCHANGE,
    REPEATS,
    STEP_TIMEOUT_S,
    BenchmarkContext,
    Options,
    filled_mesh,
)
from benchmarks.load_generator import Clients, Exchange, quantile
from benchmarks.provider_departure import provider_departure
from benchmarks.search_steps import search_steps
from benchmarks.servers import Mesh, running_constant, running_mesh
from benchmarks.table import Table, times_table
from benchmarks.watch_latency import watch_latency

BURST_COUNT = 7
FILL_COUNT = 5
HEARTBEAT_INTERVAL_S = 5.0


async def burst(context: BenchmarkContext) -> Table:
    """Measure the registration of 100 new agents at once, at one replica and at three."""
    table = times_table()
    for size in (context.options.agents // 10, context.options.agents):
        with contextlib.ExitStack() as stack:
            mesh = await filled_mesh(stack, context.options.cores, size)
            for replicas in (1, 3):
                while len(mesh.replicas) < replicas:
                    mesh.replicas.append(mesh.start_replica())
                    stack.callback(mesh.replicas[-1].stop)
                durations, constant_durations = [], []
                for repeat in range(BURST_COUNT):
                    constant_durations.append(await _measure_constant_burst(context))
                    durations.append(await _measure_burst(mesh, f"burst-{replicas}-{repeat}"))
                table.add_times(
                    f"burst, {replicas} replica{'s' * (replicas > 1)}",
                    size,
                    "wall time until the last response",
                    durations,
                    constant_durations,
                    0.05,
                )
    return table


async def _measure_burst(mesh: Mesh, namespace: str) -> float:
    """Return the duration in seconds. Afterwards every replica lists all of them, and they are unregistered."""
    ports = [replica.port for replica in mesh.replicas]
    async with asyncio.timeout(STEP_TIMEOUT_S), Clients(*ports, connections=CONNECTIONS) as clients:
        duration = await _send_at_once(clients, agents.new_registrations(CONNECTIONS, namespace))
    async with asyncio.timeout(STEP_TIMEOUT_S), Clients(*ports, connections=len(ports)) as clients:
        await clients.at_once([agents.namespace_list(CONNECTIONS, namespace)] * len(ports))
        await clients.closed_loop(agents.unregistrations(CONNECTIONS, namespace))
    return duration


async def _measure_constant_burst(context: BenchmarkContext) -> float:
    async with asyncio.timeout(STEP_TIMEOUT_S), Clients(context.constant.port, connections=CONNECTIONS) as clients:
        return await _send_at_once(clients, [CONSTANT_EXCHANGE] * CONNECTIONS)


async def _send_at_once(clients: Clients, exchanges: Sequence[Exchange]) -> float:
    """Return the seconds from before the first request until the last response."""
    # The server's event loop may not have accepted all new connections yet.
    await asyncio.sleep(0.1)
    started = time.perf_counter()
    await clients.at_once(exchanges)
    return time.perf_counter() - started


async def steady_heartbeats(context: BenchmarkContext) -> Table:
    """Send a heartbeat of every agent each 5 s, with Redis on the replica's core and an AOF rewrite half-way."""
    options = context.options
    rate, seconds = options.agents / HEARTBEAT_INTERVAL_S, 2 * max(options.seconds, HEARTBEAT_INTERVAL_S)
    runs: dict[str, list[float]] = defaultdict(list)
    constant_durations: dict[str, list[float]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        mesh = await filled_mesh(stack, options.cores, options.agents, shared_core=True)
        heartbeats = itertools.cycle(agents.heartbeats(options.agents))
        for repeat in range(REPEATS):
            print(f"steady heartbeats, repeat {repeat + 1} of {REPEATS}")
            rewrites = mesh.store.rewrites
            for figures, port, source, halfway in (
                (constant_durations, context.constant.port, itertools.repeat(CONSTANT_EXCHANGE), None),
                (runs, mesh.replica.port, heartbeats, mesh.store.rewrite),
            ):
                async with asyncio.timeout(STEP_TIMEOUT_S), Clients(port, connections=CONNECTIONS) as clients:
                    halfway_call = asyncio.create_task(_call_later(seconds / 2, halfway))
                    await clients.open_loop(
                        source, rate=rate, seconds=seconds, spin=options.cores.generator_has_own_core
                    )
                    await halfway_call
                _record_latencies(figures, clients)
            assert mesh.store.rewrites > rewrites, "Redis did not rewrite its file during the measurement"
    table = times_table()
    for figure, target in (("p50", None), ("p99", 0.015), ("p99 of the worst second", None), ("longest", None)):
        table.add_times(
            f"steady, {rate:,.0f} heartbeats/s",
            options.agents,
            figure,
            runs[figure],
            constant_durations[figure],
            target,
        )
    return table


def _record_latencies(figures: dict[str, list[float]], clients: Clients) -> None:
    figures["p50"].append(quantile(clients.latencies, 0.5))
    figures["p99"].append(quantile(clients.latencies, 0.99))
    figures["longest"].append(max(clients.latencies))
    seconds: dict[int, list[float]] = defaultdict(list)
    for due, latency in zip(clients.due_times, clients.latencies, strict=True):
        seconds[int(due)].append(latency)
    # The first and the last second are incomplete.
    complete_seconds = sorted(seconds)[1:-1]
    figures["p99 of the worst second"].append(max(quantile(seconds[second], 0.99) for second in complete_seconds))


async def fill(context: BenchmarkContext) -> Table:
    """Measure the start of replicas with a full store and with an empty one; the difference is the cache fill."""
    cores, size = context.options.cores, context.options.agents
    full, filling, constant_durations = [], [], []
    with running_mesh(cores) as empty:
        mesh = await context.mesh(size)
        for _ in range(FILL_COUNT):
            with running_constant(cores) as constant:
                constant_durations.append(constant.ready_seconds)
            without, with_agents = _ready_seconds(empty), _ready_seconds(mesh)
            full.append(with_agents)
            filling.append(with_agents - without)
    table = times_table()
    table.add_times("fill", size, "from the start of the process until /ready is 200", full, constant_durations, 1.0)
    table.add_times("fill", size, "of it, longer than with an empty store", filling, constant_durations, None)
    return table


def _ready_seconds(mesh: Mesh) -> float:
    replica = mesh.start_replica()
    replica.stop()
    return replica.ready_seconds


_TIME_CASES: dict[str, Callable[[BenchmarkContext], Awaitable[Table]]] = {
    "burst": burst,
    "steady_heartbeats": steady_heartbeats,
    "fill": fill,
    "watch": watch_latency,
    "search_steps": search_steps,
    "provider_departure": provider_departure,
    "import_time": import_time,
    "injected_call": injected_call,
}
CASE_NAMES = (*rate_cases.CASE_NAMES, *_TIME_CASES)


async def run(options: Options, names: Sequence[str]) -> list[Table]:
    """Run these cases and return their tables."""
    tables = []
    with contextlib.ExitStack() as stack:
        context = BenchmarkContext(options, stack)
        if set(names) & set(rate_cases.CASE_NAMES):
            tables.append(await rate_cases.measure_rates(context, names))
        for name, case in _TIME_CASES.items():
            if name in names:
                print(name)
                tables.append(await case(context))
    return tables


async def _call_later(seconds: float, action: Callable[[], None] | None) -> None:
    await asyncio.sleep(seconds)
    if action is not None:
        action()
