"""What the cases share: filled meshes, and the constant server that everything is compared with."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks import agents
from benchmarks.constant_server import BODY
from benchmarks.load_generator import Clients, Exchange
from benchmarks.servers import Cores, Mesh, running_constant, running_mesh

CONNECTIONS = 100
REPEATS = 3
CONSTANT: Exchange = (agents.request("GET", "/constant"), BODY.__eq__)
# Far beyond what any step takes on a machine that is worth measuring on.
PATIENCE_SECONDS = 300.0

# Calls of 200 registrations on their way at once while a mesh is filled: what waits for Redis is bounded.
_SETTLERS = 2


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says: seconds per measurement, agents in the store, where everything runs."""

    seconds: float
    agents: int
    cores: Cores


Made = Callable[[int], dict[str, Any]]
"""What makes the registration of an agent from its number."""


class Lab:
    """Meshes that are filled once and shared by the cases, and the constant server; all end with `undo`."""

    def __init__(self, options: Options, undo: contextlib.ExitStack) -> None:
        self.options = options
        self._undo = undo
        self._meshes: dict[tuple[int, bool, Made], Mesh] = {}
        self.constant = undo.enter_context(running_constant(options.cores))

    async def mesh(self, size: int, *, apart: bool = False, made: Made = agents.registration) -> Mesh:
        """Return the mesh with so many healthy agents; `apart` for those who must have its changes to themselves."""
        if (size, apart, made) not in self._meshes:
            self._meshes[size, apart, made] = await settled(self._undo, self.options.cores, size, made=made)
        return self._meshes[size, apart, made]


async def settled(
    undo: contextlib.ExitStack,
    cores: Cores,
    size: int,
    *,
    together: bool = False,
    made: Made = agents.registration,
) -> Mesh:
    """Run a mesh until `undo`, with one replica and so many healthy agents in it, of which `made` tells each."""
    mesh = undo.enter_context(running_mesh(cores, together=together))
    began = time.perf_counter()
    async with asyncio.timeout(PATIENCE_SECONDS), Clients(mesh.replica.port, connections=_SETTLERS) as clients:
        await clients.closed_loop(agents.arrivals(size, made))
        await clients.closed_loop(agents.first_heartbeats(size))
    took = time.perf_counter() - began
    print(f"{size:,} agents registered over the API in {took:.1f} s; their replica is process {mesh.replica.pid}")
    return mesh
