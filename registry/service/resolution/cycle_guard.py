"""Which capability cannot do without which, and that this never goes in a circle."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Final, NoReturn

from registry.cache.reflector import Feed
from registry.cache.view import View
from registry.errors import Detail, StoreUnavailable, UnprocessableRequest
from registry.service.resolution.graph import Edges as Graph
from registry.service.resolution.graph import circles_and_depths
from registry.store.agents import Agents, Registered, Registration, StaleNumberError

Edge = tuple[str, str]

MOST_EDGES: Final = 1_000
"""How many required dependencies one agent may have, those of functions with the same capability counted once."""
LONGEST_CHAIN: Final = 64
"""How many capabilities in a row may each need the next."""
# How often a check is done again because another replica let a new edge in meanwhile.
_TRIES: Final = 50
# How long one waits until those before it are checked, in seconds.
_PATIENCE: Final = 10.0


class Edges:
    """Lets a registration in whose required dependencies close no circle.

    The script refuses an edge that nobody has yet unless it was checked against all others there are. Of one replica
    one such check is under way at a time, so that those that wait do not make each other try again.
    """

    def __init__(self, feed: Feed, agents: Agents) -> None:
        self._feed = feed
        self._agents = agents
        self._turn = asyncio.Lock()

    async def register(self, registration: Registration) -> Registered:
        """Register an agent. Raises UnprocessableRequest naming the circle, and what Agents.register raises."""
        if len(registration.edges) > MOST_EDGES:
            _refuse(f"at most {MOST_EDGES:,} required dependencies are taken")
        try:
            return await self._agents.register(registration)
        except StaleNumberError:
            async with self._turn_taken():
                return await self._check_and_register(registration)

    @contextlib.asynccontextmanager
    async def _turn_taken(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._turn.acquire()
        except TimeoutError:
            raise _crowded() from None
        try:
            yield
        finally:
            self._turn.release()

    async def _check_and_register(self, registration: Registration) -> Registered:
        for _ in range(_TRIES):
            # The number first: what is then seen of the mesh has every edge it counts.
            seen = await self._agents.required_number()
            check(await self._feed.fresh(), registration.agent_id, registration.edges)
            try:
                return await self._agents.register(replace(registration, seen=seen))
            except StaleNumberError:
                continue
        raise _crowded()


def check(view: View, agent_id: str, edges: Collection[Edge]) -> None:
    """Refuse edges that close a circle with those of all other agents, or make a chain too long.

    What the agent had before does not count. Circles that are there for whatever reason and do not lead through one of
    these edges are nothing to this agent.
    """
    own: dict[str, set[str]] = {}
    for name, needed in edges:
        own.setdefault(name, set()).add(needed)
    record = view.records.get(agent_id)
    before = record.agent.profile.edges if record is not None else set()

    def needed_by(name: str) -> list[str]:
        held = view.required.get(name, {})
        others = {each for each, count in held.items() if count > ((name, each) in before)}
        return sorted(others | own.get(name, set()))

    def needing(name: str) -> list[str]:
        held = view.requirers.get(name, {})
        return [each for each, count in held.items() if count > ((each, name) in before)]

    below = _reached(own, needed_by)
    within, down = circles_and_depths(below)
    _refuse_circle(below, within, edges)
    _, up = circles_and_depths(_reached(own, needing))
    # What leads over several of its edges is seen from the first of them.
    if any(down[name] + up[name] - 1 > LONGEST_CHAIN for name in own):
        _refuse(f"more than {LONGEST_CHAIN} capabilities in a row would each need the next")


def _reached(starts: Iterable[str], following: Callable[[str], list[str]]) -> Graph:
    """Return all that can be reached, with what follows each."""
    graph: dict[str, list[str]] = {}
    ahead = [*starts]
    while ahead:
        name = ahead.pop()
        if name not in graph:
            graph[name] = following(name)
            ahead += graph[name]
    return graph


def _refuse_circle(graph: Graph, within: Mapping[str, int], edges: Iterable[Edge]) -> None:
    """Refuse the first of these edges that leads through a circle, and name that."""
    for name, needed in sorted(edges):
        if name == needed or (name in within and within[name] == within.get(needed)):
            _refuse(f"required dependency cycle: {' → '.join([name, *_shortest(graph, needed, name)])}")


def _shortest(graph: Graph, start: str, end: str) -> list[str]:
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


def _crowded() -> StoreUnavailable:
    return StoreUnavailable("Too many registrations bring required dependencies; try again", reason="queue_full")


def _refuse(problem: str) -> NoReturn:
    raise UnprocessableRequest(problem, [Detail("dependencies", problem)])
