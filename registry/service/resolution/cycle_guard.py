"""Rejects registrations whose required dependencies would form a cycle."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from typing import Final, NoReturn

from registry.cache.reflector import Reflector
from registry.cache.view import View
from registry.errors import Detail, StoreUnavailable, UnprocessableRequest
from registry.model.dependency_graph import Edge, any_namespace_node, is_any_namespace, with_any_namespace
from registry.service.resolution.graph import Graph, components_and_depths, counts_as_capability
from registry.store.agents import Agents

MAX_REQUIRED_EDGES: Final = 1_000
"""Maximum number of required edges of one agent: pairs of a capability and a capability that it requires."""
MAX_DEPENDENCY_DEPTH: Final = 64
"""Maximum number of capabilities on a path of required dependencies."""
CHECK_TIMEOUT_S: Final = 10.0
"""Seconds that a registration waits for the checks before it, and again until its own check is still current."""


class CycleGuard:
    """Checks before a registration is stored that its new required dependencies form no cycle.

    The store rejects an edge that no other agent has unless it was checked at the current revision of all edges. A
    replica runs one check at a time, so that concurrent registrations do not invalidate each other's checks.
    """

    def __init__(self, reflector: Reflector, agents: Agents) -> None:
        self._reflector = reflector
        self._agents = agents
        self._lock = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Hold the lock that serializes cycle checks on this replica. Raises StoreUnavailable after a timeout."""
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                await self._lock.acquire()
        except TimeoutError:
            raise self.overloaded() from None
        try:
            yield
        finally:
            self._lock.release()

    async def check(self, agent_id: str, edges: Collection[Edge]) -> str:
        """Check an agent's edges; return the checked revision of all edges. Raises UnprocessableRequest for a cycle."""
        # The revision is read first: the view contains every edge that it counts.
        revision = await self._agents.edges_revision()
        reject_cycles(await self._reflector.wait_fresh(), agent_id, edges)
        return revision

    def overloaded(self) -> StoreUnavailable:
        """Return the error for a registration whose cycle check could not run in time."""
        problem = "Too many concurrent registrations change required dependencies; try again"
        return StoreUnavailable(problem, reason="queue_full")


def reject_cycles(view: View, agent_id: str, edges: Collection[Edge]) -> None:
    """Raise UnprocessableRequest if the edges of an agent would form a cycle, or a path that is too long.

    The edges replace the previous edges of the agent. Cycles that contain none of the given edges are ignored. Agents
    of another namespace count only on paths through a dependency that names their namespace, or any.
    """
    own_edges: dict[str, set[str]] = {}
    for name, required in with_any_namespace(edges):
        own_edges.setdefault(name, set()).add(required)
    record = view.records.get(agent_id)
    previous = with_any_namespace(() if record is None else record.agent.indexed.required_edges)

    def requirements_of(name: str) -> list[str]:
        counts = view.required_edges.get(name, {})
        others = {each for each, count in counts.items() if count > ((name, each) in previous)}
        return sorted(others | own_edges.get(name, set()))

    def dependents_of(name: str) -> list[str]:
        counts = view.dependent_edges.get(name, {})
        dependents = {each for each, count in counts.items() if count > ((each, name) in previous)}
        return sorted(dependents if is_any_namespace(name) else dependents | {any_namespace_node(name)})

    requirements_graph = _reachable(own_edges, requirements_of)
    component_of, depths_below = components_and_depths(
        requirements_graph, lambda node: counts_as_capability(requirements_graph, node)
    )
    _reject_cycle(requirements_graph, component_of, edges)
    names = {name for name, _ in edges}
    _, depths_above = components_and_depths(
        _reachable(names, dependents_of), is_counted=lambda node: not is_any_namespace(node)
    )
    # A path through several of the given edges has its full length at the first of them: `dependents_of` excludes them.
    if any(depths_below[name] + depths_above[name] - 1 > MAX_DEPENDENCY_DEPTH for name in names):
        reject_dependencies(f"required dependencies would be nested more than {MAX_DEPENDENCY_DEPTH} capabilities deep")


def _reachable(starts: Iterable[str], successors: Callable[[str], list[str]]) -> Graph:
    """Return the graph of all nodes that can be reached from the start nodes."""
    graph: dict[str, list[str]] = {}
    pending = [*starts]
    while pending:
        name = pending.pop()
        if name not in graph:
            graph[name] = successors(name)
            pending += graph[name]
    return graph


def _reject_cycle(graph: Graph, component_of: Mapping[str, int], edges: Iterable[Edge]) -> None:
    """Raise UnprocessableRequest with the dependency cycle of the first edge that is part of a cycle."""
    for name, required in sorted(edges):
        if name == required or (name in component_of and component_of[name] == component_of.get(required)):
            cycle = " → ".join([name, *_shortest_path(graph, required, name)])
            reject_dependencies(f"required dependency cycle: {cycle}")


def _shortest_path(graph: Graph, start: str, end: str) -> list[str]:
    """Return a shortest path in a graph from the start node to the end node, which must be reachable."""
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
    """Raise UnprocessableRequest for required dependencies that are not allowed."""
    raise UnprocessableRequest(problem, [Detail("dependencies", problem)])
