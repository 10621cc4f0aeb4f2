"""What an agent's dependencies resolve to, kept until something it looks for has changed."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Final

import orjson

from registry.cache.view import Record, View
from registry.compat.mcpmesh.llm_tools import Toolsets
from registry.compat.mcpmesh.response import flat_body
from registry.concurrency.cooperative import in_turns
from registry.model.agent import Agent, Dependency
from registry.model.resolution import Pick, Provider, Ranking, Resolution
from registry.service.resolution.load_cache import Loads
from registry.service.resolution.ranking_cache import Rankings
from registry.service.resolution.strategies import Asking, choose

_MOST_TURNS: Final = 1024
# Bytes of a key that blake2b takes.
_LONGEST_KEY: Final = 64


class Resolutions:
    """Resolves the dependencies of agents, from the indexes of a view."""

    def __init__(self, rankings: Rankings, loads: Loads) -> None:
        self._rankings = rankings
        self.toolsets = Toolsets(rankings)
        self._loads = loads
        self._view: View | None = None
        self._turns: dict[str, tuple[int, Mapping[str, int]]] = {}

    def of(self, view: View, record: Record) -> Resolution:
        """Return what an agent's dependencies resolve to as of the view's version, by the loads that are known."""
        kept: Resolution | None = record.kept
        if kept is not None:
            if kept.agent is not record.agent or (kept.version != view.version and not _holds(view, kept)):
                # Another replica may have told it something else in between, even if this is what was told last here.
                kept.told = ""
            elif not kept.by_load:
                kept.version = view.version
                return kept
        return self._keep(view, record, kept, list(self._picks(view, record.agent)), view.version)

    def _keep(
        self, view: View, record: Record, before: Resolution | None, picks: Sequence[Pick], version: int
    ) -> Resolution:
        resolution = record.kept = self._resolve(view, record.agent, before, tuple(picks), version)
        return resolution

    async def in_turn(self, view: View, record: Record) -> Resolution:
        """Return the same, and let others have their turn in between: an agent may look for very much.

        What changes meanwhile may be seen, and is then looked at again the next time.
        """
        kept: Resolution | None = record.kept
        agent, version = record.agent, view.version
        if kept is not None and kept.agent is agent and (kept.version == version or _holds(view, kept)):
            return self.of(view, record)
        steps = in_turns(chain(self._picks(view, agent), self.toolsets.look_up(view, agent)))
        picks = [step async for step in steps if isinstance(step, Pick)]
        if record.agent is not agent or record.kept is not kept:
            # It has changed meanwhile, or somebody else was here.
            return self.of(view, record)
        if kept is not None:
            kept.told = ""
        return self._keep(view, record, kept, picks, version)

    async def by_fresh_loads(self, view: View, record: Record) -> Resolution:
        """Return the same, by loads that are new enough where the agent chooses by them. Raises StoreUnavailable."""
        resolution = await self.in_turn(view, record)
        if not resolution.by_load:
            return resolution
        for _, need in _needs(record.agent):
            if need.strategy == "least_loaded":
                await self._loads.learn(self.ranking(view, record.agent, need).providers)
        return self.of(view, record)

    def ranking(self, view: View, agent: Agent, need: Dependency) -> Ranking:
        """Return all who have what one dependency of an agent needs."""
        profile = agent.profile
        return self._rankings.get(view, need, profile.namespace, self._rankings.book.of(profile))

    def whole_ranking(self, view: View, agent: Agent, need: Dependency, shown: int) -> Ranking:
        """Return the same with more of those that fell out, made for this call."""
        profile = agent.profile
        return self._rankings.whole(view, need, profile.namespace, self._rankings.book.of(profile), shown)

    def pick(self, view: View, agent: Agent, function: str, need: Dependency) -> tuple[Ranking, Provider | None]:
        """Return the ranking for one dependency, and who is chosen of it."""
        ranking = self.ranking(view, agent, need)
        strategy = need.strategy or "best"
        if strategy == "best":
            return ranking, ranking.providers[0] if ranking.providers else None
        asking = Asking(
            seed=f"{agent.id}\0{function}\0{need.capability}",
            key=need.key or agent.id,
            turn=self._turn(view, agent.id, need.capability) if strategy == "round_robin" else 0,
            zone=agent.profile.zone,
            loads=self._loads.known,
        )
        return ranking, choose(ranking.providers, strategy, asking)

    def _picks(self, view: View, agent: Agent) -> Iterator[Pick]:
        """Choose for one dependency after the other."""
        for function, need in _needs(agent):
            ranking, provider = self.pick(view, agent, function, need)
            yield Pick(function, need, provider, ranking.reason if provider is None else None)

    def _resolve(
        self, view: View, agent: Agent, before: Resolution | None, found: tuple[Pick, ...], version: int
    ) -> Resolution:
        by_load = any(pick.need.strategy == "least_loaded" for pick in found)
        sought, wants = self.toolsets.of(view, agent)
        names = tuple(dict.fromkeys((*(pick.need.capability for pick in found), *sought)))
        if before is not None and not sought and before.picks == found and before.agent.profile is agent.profile:
            digest, body = before.digest, before.body
        elif agent.profile.flat is not None:
            body = flat_body(found, wants)
            # Only the store knows what it was told. What a store that lost writes says of that is nothing to go by, and
            # what the agent says of itself may be lost, too: another history makes each of them send all of it once.
            digest = hashlib.blake2b(body, digest_size=8, key=view.history.encode()[:_LONGEST_KEY]).hexdigest()
        else:
            digest, body = _encoded(agent, found)
        return Resolution(agent, version, by_load, names, found, digest, body, before.told if before else "")

    def _turn(self, view: View, agent_id: str, capability: str) -> int:
        """Return the agent's place among those who take turns at a capability, in the order in which they came."""
        if view is not self._view or len(self._turns) > _MOST_TURNS:
            self._view = view
            self._turns.clear()
        known = self._turns.get(capability)
        if known is None or view.moved(capability) > known[0]:
            takers = [
                (record.agent.created, record.agent.id)
                for record in view.by_need.get(capability, {}).values()
                if capability in record.agent.profile.turns
            ]
            places = {taker: place for place, (_, taker) in enumerate(sorted(takers))}
            known = self._turns[capability] = (view.version, places)
        return known[1].get(agent_id, 0)


