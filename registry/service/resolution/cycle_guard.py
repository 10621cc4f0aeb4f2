"""Which capability cannot do without which, and that this never goes in a circle."""

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
"""How many required dependencies one agent may have, those of functions with the same capability counted once."""
MAX_DEPENDENCY_DEPTH: Final = 64
"""How many capabilities in a row may each need the next."""
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
        return StoreUnavailable(
            "Too many concurrent registrations change required dependencies; try again", reason="queue_full"
        )


def reject_cycles(view: View, agent_id: str, edges: Collection[Edge]) -> None:
    """Refuse edges that close a circle with those of all other agents, or make a chain too long.

    What the agent had before does not count. Circles that are there for whatever reason and do not lead through one of
    these edges are nothing to this agent.
    """
    own: dict[str, set[str]] = {}
    for name, needed in edges:
        own.setdefault(name, set()).add(needed)
    record = view.records.get(agent_id)
    before = record.agent.indexed.required_edges if record is not None else set()

    def needed_by(name: str) -> list[str]:
        held = view.required_edges.get(name, {})
        others = {each for each, count in held.items() if count > ((name, each) in before)}
        return sorted(others | own.get(name, set()))

    def needing(name: str) -> list[str]:
        held = view.dependent_edges.get(name, {})
        return [each for each, count in held.items() if count > ((each, name) in before)]

    below = _reachable(own, needed_by)
    within, down = components_and_depths(below)
    _reject_cycle(below, within, edges)
    _, up = components_and_depths(_reachable(own, needing))
    # What leads over several of its edges is seen from the first of them.
    if any(down[name] + up[name] - 1 > MAX_DEPENDENCY_DEPTH for name in own):
        _reject(f"required dependencies would be nested more than {MAX_DEPENDENCY_DEPTH} capabilities deep")


def _reachable(starts: Iterable[str], successors: Callable[[str], list[str]]) -> Graph:
    """Return all that can be reached, with what follows each."""
    graph: dict[str, list[str]] = {}
    ahead = [*starts]
    while ahead:
        name = ahead.pop()
        if name not in graph:
            graph[name] = successors(name)
            ahead += graph[name]
    return graph


def _reject_cycle(graph: Graph, component_of: Mapping[str, int], edges: Iterable[Edge]) -> None:
    """Refuse the first of these edges that leads through a circle, and name that."""
    for name, needed in sorted(edges):
        if name == needed or (name in component_of and component_of[name] == component_of.get(needed)):
            _reject(f"required dependency cycle: {' → '.join([name, *_shortest_path(graph, needed, name)])}")


def _shortest_path(graph: Graph, start: str, end: str) -> list[str]:
    """Return a shortest way between two of which one can be reached from the other."""
    came: dict[str, str] = {}
    ahead = deque([start])
    while ahead and end not in came and start != end:
        name = ahead.popleft()
        for each in graph[name]:
            if each not in came and each != start:
                came[each] = name
                ahead.append(each)
    way = [end]
    while way[-1] != start:
        way.append(came[way[-1]])
    return way[::-1]


def _reject(problem: str) -> NoReturn:
    raise UnprocessableRequest(problem, [Detail("dependencies", problem)])
