"""One agent for one call: chosen anew each time, by the strategy of whoever asks."""

import secrets
from collections import OrderedDict
from dataclasses import dataclass
from itertools import count
from typing import Final

from registry.cache.view import Record
from registry.errors import NoProvider
from registry.model.agent import Dependency
from registry.model.resolution import Provider
from registry.service.discovery.discovery import Discovery, Freshness
from registry.service.resolution.load_cache import Loads
from registry.service.resolution.match_policy import PLAIN
from registry.service.resolution.ranking_cache import Rankings
from registry.service.resolution.strategies import Asking, choose

# Of so many different queries it is known whose turn is next.
_MOST: Final = 4_096


@dataclass(frozen=True, slots=True)
class Selected:
    """Whom to call, how many would have done, and the version that is as of."""

    provider: Provider
    record: Record
    candidates: int
    version: int
    behind: float | None


class Selecting:
    """Selects agents. Each replica counts turns for itself; where a balancer deals out the calls, that is as good."""

    def __init__(self, discovery: Discovery, rankings: Rankings, loads: Loads) -> None:
        self._discovery = discovery
        self._rankings = rankings
        self._loads = loads
        self._turns: OrderedDict[object, count[int]] = OrderedDict()

    async def select(self, need: Dependency, zone: str | None, freshness: Freshness) -> Selected:
        """Return an agent that has what is asked for; in any namespace unless one is named.

        Raises NoProvider saying why there is none, MalformedRequest for a version constraint that cannot be read.
        """
        if need.version:
            PLAIN.constraint(need.version)
        view, behind = await self._discovery.view(freshness)
        strategy = need.strategy or "best"
        if strategy == "least_loaded" and not behind:
            await self._loads.learn(self._rankings.get(view, need, None).providers)
        ranking = self._rankings.get(view, need, None)
        asking = Asking(
            seed=secrets.token_hex(8) if strategy in ("random", "weighted") else "",
            key=need.key or "",
            turn=self._turn(need) if strategy == "round_robin" else 0,
            zone=zone,
            loads=self._loads.known,
        )
        chosen = choose(ranking.providers, strategy, asking)
        if chosen is None:
            raise NoProvider(need.capability, ranking.reason)
        # Nobody can have left: the ranking is of this very version.
        record = view.records[chosen.agent_id]
        return Selected(chosen, record, len(ranking.providers), view.version, behind)

    def _turn(self, need: Dependency) -> int:
        key = need.wanted, need.namespace
        turns = self._turns.setdefault(key, count())
        self._turns.move_to_end(key)
        if len(self._turns) > _MOST:
            self._turns.popitem(last=False)
        return next(turns)
