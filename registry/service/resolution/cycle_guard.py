"""Rejects registrations whose required dependencies would form a cycle."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from typing import Final, NoReturn

from registry.cache.reflector import Reflector
from registry.cache.view import View
from registry.errors import Detail, StoreUnavailable, UnprocessableRequest
from registry.service.resolution.graph import Graph, components_and_depths
from registry.store.agents import Agents

Edge = tuple[str, str]

MAX_REQUIRED_EDGES: Final = 1_000
"""Maximum number of required dependencies of one agent; those of functions with the same capability count once."""
MAX_DEPENDENCY_DEPTH: Final = 64
"""Maximum number of capabilities on a path of required dependencies."""
# A check waits at most this long for the checks before it.
_LOCK_TIMEOUT_S: Final = 10.0


class CycleGuard:
    """Checks that new required dependencies close no cycle; asked before a registration is stored.

    The store rejects an edge that no other agent has unless it was checked at the current revision of all edges. One
    check of a replica runs at a time, so that concurrent registrations do not invalidate each other's checks.
    """

    def __init__(self, reflector: Reflector, agents: Agents) -> None:
        self._reflector = reflector
        self._agents = agents
        self._lock = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Hold the lock of this replica's checks. Raises StoreUnavailable when the wait for it takes too long."""
        try:
            async with asyncio.timeout(_LOCK_TIMEOUT_S):
                await self._lock.acquire()
        except TimeoutError:
            raise self.overloaded() from None
        try:
            yield
        finally:
            self._lock.release()

    async def check(self, agent_id: str, edges: Collection[Edge]) -> str:
        """Return the revision of all edges at which these close no cycle. Raises UnprocessableRequest naming one."""
        # The revision is read first: the view contains every edge that it counts.
        revision = await self._agents.edges_revision()
        reject_cycles(await self._reflector.wait_fresh(), agent_id, edges)
        return revision

    def overloaded(self) -> StoreUnavailable:
        """Return the error for a registration that could not be checked in time."""
        problem = "Too many concurrent registrations change required dependencies; try again"
        return StoreUnavailable(problem, reason="queue_full")


def reject_cycles(view: View, agent_id: str, edges: Collection[Edge]) -> None:
    """Raise UnprocessableRequest for edges that form a cycle or too long a path with the edges of other agents.

    The previous edges of the agent do not count. Cycles that do not contain one of these edges are ignored.
    """
    own: dict[str, set[str]] = {}
    for name, required in edges:
        own.setdefault(name, set()).add(required)
    record = view.records.get(agent_id)
    previous = set(() if record is None else record.agent.indexed.required_edges)

    def requirements_of(name: str) -> list[str]:
        counts = view.required_edges.get(name, {})
        others = {each for each, count in counts.items() if count > ((name, each) in previous)}
        return sorted(others | own.get(name, set()))

    def dependents_of(name: str) -> list[str]:
        counts = view.dependent_edges.get(name, {})
        return [each for each, count in counts.items() if count > ((each, name) in previous)]

    below = _reachable(own, requirements_of)
    component_of, down = components_and_depths(below)
    _reject_cycle(below, component_of, edges)
    _, up = components_and_depths(_reachable(own, dependents_of))
    # A path over several of the edges is measured at the first of them.
    if any(down[name] + up[name] - 1 > MAX_DEPENDENCY_DEPTH for name in own):
        reject_dependencies(f"required dependencies would be nested more than {MAX_DEPENDENCY_DEPTH} capabilities deep")


def _reachable(starts: Iterable[str], successors: Callable[[str], list[str]]) -> Graph:
    """Return the graph of all nodes that can be reached."""
    graph: dict[str, list[str]] = {}
    pending = [*starts]
    while pending:
        name = pending.pop()
        if name not in graph:
            graph[name] = successors(name)
            pending += graph[name]
    return graph


def _reject_cycle(graph: Graph, component_of: Mapping[str, int], edges: Iterable[Edge]) -> None:
    """Raise UnprocessableRequest with the cycle of the first edge that is in one."""
    for name, required in sorted(edges):
        if name == required or (name in component_of and component_of[name] == component_of.get(required)):
            cycle = " → ".join([name, *_shortest_path(graph, required, name)])
            reject_dependencies(f"required dependency cycle: {cycle}")


def _shortest_path(graph: Graph, start: str, end: str) -> list[str]:
    """Return a shortest path between two nodes of which the second can be reached from the first."""
    predecessors: dict[str, str] = {}
    pending = deque([start])
    while pending and end not in predecessors and start != end:
        name = pending.popleft()
        for each in graph[name]:
            if each not in predecessors and each != start:
                predecessors[each] = name
                pending.append(each)
    path = [end]
    while path[-1] != start:
        path.append(predecessors[path[-1]])
    return path[::-1]


def reject_dependencies(problem: str) -> NoReturn:
    """Raise the error for dependencies that are not allowed."""
    raise UnprocessableRequest(problem, [Detail("dependencies", problem)])
