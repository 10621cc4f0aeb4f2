"""The cases: what is measured, how often, and which target it has to meet."""

import asyncio
import contextlib
import itertools
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence

from benchmarks import agents, rate_cases
from benchmarks.client_cases import importing, injected
from benchmarks.context import CONNECTIONS, CONSTANT, PATIENCE_SECONDS, REPEATS, Lab, Options, settled
from benchmarks.load_generator import Clients, Exchange, quantile
from benchmarks.provider_departure import departure
from benchmarks.servers import Mesh, running_constant, running_mesh
from benchmarks.table import Table, times_table
from benchmarks.watch_latency import watch

BURSTS = 7
FILLS = 5
BEAT_SECONDS = 5.0


async def burst(lab: Lab) -> Table:
    """Register 100 new agents at the same instant, with one replica and spread over three."""
    table = times_table()
    for size in (lab.options.agents // 10, lab.options.agents):
        with contextlib.ExitStack() as undo:
            mesh = await settled(undo, lab.options.cores, size)
            for replicas in (1, 3):
                while len(mesh.replicas) < replicas:
                    mesh.replicas.append(mesh.start_replica())
                    undo.callback(mesh.replicas[-1].stop)
                walls, beside = [], []
                for turn in range(BURSTS):
                    beside.append(await _burst_of_constants(lab))
                    walls.append(await _burst(mesh, f"burst-{replicas}-{turn}"))
                table.add_times(
                    f"burst, {replicas} replica{'s' * (replicas > 1)}",
                    size,
                    "wall until the last answer",
                    walls,
                    beside,
                    0.05,
                )
    return table


async def _burst(mesh: Mesh, namespace: str) -> float:
    """Return how long it took in seconds. Afterwards every replica lists all of them, and then they leave."""
    ports = [replica.port for replica in mesh.replicas]
    async with asyncio.timeout(PATIENCE_SECONDS), Clients(*ports, connections=CONNECTIONS) as clients:
        wall = await _at_once(clients, agents.newcomers(CONNECTIONS, namespace))
    async with asyncio.timeout(PATIENCE_SECONDS), Clients(*ports, connections=len(ports)) as clients:
        await clients.at_once([agents.listing(CONNECTIONS, namespace)] * len(ports))
        await clients.closed_loop(agents.leavers(CONNECTIONS, namespace))
    return wall


async def _burst_of_constants(lab: Lab) -> float:
    async with asyncio.timeout(PATIENCE_SECONDS), Clients(lab.constant.port, connections=CONNECTIONS) as clients:
        return await _at_once(clients, [CONSTANT] * CONNECTIONS)


async def _at_once(clients: Clients, exchanges: Sequence[Exchange]) -> float:
    """Return the seconds from before the first request until the last answer."""
    # New connections may still be on their way into the server's event loop.
    await asyncio.sleep(0.1)
    began = time.perf_counter()
    await clients.at_once(exchanges)
    return time.perf_counter() - began


async def fleet(lab: Lab) -> Table:
    """Let every agent beat each 5 s, Redis on the core of the replica, its file rewritten half-way."""
    options = lab.options
    rate, seconds = options.agents / BEAT_SECONDS, 2 * max(options.seconds, BEAT_SECONDS)
    runs: dict[str, list[float]] = defaultdict(list)
    beside: dict[str, list[float]] = defaultdict(list)
    with contextlib.ExitStack() as undo:
        mesh = await settled(undo, options.cores, options.agents, together=True)
        beats = itertools.cycle(agents.heartbeats(options.agents))
        for repeat in range(REPEATS):
            print(f"fleet, repeat {repeat + 1} of {REPEATS}")
            rewrites = mesh.store.rewrites
            for into, port, source, halfway in (
                (beside, lab.constant.port, itertools.repeat(CONSTANT), None),
                (runs, mesh.replica.port, beats, mesh.store.rewrite),
            ):
                async with asyncio.timeout(PATIENCE_SECONDS), Clients(port, connections=CONNECTIONS) as clients:
                    later = asyncio.create_task(_later(seconds / 2, halfway))
                    await clients.open_loop(source, rate=rate, seconds=seconds, spin=options.cores.apart)
                    await later
                _note_latencies(into, clients)
            assert mesh.store.rewrites > rewrites, "Redis did not rewrite its file, so nothing was measured across it"
    table = times_table()
    for figure, target in (("p50", None), ("p99", 0.015), ("p99 of the worst second", None), ("longest", None)):
        table.add_times(f"fleet, {rate:,.0f} beats/s", options.agents, figure, runs[figure], beside[figure], target)
    return table


def _note_latencies(into: dict[str, list[float]], clients: Clients) -> None:
    into["p50"].append(quantile(clients.latencies, 0.5))
    into["p99"].append(quantile(clients.latencies, 0.99))
    into["longest"].append(max(clients.latencies))
    seconds: dict[int, list[float]] = defaultdict(list)
    for due, latency in zip(clients.due, clients.latencies, strict=True):
        seconds[int(due)].append(latency)
    # The first and the last second are cut off, and may hold only a few.
    whole = sorted(seconds)[1:-1]
    into["p99 of the worst second"].append(max(quantile(seconds[second], 0.99) for second in whole))


async def fill(lab: Lab) -> Table:
    """Start replicas beside a full store and beside an empty one: what the full one takes longer is the filling."""
    cores, size = lab.options.cores, lab.options.agents
    full, filling, beside = [], [], []
    with running_mesh(cores) as empty:
        mesh = await lab.mesh(size)
        for _ in range(FILLS):
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


_TIMES: dict[str, Callable[[Lab], Awaitable[Table]]] = {
    "burst": burst,
    "fleet": fleet,
    "fill": fill,
    "watch": watch,
    "departure": departure,
    "importing": importing,
    "injected": injected,
}
NAMES = (*rate_cases.NAMES, *_TIMES)


async def run(options: Options, names: Sequence[str]) -> list[Table]:
    """Run these cases and return what they found."""
    tables = []
    with contextlib.ExitStack() as undo:
        lab = Lab(options, undo)
        if set(names) & set(rate_cases.NAMES):
            tables.append(await rate_cases.measured(lab, names))
        for name, case in _TIMES.items():
            if name in names:
                print(name)
                tables.append(await case(lab))
    return tables


async def _later(seconds: float, what: Callable[[], None] | None) -> None:
    await asyncio.sleep(seconds)
    if what is not None:
        what()
