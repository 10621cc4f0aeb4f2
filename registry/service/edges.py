"""Which capability cannot do without which, and that this never goes in a circle."""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Final

from registry.cache.feed import Feed
from registry.cache.view import View
from registry.errors import Detail, StoreUnavailable, UnprocessableRequest
from registry.store.agents import Agents, Registered, Registration, StaleNumberError

Edge = tuple[str, str]

MOST_EDGES: Final = 1_000
"""How many required dependencies one agent may have, those of functions with the same capability counted once."""
LONGEST_CHAIN: Final = 64
"""How many capabilities in a row may each need the next."""
# How often a check is done again because another replica let a new edge in meanwhile.
_TRIES: Final = 50


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
        try:
            return await self._agents.register(registration)
        except StaleNumberError:
            async with self._turn:
                return await self._check_and_register(registration)

    async def _check_and_register(self, registration: Registration) -> Registered:
        for _ in range(_TRIES):
            # The number first: what is then seen of the mesh has every edge it counts.
            seen = await self._agents.required_number()
            check(await self._feed.fresh(), registration.agent_id, registration.edges)
            try:
                return await self._agents.register(replace(registration, seen=seen))
            except StaleNumberError:
                continue
        raise StoreUnavailable("Too many registrations bring required dependencies; try again", reason="queue_full")


def check(view: View, agent_id: str, edges: Collection[Edge]) -> None:
    """Refuse edges that close a circle with those of all other agents, or make a chain too long.

    Circles that are there for whatever reason and do not lead through one of these edges are nothing to this agent.
    """
    if len(edges) > MOST_EDGES:
        _refuse(f"at most {MOST_EDGES:,} required dependencies are taken, not {len(edges):,}")
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
        return sorted(view.requirers.get(name, {}))

    below = max((len(_longest(name, needed_by, circle=True)) for name in sorted(own)), default=1)
    above = max((len(_longest(name, needing, circle=False)) for name in own), default=1)
    if below + above - 1 > LONGEST_CHAIN:
        _refuse(f"more than {LONGEST_CHAIN} capabilities in a row would each need the next")


def _longest(start: str, following: Callable[[str], list[str]], *, circle: bool) -> list[str]:
    """Return the longest way from a capability on; refuse a `circle` through it, and pass over all others."""
    found: dict[str, list[str]] = {}
    path = [(start, iter(following(start)))]
    walked = {start}
    best: dict[str, list[str]] = {start: []}
    while path:
        name, ways = path[-1]
        after = next(ways, None)
        if after is None:
            path.pop()
            found[name] = [name, *best[name]]
            if path:
                _keep_longer(best, path[-1][0], found[name])
        elif after in found:
            _keep_longer(best, name, found[after])
        elif after not in walked:
            walked.add(after)
            best[after] = []
            path.append((after, iter(following(after))))
        elif after == start and circle:
            _refuse(f"required dependency cycle: {' → '.join([*(each for each, _ in path), start])}")
    return found[start]


def _keep_longer(best: dict[str, list[str]], name: str, way: list[str]) -> None:
    if len(way) > len(best[name]):
        best[name] = way


def _refuse(problem: str) -> None:
    raise UnprocessableRequest(problem, [Detail("dependencies", problem)])
