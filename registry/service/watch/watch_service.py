"""Opens watches of agents, which deliver every matching change once and in order and resume on any replica."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from registry.cache.change_buffer import ChangeEntry
from registry.cache.reflector import Reflector
from registry.cache.view import Record
from registry.cache.watch_history import WatchHistory
from registry.concurrency.cooperative_iteration import cooperative
from registry.errors import NotReady, VersionAhead, VersionTooOld
from registry.model.query import AgentQuery
from registry.service.discovery.query_cache import QueryCache
from registry.service.discovery.query_match import Matcher
from registry.service.watch.fanout import WatchEvent, WatchFanout, no_push

EndReason: TypeAlias = Literal["overflowed", "log_gap", "shutting_down"]

# The maximum number of events that a watcher takes at once, so that a watcher with a backlog does not delay others.
_MAX_EVENTS_PER_TAKE = 32
_MAX_WATCHERS = 20_000
# A client that reads nothing for this long is treated as disconnected.
_STALLED_CLIENT_TIMEOUT_S = 10.0


class Watcher:
    """One open watch of the agents that match a query.

    `delivered_version` is the version up to which `take` has returned every matching change. `initial` holds the agents
    that matched at the beginning, if the caller requested them. Set `wake_after` (monotonic seconds) to end a `wait` at
    the first tick after that time, and `writing_since` while a write to the client is in progress: `on_stalled` is
    called when that write takes too long; with None the watcher is woken.
    """

    def __init__(
        self,
        service: "WatchService",
        matcher: Matcher,
        delivered_version: int,
        backlog: list[WatchEvent],
        on_stalled: Callable[[], None] | None,
    ) -> None:
        self.delivered_version = delivered_version
        self.initial: list[Record] | None = None
        self.wake_after = float("inf")
        self.writing_since: float | None = None
        # Not `self.wake` by default: a reference to itself would leave every closed watcher to the cycle collector.
        self.on_stalled = on_stalled
        self._service = service
        self._backlog = backlog
        self._wake_timer: asyncio.TimerHandle | None = None
        self._group, self._cursor = service.fanout.subscribe(matcher)

    @property
    def latest_version(self) -> int:
        """The version of the newest change in this replica's cache."""
        return self._service.latest_version

    @property
    def end_reason(self) -> EndReason | None:
        """The reason why the watch must end, None while it continues.

        `overflowed`: the watcher fell too far behind; resume at `delivered_version`. `log_gap`: changes after
        `delivered_version` are missing; list again. `shutting_down`: resume at `delivered_version` on another replica.
        """
        if self._cursor.log_gap:
            return "log_gap"
        if self._cursor.overflowed:
            return "overflowed"
        return "shutting_down" if self._service.shutting_down else None

    def take(self) -> list[WatchEvent]:
        """Return the next events of the watch, an empty list if there are none, and advance `delivered_version`."""
        if self._cursor.log_gap or self._cursor.overflowed:
            return []
        cursor = self._cursor
        if self._backlog:
            events, self._backlog = self._backlog[:_MAX_EVENTS_PER_TAKE], self._backlog[_MAX_EVENTS_PER_TAKE:]
        else:
            events = self._group.events_from(cursor.position, _MAX_EVENTS_PER_TAKE)
            cursor.position += len(events)
        self.delivered_version = self._service.latest_version if self.caught_up else events[-1][1].version
        return events

    @property
    def caught_up(self) -> bool:
        """Whether the watcher has taken all events."""
        return not self._backlog and self._cursor.position == self._group.end

    async def wait(self, push: Callable[[], bool] = no_push) -> None:
        """Wait until events arrive, the watch must end, or the time `wake_after` is reached.

        `push` is called for new events first; while it returns True, having handled them, the wait continues.
        """
        await self._cursor.wait(push)

    def wake_at(self, moment: float) -> None:
        """Schedule the end of the current `wait` at a time of the monotonic clock; `close` cancels the timer."""
        remaining_s = moment - time.monotonic()
        if remaining_s <= 0:
            self.wake()
        else:
            # uvloop's timers may fire a fraction of a millisecond early; the waiting task would then wait forever.
            self._wake_timer = asyncio.get_running_loop().call_later(max(remaining_s, 0.001), self.wake_at, moment)

    def wake(self) -> None:
        """End the current `wait` at once."""
        self._cursor.wake()

    def close(self) -> None:
        """Unsubscribe the watch from new events and cancel its timer."""
        if self._wake_timer is not None:
            self._wake_timer.cancel()
        self._service.watchers.discard(self)
        self._service.fanout.unsubscribe(self._group, self._cursor)