def _holds(view: View, kept: Resolution) -> bool:
    # A loop, not all(): each heartbeat of an agent with dependencies comes by here.
    for name in kept.names:  # noqa: SIM110
        if view.moved(name) > kept.version:
            return False
    return True


def _needs(agent: Agent) -> Iterator[tuple[str, Dependency]]:
    """Return every dependency with the function that has it."""
    return ((function, need) for function, needs in agent.profile.functions for need in needs)


def _encoded(agent: Agent, picks: tuple[Pick, ...]) -> tuple[str, bytes]:
    """Return the digest of what is resolved, and how answers say it.

    Where a function needs one capability twice, the first of these that is resolved is shown.
    """
    resolved: dict[str, dict[str, dict[str, str] | None]] = {function: {} for function, _ in agent.profile.functions}
    if not resolved:
        return "", b""
    unresolved: dict[str, dict[str, str]] = {}
    for pick in picks:
        name, entries = pick.need.capability, resolved[pick.function]
        if entries.get(name) is None:
            entries[name] = pick.entry
        if pick.reason is not None and entries[name] is None:
            unresolved.setdefault(pick.function, {}).setdefault(name, pick.reason)
        elif unresolved.get(pick.function, {}).pop(name, None) is not None and not unresolved[pick.function]:
            del unresolved[pick.function]
    told = orjson.dumps(resolved)
    digest = hashlib.blake2b(told, digest_size=8).hexdigest()
    body = b',"dependencies_resolved":%s,"dependencies_unresolved":%s,"dependencies_version":"%s"'
    return digest, body % (told, orjson.dumps(unresolved), digest.encode())
