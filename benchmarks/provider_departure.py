"""The benchmark of heartbeats after a provider of many agents was removed and after it returned."""

import asyncio
import contextlib

from benchmarks import agents
from benchmarks.context import CONNECTIONS, REPEATS, STEP_TIMEOUT_S, BenchmarkContext, filled_mesh
from benchmarks.load_generator import Clients, Exchange, WrongResponseError
from benchmarks.servers import Mesh
from benchmarks.table import Table

_PROVIDER = agents.agent_name(0)


async def provider_departure(context: BenchmarkContext) -> Table:
    """Remove and restore the provider of a tenth of all agents; after each change every agent sends a heartbeat."""
    size = context.options.agents
    table = Table(
        f"The provider of {size // 10:,} agents of {size:,} is removed and returns; every agent sends one heartbeat",
        ("case", "agents notified", "heartbeats per CPU-s", "of no change"),
    )
    with contextlib.ExitStack() as stack:
        mesh = await filled_mesh(stack, context.options.cores, size, build=agents.single_dependency_consumer)
        versions: dict[int, bytes] = {}
        async with asyncio.timeout(STEP_TIMEOUT_S), Clients(mesh.replica.port, connections=CONNECTIONS) as clients:
            await clients.closed_loop(agents.heartbeats_recording_versions(size, versions))
        unchanged, removed, restored = [], [], []
        del versions[0]
        consumers = {number for number in versions if number % 10 == agents.DEPENDENT_LAST_DIGIT}
        for repeat in range(REPEATS):
            print(f"provider departure, repeat {repeat + 1} of {REPEATS}")
            unchanged.append(await _measure_heartbeats(mesh, versions, {}))
            await _send(mesh, (agents.request("DELETE", f"/agents/{_PROVIDER}"), agents.succeeded))
            removed.append(await _measure_heartbeats(mesh, versions, dict.fromkeys(consumers, False)))
            await _send(mesh, *agents.batch_registrations(1, agents.single_dependency_consumer))
            await _send(mesh, *agents.batch_heartbeats(1))
            restored.append(await _measure_heartbeats(mesh, versions, dict.fromkeys(consumers, True)))
    baseline = sorted(unchanged)[REPEATS // 2]
    for label, rates, notified in (
        ("no change", unchanged, 0),
        ("provider removed", removed, len(consumers)),
        ("provider back", restored, len(consumers)),
    ):
        rate = sorted(rates)[REPEATS // 2]
        table.add(label, f"{notified:,}", f"{rate:,.0f}", f"{rate / baseline:.2f}")
    return table


async def _measure_heartbeats(mesh: Mesh, versions: dict[int, bytes], expected_changes: dict[int, bool]) -> float:
    """Return the heartbeats per CPU-second when every agent sends one.

    Raises WrongResponseError if other agents than expected are notified.
    """
    notified: dict[int, bool] = {}
    started = mesh.replica.cpu_seconds
    async with asyncio.timeout(STEP_TIMEOUT_S), Clients(mesh.replica.port, connections=CONNECTIONS) as clients:
        await clients.closed_loop(agents.heartbeats_recording_changes(versions, notified))
    if notified != expected_changes:
        raise WrongResponseError(f"{len(notified):,} agents were notified, expected {len(expected_changes):,}")
    return len(versions) / (mesh.replica.cpu_seconds - started)


async def _send(mesh: Mesh, *exchanges: Exchange) -> None:
    async with asyncio.timeout(STEP_TIMEOUT_S), Clients(mesh.replica.port, connections=1) as clients:
        await clients.closed_loop(exchanges)
