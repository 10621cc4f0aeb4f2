"""Finds the providers whose heartbeat is late, so that equal providers without a late heartbeat come first."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from registry.cache.view import View
from registry.model.resolution import RankedProviders
from registry.store.agents import Agents
from registry.store.redis_health import ProbeResult

MAX_LATENESS_AGE_S: Final = 2.0
"""Maximum age of the last heartbeat that makes a provider count as late."""
# Of each ranking, the heartbeats of this many providers are read; later ones count as not late.
_MAX_PROVIDERS_CHECKED: Final = 100
_MAX_KNOWN_AGENTS: Final = 100_000


class LateProviders:
    """The providers whose heartbeat was late when it was last read from Redis.

    A provider is late if its last heartbeat, or the end of the last outage, is more than one and a half intervals old.
    A provider that is not late cannot be late before that time, so its heartbeat is read again only then. The heartbeat
    of a late provider is read again after two seconds. A replica reads only heartbeats of providers that it ranks.
    """

    def __init__(self, agents: Agents, last_probe: Callable[[], ProbeResult | None]) -> None:
        self.late: set[str] = set()
        self._agents = agents
        self._last_probe = last_probe
        # Per agent, the monotonic time until which it is known whether it is late.
        self._known_until: dict[str, float] = {}

    async def refresh(self, view: View, rankings: Iterable[RankedProviders]) -> None:
        """Check the providers of rankings whose check is no longer valid. Raises StoreUnavailable.

        A ranking with a provider that has become late, or has returned, is marked as outdated.
        """
        now = time.monotonic()
        due = [each for each in rankings if each.lateness is not None and each.lateness.valid_until <= now]
        if not due:
            return
        # Heartbeats that must be read soon are read now, so that a ranking is checked at most every two seconds.
        soon = now + MAX_LATENESS_AGE_S
        unknown = {id_ for each in due for id_ in _checked_ids(each) if self._known_until.get(id_, now) <= soon}
        if unknown:
            await self._read(view, list(unknown))
        for ranking in due:
            self._update_check(ranking, now)

    async def _read(self, view: View, agent_ids: Sequence[str]) -> None:
        """Read the last heartbeats of agents, and store which of them are late."""
        started_at = time.monotonic()
        read = await self._agents.last_heartbeats(agent_ids)
        if len(self._known_until) > _MAX_KNOWN_AGENTS:
            self._known_until.clear()
            self.late.clear()
        probe = self._last_probe()
        outage_end = 0 if probe is None else max(probe.outage_end or 0, probe.lag_end or 0)
        for agent_id, heartbeat in zip(agent_ids, read.times, strict=True):
            record = view.records.get(agent_id)
            remaining_s = 0.0
            if record is not None and heartbeat is not None:
                elapsed_ms = max(0, read.now - max(heartbeat, outage_end))
                remaining_s = (record.agent.late_after_ms - elapsed_ms) / 1000
            if remaining_s < 0:
                self.late.add(agent_id)
            else:
                self.late.discard(agent_id)
            self._known_until[agent_id] = started_at + (remaining_s if remaining_s > 0 else MAX_LATENESS_AGE_S)

    def _update_check(self, ranking: RankedProviders, now: float) -> None:
        """Set until when the lateness of the providers of a ranking is known, and whether the ranking is outdated."""
        check, checked = ranking.lateness, ranking.providers[:_MAX_PROVIDERS_CHECKED]
        if check is not None:
            check.outdated = any((each.agent_id in self.late) != each.late for each in checked)
            check.valid_until = min(self._known_until.get(each.agent_id, now) for each in checked)


def _checked_ids(ranking: RankedProviders) -> Iterable[str]:
    return (each.agent_id for each in ranking.providers[:_MAX_PROVIDERS_CHECKED])
