"""A provider of many goes and comes back: who is told, and what it costs those who are and those who are not."""

import asyncio
import contextlib

from benchmarks import agents
from benchmarks.context import CONNECTIONS, REPEATS, STEP_TIMEOUT_S, BenchmarkContext, filled_mesh
from benchmarks.load_generator import Clients, Exchange, WrongResponseError
from benchmarks.servers import Mesh
from benchmarks.table import Table

_PROVIDER = agents.agent_name(0)


async def provider_departure(lab: BenchmarkContext) -> Table:
    """Let the provider of a tenth of all agents go and come back; each time all agents beat once."""
    size = lab.options.agents
    table = Table(
        f"The provider of {size // 10:,} agents of {size:,} goes or comes; then every agent beats once",
        ("case", "agents told", "beats per CPU-s", "of nothing moved"),
    )
    with contextlib.ExitStack() as undo:
        mesh = await filled_mesh(undo, lab.options.cores, size, build=agents.single_dependency_consumer)
        answered: dict[int, bytes] = {}
        async with asyncio.timeout(STEP_TIMEOUT_S), Clients(mesh.replica.port, connections=CONNECTIONS) as clients:
            await clients.closed_loop(agents.heartbeats_recording_versions(size, answered))
        still, gone, back = [], [], []
        del answered[0]
        seekers = {number for number in answered if number % 10 == agents.DEPENDENT_LAST_DIGIT}
        for repeat in range(REPEATS):
            print(f"departure, repeat {repeat + 1} of {REPEATS}")
            still.append(await _measure_heartbeats(mesh, answered, {}))
            await _send(mesh, (agents.request("DELETE", f"/agents/{_PROVIDER}"), agents.succeeded))
            gone.append(await _measure_heartbeats(mesh, answered, dict.fromkeys(seekers, False)))
            await _send(mesh, *agents.batch_registrations(1, agents.single_dependency_consumer))
            await _send(mesh, *agents.batch_heartbeats(1))
            back.append(await _measure_heartbeats(mesh, answered, dict.fromkeys(seekers, True)))
    usual = sorted(still)[REPEATS // 2]
    for label, rates, told in (("nothing moved", still, 0), ("gone", gone, len(seekers)), ("back", back, len(seekers))):
        rate = sorted(rates)[REPEATS // 2]
        table.add(label, f"{told:,}", f"{rate:,.0f}", f"{rate / usual:.2f}")
    return table


async def _measure_heartbeats(mesh: Mesh, versions: dict[int, bytes], expected_changes: dict[int, bool]) -> float:
    """Let every agent beat once and return the heartbeats per CPU-second; who is told of what must be as wanted."""
    told: dict[int, bool] = {}
    began = mesh.replica.cpu_seconds
    async with asyncio.timeout(STEP_TIMEOUT_S), Clients(mesh.replica.port, connections=CONNECTIONS) as clients:
        await clients.closed_loop(agents.heartbeats_recording_changes(versions, told))
    if told != expected_changes:
        raise WrongResponseError(
            f"{len(told):,} agents were told something, {len(expected_changes):,} should have been"
        )
    return len(versions) / (mesh.replica.cpu_seconds - began)


async def _send(mesh: Mesh, *exchanges: Exchange) -> None:
    async with asyncio.timeout(STEP_TIMEOUT_S), Clients(mesh.replica.port, connections=1) as clients:
        await clients.closed_loop(exchanges)