class WatchService:
    """Opens watches over the watch history of this replica. Call `tick` once a second."""

    def __init__(self, reflector: Reflector, history: WatchHistory, fanout: WatchFanout) -> None:
        self.fanout = fanout
        self.watchers: set[Watcher] = set()
        self.shutting_down = False
        self._reflector = reflector
        self._history = history

    @property
    def latest_version(self) -> int:
        """The version of this replica's newest change, up to which all watches have received the changes."""
        return self._history.buffer.last_version

    async def open(
        self,
        query: AgentQuery,
        since: int | None = None,
        *,
        initial: bool = False,
        on_stalled: Callable[[], None] | None = None,
    ) -> Watcher:
        """Begin a watch after version `since`; with None or 0, at the current version.

        With `initial` it begins with the matching agents, at a version not older than `since`, or with None at the
        newest version. `on_stalled` is called to disconnect a client that reads nothing; by default it wakes the
        watcher. Raises VersionTooOld when the log no longer contains `since`, VersionAhead when the store has not
        reached it, and NotReady before the cache is filled, with too many watches, or during shutdown.
        """
        if initial and since is None:
            await self._reflector.wait_fresh()
        elif initial:
            await self._require_version(since or 0)
        elif since:
            await self._require_version(since)
            if not await self._history.extend_to(since):
                raise VersionTooOld(since, self.latest_version)
        matcher = Matcher(query)
        if initial:
            return await self._start_with_agents(matcher, on_stalled)
        if not since:
            return self._start(matcher, None, [], on_stalled)
        backlog, read_until = list[WatchEvent](), since
        async for entry in cooperative(self._history.buffer.since(since)):
            backlog += _backlog_events(matcher, (entry,))
            read_until = entry.version
        # No await from here on: the backlog ends where the cursor begins.
        if not self._history.buffer.contains(read_until):
            raise VersionTooOld(since, self.latest_version)
        backlog += _backlog_events(matcher, self._history.buffer.since(read_until))
        return self._start(matcher, since, backlog, on_stalled)

    async def _start_with_agents(self, matcher: Matcher, on_stalled: Callable[[], None] | None) -> Watcher:
        """Begin a watch at the current version with the matching agents."""
        results, view = QueryCache(), self._reflector.view
        if matcher.is_ranked and view is not None:
            await results.prepare(matcher.query, view, self._history.buffer)
        # No await from here on: the initial agents and the position of the cursor belong to one version.
        watcher, view = self._start(matcher, None, [], on_stalled), self._reflector.view
        if view is not None:
            records = results.get(matcher.query, view, self._history.buffer).records
            watcher.initial = sorted(records, key=lambda record: record.sort_key)
        return watcher

    def start(self, query: AgentQuery) -> Watcher:
        """Begin a watch at the current version, without waiting."""
        return self._start(Matcher(query), None, [], None)

    def _start(
        self,
        matcher: Matcher,
        since: int | None,
        backlog: list[WatchEvent],
        on_stalled: Callable[[], None] | None,
    ) -> Watcher:
        if self._reflector.view is None or self.shutting_down or len(self.watchers) >= _MAX_WATCHERS:
            raise NotReady("This replica accepts no more watches now; try again shortly")
        watcher = Watcher(self, matcher, self.latest_version if since is None else since, backlog, on_stalled)
        self.watchers.add(watcher)
        return watcher

    async def tick(self) -> None:
        """Wake the watches that are due, and disconnect clients that do not read their stream."""
        now = time.monotonic()
        for watcher in list(self.watchers):
            if watcher.writing_since is not None and now - watcher.writing_since > _STALLED_CLIENT_TIMEOUT_S:
                (watcher.on_stalled or watcher.wake)()
            elif watcher.wake_after <= now:
                watcher.wake()

    def close(self) -> None:
        """End every watch, because this replica is shutting down."""
        self.shutting_down = True
        for watcher in self.watchers:
            watcher.wake()

    async def _require_version(self, version: int) -> None:
        if version > self.latest_version:
            await self._reflector.wait_fresh()
        if version > self.latest_version:
            raise VersionAhead(version, self.latest_version)


def _backlog_events(matcher: Matcher, entries: Sequence[ChangeEntry]) -> list[WatchEvent]:
    """Return the events that a new watch must deliver first, for the changes since its version."""
    key = matcher.index_key
    events: list[WatchEvent] = []
    for entry in entries:
        if key is None or key in entry.index_keys:
            kind = matcher.event_type(entry)
            if kind is not None:
                events.append((kind, entry))
    return events
