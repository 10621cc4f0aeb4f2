"""Watch: begin somewhere, see every change that matters, in order, none twice; resume anywhere."""

import asyncio
import time
from collections.abc import Callable, Sequence

from registry.cache.change_buffer import ChangeEntry
from registry.cache.reflector import Reflector
from registry.cache.view import Record
from registry.errors import NotReady, VersionAhead, VersionTooOld
from registry.model.query import AgentQuery
from registry.service.discovery.matching import Matcher
from registry.service.watch.fanout import WatchCursor, WatchEvent, WatchFanout, WatchGroup, no_push

# Events handed out at once, so that one watcher with much to catch up does not hold the others.
_MAX_EVENTS_PER_TAKE = 32
# How many watches one replica serves.
_MAX_WATCHERS = 20_000
# A client that takes nothing for so many seconds is not there any more, or might as well not be.
_STALLED_CLIENT_TIMEOUT_S = 10.0


class Watcher:
    """One watch.

    `delivered_version` is the version up to which everything that matches was handed out by `take`; `initial` are the
    agents that
    matched at the beginning, if they were asked for. `end_reason` says why it is to end: `lost` (it fell too far
    behind:
    resume at `delivered_version`), `log_gap` (what comes next does not follow on what it has seen: list again) or
    `shutting_down` (the
    replica is going down: resume at `delivered_version` on another). Set `wake_after`, monotonic seconds, to be woken
    in the second
    after it; set `writing_since` while the client is written to, and `on_stalled` to what ends one that takes nothing.
    """

    def __init__(
        self, service: "WatchService", matcher: Matcher, delivered_version: int, backlog: list[WatchEvent]
    ) -> None:
        self.delivered_version = delivered_version
        self.initial: list[Record] | None = None
        self.wake_after = float("inf")
        self.writing_since: float | None = None
        self.on_stalled: Callable[[], None] = lambda: None
        self.log_gap = False
        self.shutting_down = False
        self._service = service
        self._backlog = backlog
        self._wake_timer: asyncio.TimerHandle | None = None
        self._group: WatchGroup
        self._cursor: WatchCursor
        self._group, self._cursor = service.fanout.subscribe(matcher)

    @property
    def latest_version(self) -> int:
        """The version the replica holds."""
        return self._service.latest_version

    @property
    def end_reason(self) -> str | None:
        """Why the watch is to end, None while it goes on."""
        if self.log_gap:
            return "broken"
        if self._cursor.overflowed:
            return "lost"
        return "closing" if self.shutting_down else None

    def take(self) -> list[WatchEvent]:
        """Return the next events, none when everything was seen; moves `delivered_version` along."""
        if self.log_gap or self._cursor.overflowed:
            return []
        group, cursor = self._group, self._cursor
        if self._backlog:
            seen, self._backlog = self._backlog[:_MAX_EVENTS_PER_TAKE], self._backlog[_MAX_EVENTS_PER_TAKE:]
        else:
            seen = group.events_from(cursor.position, _MAX_EVENTS_PER_TAKE)
            cursor.position += len(seen)
        self.delivered_version = self._service.latest_version if self.caught_up else seen[-1][1].version
        return seen

    @property
    def caught_up(self) -> bool:
        """Whether everything there is was taken."""
        return not self._backlog and self._cursor.position == self._group.end

    async def wait(self, push: Callable[[], bool] = no_push) -> None:
        """Wait until there may be something to take, or to end for, or `wake_after` has come.

        Events are offered to `push` first, which may take them and tell that it did; then the wait goes on.
        """
        await self._cursor.wait(push)

    def wake_at(self, moment: float) -> None:
        """End the `wait` of this monotonic moment, to the millisecond and not before, unless the watch is closed."""
        left = moment - time.monotonic()
        if left <= 0:
            self.wake()
        else:
            # uvloop's timers may fire a fraction of a millisecond early; whoever is woken then would wait on for ever.
            self._wake_timer = asyncio.get_running_loop().call_later(max(left, 0.001), self.wake_at, moment)

    def wake(self) -> None:
        """End a `wait`."""
        self._cursor.wake()

    def close(self) -> None:
        """Let go; the watch holds nothing any more."""
        if self._wake_timer is not None:
            self._wake_timer.cancel()
        self._service.watchers.discard(self)
        self._service.fanout.unsubscribe(self._group, self._cursor)


