"""How old the last heartbeats in a list may be, and how they are learnt: agent by agent, or all news at once."""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from registry.cache.view import Record, View
from registry.store.agents import Heard, News

# How old a last heartbeat in a list may be, in seconds.
FRESH = 1.0
# While no more than so many are wanted in a second, each agent is asked for by itself.
_MANY = 1000
# To learn that an agent beat costs a fourth of asking for one, or less.
_CHEAPER = 4


class Times(Protocol):
    """What hearing needs of a store."""

    def last_heard(self, agent_ids: Sequence[str]) -> "asyncio.Future[Heard]":
        """Return each agent's last heartbeat, in the order asked."""

    def heard_since(self, moment: int | None) -> "asyncio.Future[News]":
        """Return who beat since a moment of the Redis server, or in the last seconds if none is given."""


class Hearing:
    """Learns last heartbeats for lists.

    Where many different lists are asked for, each of their agents would be asked for once a second. Then one look a
    second at who beat since the look before serves them all: an agent that was heard of after these looks began, and
    beat in none of them, was silent, and need not be asked for.
    """

    def __init__(self, times: Times) -> None:
        self._times = times
        self._wanted = 0
        self._counted = time.monotonic()
        self._view: View | None = None
        """The view the looks are for, None while there are none."""
        self._began = 0.0
        self._looked = 0.0
        self._upto: int | None = None
        self._news = 0
        self._looking: asyncio.Future[News] | None = None

    async def hear(self, view: View, records: Sequence[Record]) -> None:
        """Make the last heartbeats of these records of the view no older than a list may show."""
        now = time.monotonic()
        due = [record for record in records if record.heard_at < now - FRESH]
        if not due:
            return
        if self._are_many(len(due), now):
            began = await self._look(view, now)
            due = [record for record in due if record.heard_at < began]
        if due:
            # The answer is at least as new as the question.
            now = time.monotonic()
            heard = await self._times.last_heard([record.agent.id for record in due])
            for record, at in zip(due, heard.at, strict=True):
                record.hear(at, now)

    def heard_at(self, view: View, records: Sequence[Record]) -> float:
        """Return the monotonic moment as of which the last heartbeats of all these records are known."""
        oldest = min((record.heard_at for record in records), default=time.monotonic())
        if view is not self._view or oldest >= self._looked:
            return oldest
        return min(
            self._looked,
            min((record.heard_at for record in records if record.heard_at < self._began), default=self._looked),
        )

    def _are_many(self, wanted: int, now: float) -> bool:
        """Count what is wanted; tell whether to look at all news, as the last second's numbers have it."""
        self._wanted += wanted
        passed = now - self._counted
        if passed >= FRESH:
            many = self._wanted >= max(_MANY, self._news / _CHEAPER) * passed
            self._wanted, self._counted = 0, now
            if not many:
                self._view = None
            return many
        return self._view is not None

    async def _look(self, view: View, now: float) -> float:
        """Look if the last look is too old; return the moment after which no record misses anything."""
        if view is not self._view or now - self._looked > FRESH:
            if self._looking is None:
                moment = self._upto if view is self._view else None
                self._looking = self._times.heard_since(moment)
                self._looking.add_done_callback(partial(self._learn, view, now, moment))
            await asyncio.shield(self._looking)
        return self._began if view is self._view else now

    def _learn(self, view: View, asked: float, moment: int | None, looking: "asyncio.Future[News]") -> None:
        self._looking = self._view = None
        if looking.cancelled() or looking.exception() is not None:
            return
        news = looking.result()
        if moment is not None and news.now < moment:  # the clock of Redis was set back
            return
        for agent_id, at in news.beats:
            record = view.records.get(agent_id)
            if record is not None:
                record.hear(at, asked)
        if moment is None:
            self._began = asked
        self._view, self._looked, self._upto, self._news = view, asked, news.now, len(news.beats)
