"""How old the last heartbeats in a list may be, and how they are learnt: agent by agent, or all news at once."""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from registry.cache.view import Record, View
from registry.store.agents import LastHeartbeats, RecentHeartbeats

# How old a last heartbeat in a list may be, in seconds.
MAX_HEARTBEAT_AGE_S = 1.0
# While no more than so many are wanted in a second, each agent is asked for by itself.
_MIN_LOOKUPS_FOR_POLLING = 1000
# To learn that an agent beat costs a fourth of asking for one, or less.
_POLL_COST_RATIO = 4


class HeartbeatSource(Protocol):
    """What hearing needs of a store."""

    def last_heartbeats(self, agent_ids: Sequence[str]) -> "asyncio.Future[LastHeartbeats]":
        """Return each agent's last heartbeat, in the order asked."""

    def heartbeats_since(self, moment: int | None) -> "asyncio.Future[RecentHeartbeats]":
        """Return who beat since a moment of the Redis server, or in the last seconds if none is given."""


class HeartbeatRefresher:
    """Learns last heartbeats for lists.

    Where many different lists are asked for, each of their agents would be asked for once a second. Then one look a
    second at who beat since the look before serves them all: an agent that was heard of after these looks began, and
    beat in none of them, was silent, and need not be asked for.
    """

    def __init__(self, source: HeartbeatSource) -> None:
        self._source = source
        self._requested = 0
        self._counted_at = time.monotonic()
        self._polled_view: View | None = None
        """The view the looks are for, None while there are none."""
        self._first_poll_at = 0.0
        self._last_poll_at = 0.0
        self._server_time_ms: int | None = None
        self._last_poll_count = 0
        self._pending_poll: asyncio.Future[RecentHeartbeats] | None = None

    async def refresh(self, view: View, records: Sequence[Record]) -> None:
        """Make the last heartbeats of these records of the view no older than a list may show."""
        now = time.monotonic()
        due = [record for record in records if record.heartbeat_read_at < now - MAX_HEARTBEAT_AGE_S]
        if not due:
            return
        if self._should_poll(len(due), now):
            began = await self._poll(view, now)
            due = [record for record in due if record.heartbeat_read_at < began]
        if due:
            # The answer is at least as new as the question.
            now = time.monotonic()
            heard = await self._source.last_heartbeats([record.agent.id for record in due])
            for record, at in zip(due, heard.times, strict=True):
                record.update_heartbeat(at, now)

    def read_at(self, view: View, records: Sequence[Record]) -> float:
        """Return the monotonic moment as of which the last heartbeats of all these records are known."""
        oldest = min((record.heartbeat_read_at for record in records), default=time.monotonic())
        if view is not self._polled_view or oldest >= self._last_poll_at:
            return oldest
        return min(
            self._last_poll_at,
            min(
                (record.heartbeat_read_at for record in records if record.heartbeat_read_at < self._first_poll_at),
                default=self._last_poll_at,
            ),
        )

    def _should_poll(self, requested: int, now: float) -> bool:
        """Count what is wanted; tell whether to look at all news, as the last second's numbers have it."""
        self._requested += requested
        passed = now - self._counted_at
        if passed >= MAX_HEARTBEAT_AGE_S:
            many = self._requested >= max(_MIN_LOOKUPS_FOR_POLLING, self._last_poll_count / _POLL_COST_RATIO) * passed
            self._requested, self._counted_at = 0, now
            if not many:
                self._polled_view = None
            return many
        return self._polled_view is not None

    async def _poll(self, view: View, now: float) -> float:
        """Look if the last look is too old; return the moment after which no record misses anything."""
        if view is not self._polled_view or now - self._last_poll_at > MAX_HEARTBEAT_AGE_S:
            if self._pending_poll is None:
                moment = self._server_time_ms if view is self._polled_view else None
                self._pending_poll = self._source.heartbeats_since(moment)
                self._pending_poll.add_done_callback(partial(self._apply_poll, view, now, moment))
            await asyncio.shield(self._pending_poll)
        return self._first_poll_at if view is self._polled_view else now

    def _apply_poll(
        self, view: View, requested_at: float, since: int | None, poll: "asyncio.Future[RecentHeartbeats]"
    ) -> None:
        self._pending_poll = self._polled_view = None
        if poll.cancelled() or poll.exception() is not None:
            return
        news = poll.result()
        if since is not None and news.now < since:  # the clock of Redis was set back
            return
        for agent_id, at in news.heartbeats:
            record = view.records.get(agent_id)
            if record is not None:
                record.update_heartbeat(at, requested_at)
        if since is None:
            self._first_poll_at = requested_at
        self._polled_view, self._last_poll_at, self._server_time_ms, self._last_poll_count = (
            view,
            requested_at,
            news.now,
            len(news.heartbeats),
        )