class WatchService:
    """Opens watches over the shared history of one replica. Call `tick` each second."""

    def __init__(self, reflector: Reflector) -> None:
        self.fanout = WatchFanout()
        self.watchers: set[Watcher] = set()
        self._reflector = reflector
        self._shutting_down = False
        reflector.watch_history.on_change = self.fanout.publish
        reflector.watch_history.on_reset = self._end_with_log_gap

    @property
    def latest_version(self) -> int:
        """The version the replica holds, up to which every watch has been shown what concerns it."""
        return self._reflector.watch_history.buffer.last_version

    async def open(self, query: AgentQuery, since: int | None = None, *, initial: bool = False) -> Watcher:
        """Begin a watch: after version `since`, or at the version held now (as soon as any is, for 0).

        With `initial` it begins with the agents as they are, at a version not older than `since`, or the newest.
        Raises VersionTooOld when the log no longer holds `since`, VersionAhead when the store has not come so far, and
        NotReady before the first fill, when there are too many watches, or at the end.
        """
        if initial and since is None:
            await self._reflector.wait_fresh()
        elif initial:
            await self._require_version(since or 0)
        elif since:
            await self._require_logged(since)
        # From here on nothing awaits: what is read and where the cursor stands belong to one version.
        watcher = self.start(query, None if initial else since or None)
        if initial and self._reflector.view is not None:
            records = Matcher(query).select(self._reflector.view)
            watcher.initial = sorted(records, key=lambda record: record.sort_key)
        return watcher

    def start(self, query: AgentQuery, since: int | None = None) -> Watcher:
        """Begin a watch at the version held now, or after one that is known to be held."""
        matcher = Matcher(query)
        if self._reflector.view is None or self._shutting_down or len(self.watchers) >= _MAX_WATCHERS:
            raise NotReady("This replica cannot take another watch now; try again shortly")
        backlog = [] if since is None else _backlog_events(matcher, self._reflector.watch_history.buffer.since(since))
        watcher = Watcher(self, matcher, self.latest_version if since is None else since, backlog)
        self.watchers.add(watcher)
        return watcher

    async def tick(self) -> None:
        """Wake the watches that are due, and abandon the clients that take nothing."""
        now = time.monotonic()
        for watcher in list(self.watchers):
            if watcher.writing_since is not None and now - watcher.writing_since > _STALLED_CLIENT_TIMEOUT_S:
                watcher.on_stalled()
            elif watcher.wake_after <= now:
                watcher.wake()

    def close(self) -> None:
        """End every watch: this replica is going down."""
        self._shutting_down = True
        for watcher in self.watchers:
            watcher.shutting_down = True
            watcher.wake()

    async def _require_version(self, version: int) -> None:
        if version > self.latest_version:
            await self._reflector.wait_fresh()
        if version > self.latest_version:
            raise VersionAhead(version, self.latest_version)

    async def _require_logged(self, since: int) -> None:
        await self._require_version(since)
        if not await self._reflector.watch_history.extend_to(since):
            raise VersionTooOld(since, self.latest_version)

    def _end_with_log_gap(self) -> None:
        for watcher in self.watchers:
            watcher.log_gap = True
            watcher.wake()


def _backlog_events(matcher: Matcher, entries: Sequence[ChangeEntry]) -> list[WatchEvent]:
    """Return what a watcher that has come so far has not seen yet."""
    key = matcher.index_key
    found: list[WatchEvent] = []
    for entry in entries:
        if key is None or key in entry.index_keys:
            kind = matcher.event_type(entry)
            if kind is not None:
                found.append((kind, entry))
    return found
