"""The resources that the cases share: filled meshes, and the constant server for comparison."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks import agents
from benchmarks.constant_server import CONSTANT_BODY
from benchmarks.load_generator import Clients, Exchange
from benchmarks.servers import Cores, Mesh, running_constant, running_mesh

CONNECTIONS = 100
REPEATS = 3
CONSTANT_EXCHANGE: Exchange = (agents.request("GET", "/constant"), CONSTANT_BODY.__eq__)
# Much longer than any step takes.
STEP_TIMEOUT_S = 300.0

# Concurrent calls of 200 registrations while a mesh is filled; this bounds the writes that wait for Redis.
_FILL_CONNECTIONS = 2


@dataclass(frozen=True, slots=True)
class Options:
    """Options of the command line: seconds per measurement, number of agents, cores."""

    seconds: float
    agents: int
    cores: Cores


AgentBuilder = Callable[[int], dict[str, Any]]
"""Returns the registration of the agent with a number."""


class BenchmarkContext:
    """Meshes that are filled once and shared by the cases, and the constant server; closing `stack` stops all."""

    def __init__(self, options: Options, stack: contextlib.ExitStack) -> None:
        self.options = options
        self._stack = stack
        self._meshes: dict[tuple[int, bool, AgentBuilder], Mesh] = {}
        self.constant = stack.enter_context(running_constant(options.cores))

    async def mesh(self, size: int, *, exclusive: bool = False, build: AgentBuilder = agents.registration) -> Mesh:
        """Return a mesh with this many healthy agents; an `exclusive` one serves no other case."""
        if (size, exclusive, build) not in self._meshes:
            self._meshes[size, exclusive, build] = await filled_mesh(self._stack, self.options.cores, size, build=build)
        return self._meshes[size, exclusive, build]


async def filled_mesh(
    stack: contextlib.ExitStack,
    cores: Cores,
    size: int,
    *,
    shared_core: bool = False,
    build: AgentBuilder = agents.registration,
) -> Mesh:
    """Run a mesh until `stack` closes, with one replica and `size` healthy agents registered by `build`."""
    mesh = stack.enter_context(running_mesh(cores, shared_core=shared_core))
    started = time.perf_counter()
    async with asyncio.timeout(STEP_TIMEOUT_S), Clients(mesh.replica.port, connections=_FILL_CONNECTIONS) as clients:
        await clients.closed_loop(agents.batch_registrations(size, build))
        await clients.closed_loop(agents.batch_heartbeats(size))
    elapsed = time.perf_counter() - started
    print(f"{size:,} agents registered over the API in {elapsed:.1f} s; the replica is process {mesh.replica.pid}")
    return mesh
