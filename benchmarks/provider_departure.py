"""A provider of many goes and comes back: who is told, and what it costs those who are and those who are not."""

import asyncio
import contextlib

from benchmarks import agents
from benchmarks.context import CONNECTIONS, PATIENCE_SECONDS, REPEATS, Lab, settled
from benchmarks.load_generator import Clients, Exchange, WrongAnswerError
from benchmarks.servers import Mesh
from benchmarks.table import Table

_PROVIDER = agents.name(0)


async def departure(lab: Lab) -> Table:
    """Let the provider of a tenth of all agents go and come back; each time all agents beat once."""
    size = lab.options.agents
    table = Table(
        f"The provider of {size // 10:,} agents of {size:,} goes or comes; then every agent beats once",
        ("case", "agents told", "beats per CPU-s", "of nothing moved"),
    )
    with contextlib.ExitStack() as undo:
        mesh = await settled(undo, lab.options.cores, size, made=agents.seeker)
        answered: dict[int, bytes] = {}
        async with asyncio.timeout(PATIENCE_SECONDS), Clients(mesh.replica.port, connections=CONNECTIONS) as clients:
            await clients.closed_loop(agents.asking(size, answered))
        still, gone, back = [], [], []
        del answered[0]
        seekers = {number for number in answered if number % 10 == agents.SEEKS}
        for repeat in range(REPEATS):
            print(f"departure, repeat {repeat + 1} of {REPEATS}")
            still.append(await _round(mesh, answered, {}))
            await _do(mesh, (agents.request("DELETE", f"/agents/{_PROVIDER}"), agents.succeeded))
            gone.append(await _round(mesh, answered, dict.fromkeys(seekers, False)))
            await _do(mesh, *agents.arrivals(1, agents.seeker))
            await _do(mesh, *agents.first_heartbeats(1))
            back.append(await _round(mesh, answered, dict.fromkeys(seekers, True)))
    usual = sorted(still)[REPEATS // 2]
    for label, rates, told in (("nothing moved", still, 0), ("gone", gone, len(seekers)), ("back", back, len(seekers))):
        rate = sorted(rates)[REPEATS // 2]
        table.add(label, f"{told:,}", f"{rate:,.0f}", f"{rate / usual:.2f}")
    return table


async def _round(mesh: Mesh, answered: dict[int, bytes], wanted: dict[int, bool]) -> float:
    """Let every agent beat once and return the heartbeats per CPU-second; who is told of what must be as wanted."""
    told: dict[int, bool] = {}
    began = mesh.replica.cpu_seconds
    async with asyncio.timeout(PATIENCE_SECONDS), Clients(mesh.replica.port, connections=CONNECTIONS) as clients:
        await clients.closed_loop(agents.listening(answered, told))
    if told != wanted:
        raise WrongAnswerError(f"{len(told):,} agents were told something, {len(wanted):,} should have been")
    return len(answered) / (mesh.replica.cpu_seconds - began)


async def _do(mesh: Mesh, *exchanges: Exchange) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS), Clients(mesh.replica.port, connections=1) as clients:
        await clients.closed_loop(exchanges)
