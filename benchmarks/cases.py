"""The cases: what is measured, how often, and which target it has to meet."""

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
from benchmarks.servers import Mesh, running_constant, running_mesh
from benchmarks.table import Table, times_table
from benchmarks.watch_latency import watch_latency

BURST_COUNT = 7
FILL_COUNT = 5
HEARTBEAT_INTERVAL_S = 5.0


async def burst(lab: BenchmarkContext) -> Table:
    """Register 100 new agents at the same instant, with one replica and spread over three."""
    table = times_table()
    for size in (lab.options.agents // 10, lab.options.agents):
        with contextlib.ExitStack() as undo:
            mesh = await filled_mesh(undo, lab.options.cores, size)
            for replicas in (1, 3):
                while len(mesh.replicas) < replicas:
                    mesh.replicas.append(mesh.start_replica())
                    undo.callback(mesh.replicas[-1].stop)
                walls, beside = [], []
                for turn in range(BURST_COUNT):
                    beside.append(await _measure_constant_burst(lab))
                    walls.append(await _measure_burst(mesh, f"burst-{replicas}-{turn}"))
                table.add_times(
                    f"burst, {replicas} replica{'s' * (replicas > 1)}",
                    size,
                    "wall until the last answer",
                    walls,
                    beside,
                    0.05,
                )
    return table


async def _measure_burst(mesh: Mesh, namespace: str) -> float:
    """Return how long it took in seconds. Afterwards every replica lists all of them, and then they leave."""
    ports = [replica.port for replica in mesh.replicas]
    async with asyncio.timeout(STEP_TIMEOUT_S), Clients(*ports, connections=CONNECTIONS) as clients:
        wall = await _send_at_once(clients, agents.new_registrations(CONNECTIONS, namespace))
    async with asyncio.timeout(STEP_TIMEOUT_S), Clients(*ports, connections=len(ports)) as clients:
        await clients.at_once([agents.namespace_list(CONNECTIONS, namespace)] * len(ports))
        await clients.closed_loop(agents.unregistrations(CONNECTIONS, namespace))
    return wall


async def _measure_constant_burst(lab: BenchmarkContext) -> float:
    async with asyncio.timeout(STEP_TIMEOUT_S), Clients(lab.constant.port, connections=CONNECTIONS) as clients:
        return await _send_at_once(clients, [CONSTANT_EXCHANGE] * CONNECTIONS)


async def _send_at_once(clients: Clients, exchanges: Sequence[Exchange]) -> float:
    """Return the seconds from before the first request until the last answer."""
    # New connections may still be on their way into the server's event loop.
    await asyncio.sleep(0.1)
    began = time.perf_counter()
    await clients.at_once(exchanges)
    return time.perf_counter() - began


async def steady_heartbeats(lab: BenchmarkContext) -> Table:
    """Let every agent beat each 5 s, Redis on the core of the replica, its file rewritten half-way."""
    options = lab.options
    rate, seconds = options.agents / HEARTBEAT_INTERVAL_S, 2 * max(options.seconds, HEARTBEAT_INTERVAL_S)
    runs: dict[str, list[float]] = defaultdict(list)
    beside: dict[str, list[float]] = defaultdict(list)
    with contextlib.ExitStack() as undo:
        mesh = await filled_mesh(undo, options.cores, options.agents, shared_core=True)
        beats = itertools.cycle(agents.heartbeats(options.agents))
        for repeat in range(REPEATS):
            print(f"fleet, repeat {repeat + 1} of {REPEATS}")
            rewrites = mesh.store.rewrites
            for into, port, source, halfway in (
                (beside, lab.constant.port, itertools.repeat(CONSTANT_EXCHANGE), None),
                (runs, mesh.replica.port, beats, mesh.store.rewrite),
            ):
                async with asyncio.timeout(STEP_TIMEOUT_S), Clients(port, connections=CONNECTIONS) as clients:
                    later = asyncio.create_task(_call_later(seconds / 2, halfway))
                    await clients.open_loop(
                        source, rate=rate, seconds=seconds, spin=options.cores.generator_has_own_core
                    )
                    await later
                _record_latencies(into, clients)
            assert mesh.store.rewrites > rewrites, "Redis did not rewrite its file, so nothing was measured across it"
    table = times_table()
    for figure, target in (("p50", None), ("p99", 0.015), ("p99 of the worst second", None), ("longest", None)):
        table.add_times(f"fleet, {rate:,.0f} beats/s", options.agents, figure, runs[figure], beside[figure], target)
    return table


def _record_latencies(into: dict[str, list[float]], clients: Clients) -> None:
    into["p50"].append(quantile(clients.latencies, 0.5))
    into["p99"].append(quantile(clients.latencies, 0.99))
    into["longest"].append(max(clients.latencies))
    seconds: dict[int, list[float]] = defaultdict(list)
    for due, latency in zip(clients.due_times, clients.latencies, strict=True):
        seconds[int(due)].append(latency)
    # The first and the last second are cut off, and may hold only a few.
    whole = sorted(seconds)[1:-1]
    into["p99 of the worst second"].append(max(quantile(seconds[second], 0.99) for second in whole))


async def fill(lab: BenchmarkContext) -> Table:
    """Start replicas beside a full store and beside an empty one: what the full one takes longer is the filling."""
    cores, size = lab.options.cores, lab.options.agents
    full, filling, beside = [], [], []
    with running_mesh(cores) as empty:
        mesh = await lab.mesh(size)
        for _ in range(FILL_COUNT):
            with running_constant(cores) as constant:
                beside.append(constant.ready_seconds)
            without, with_agents = _ready_seconds(empty), _ready_seconds(mesh)
            full.append(with_agents)
            filling.append(with_agents - without)
    table = times_table()
    table.add_times("fill", size, "from the start of the process until /ready is 200", full, beside, 1.0)
    table.add_times("fill", size, "of it, what it takes longer than beside an empty store", filling, beside, None)
    return table


def _ready_seconds(mesh: Mesh) -> float:
    replica = mesh.start_replica()
    replica.stop()
    return replica.ready_seconds


_TIME_CASES: dict[str, Callable[[BenchmarkContext], Awaitable[Table]]] = {
    "burst": burst,
    "fleet": steady_heartbeats,
    "fill": fill,
    "watch": watch_latency,
    "departure": provider_departure,
    "importing": import_time,
    "injected": injected_call,
}
CASE_NAMES = (*rate_cases.CASE_NAMES, *_TIME_CASES)


async def run(options: Options, names: Sequence[str]) -> list[Table]:
    """Run these cases and return what they found."""
    tables = []
    with contextlib.ExitStack() as undo:
        lab = BenchmarkContext(options, undo)
        if set(names) & set(rate_cases.CASE_NAMES):
            tables.append(await rate_cases.measure_rates(lab, names))
        for name, case in _TIME_CASES.items():
            if name in names:
                print(name)
                tables.append(await case(lab))
    return tables


async def _call_later(seconds: float, action: Callable[[], None] | None) -> None:
    await asyncio.sleep(seconds)
    if action is not None:
        action()
