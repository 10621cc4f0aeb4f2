"""Reads the last heartbeats that lists show: agent by agent, or all recent ones at once if many are needed."""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

from registry.cache.view import Record, View
from registry.store.agents import Agents, RecentHeartbeats

MAX_HEARTBEAT_AGE_S: Final = 1.0
"""A list shows last heartbeats that were read at most this long ago."""
# Below this rate of look-ups, the heartbeat of each agent is read separately.
_MIN_LOOKUPS_FOR_POLLING: Final = 1000
# A poll reads one heartbeat at most at a quarter of the cost of a look-up.
_POLL_COST_RATIO: Final = 4


class HeartbeatRefresher:
    """Reads the last heartbeats that lists of agents show.

    A look-up reads the last heartbeat of one agent. If lists require many look-ups a second, one poll a second replaces
    them: it reads all heartbeats since the previous poll. An agent that was read after polling began and is in no later
    poll has sent no heartbeat since, so it is not read again.
    """

    def __init__(self, agents: Agents) -> None:
        self._agents = agents
        self._lookups = 0
        self._counted_at = time.monotonic()
        self._polled_view: View | None = None
        """The view the polls are for, None while there are no polls."""
        self._first_poll_at = 0.0
        self._last_poll_at = 0.0
        self._server_time_ms: int | None = None
        self._last_poll_count = 0
        self._pending_poll: asyncio.Future[RecentHeartbeats] | None = None

    async def refresh(self, view: View, records: Sequence[Record]) -> None:
        """Read from Redis the last heartbeats of those agents whose cached heartbeat is too old for a list."""
        now = time.monotonic()
        stale = [record for record in records if record.heartbeat_read_at < now - MAX_HEARTBEAT_AGE_S]
        if not stale:
            return
        if self._should_poll(len(stale), now):
            complete_since = await self._poll(view, now)
            stale = [record for record in stale if record.heartbeat_read_at < complete_since]
        if stale:
            # The heartbeats are at least as recent as this time, because it is taken before the read.
            now = time.monotonic()
            read = await self._agents.last_heartbeats([record.agent.id for record in stale])
            for record, at in zip(stale, read.times, strict=True):
                record.update_heartbeat(at, now)

    def read_at(self, view: View, records: Sequence[Record]) -> float:
        """Return the monotonic time as of which the last heartbeats of all these agents are known."""
        oldest = min((record.heartbeat_read_at for record in records), default=time.monotonic())
        if view is not self._polled_view or oldest >= self._last_poll_at:
            return oldest
        unpolled = (record.heartbeat_read_at for record in records if record.heartbeat_read_at < self._first_poll_at)
        return min(unpolled, default=self._last_poll_at)

    def _should_poll(self, lookups: int, now: float) -> bool:
        """Count the lookups, and return whether reading all recent heartbeats is cheaper than single lookups."""
        self._lookups += lookups
        elapsed = now - self._counted_at
        if elapsed >= MAX_HEARTBEAT_AGE_S:
            limit = max(_MIN_LOOKUPS_FOR_POLLING, self._last_poll_count / _POLL_COST_RATIO)
            poll = self._lookups >= limit * elapsed
            self._lookups, self._counted_at = 0, now
            if not poll:
                self._polled_view = None
            return poll
        return self._polled_view is not None

    async def _poll(self, view: View, now: float) -> float:
        """Read all recent heartbeats if the last poll is old; return the time from which polls miss no heartbeat."""
        if view is not self._polled_view or now - self._last_poll_at > MAX_HEARTBEAT_AGE_S:
            if self._pending_poll is None:
                since = self._server_time_ms if view is self._polled_view else None
                self._pending_poll = self._agents.heartbeats_since(since)
                self._pending_poll.add_done_callback(partial(self._apply_poll, view, now, since))
            await asyncio.shield(self._pending_poll)
        return self._first_poll_at if view is self._polled_view else now

    def _apply_poll(
        self, view: View, requested_at: float, since: int | None, poll: "asyncio.Future[RecentHeartbeats]"
    ) -> None:
        self._pending_poll = self._polled_view = None
        if poll.cancelled() or poll.exception() is not None:
            return
        recent = poll.result()
        if since is not None and recent.now < since:
            # The clock of Redis was set back, so the two polls may have missed heartbeats between them.
            return
        for agent_id, at in recent.heartbeats:
            record = view.records.get(agent_id)
            if record is not None:
                record.update_heartbeat(at, requested_at)
        if since is None:
            self._first_poll_at = requested_at
        self._polled_view, self._last_poll_at = view, requested_at
        self._server_time_ms, self._last_poll_count = recent.now, len(recent.heartbeats)
