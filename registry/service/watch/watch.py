"""Watch: begin somewhere, see every change that matters, in order, none twice; resume anywhere."""

import asyncio
import time
from collections.abc import Callable, Sequence

from registry.cache.change_buffer import Entry
from registry.cache.reflector import Feed
from registry.cache.view import Record
from registry.errors import NotReady, VersionAhead, VersionTooOld
from registry.model.query import AgentQuery
from registry.service.discovery.matching import Matcher
from registry.service.watch.fanout import Cursor, Group, Groups, Seen, never

# Events handed out at once, so that one watcher with much to catch up does not hold the others.
_AT_ONCE = 32
# How many watches one replica serves.
_MOST = 20_000
# A client that takes nothing for so many seconds is not there any more, or might as well not be.
_STUCK = 10.0


class Watcher:
    """One watch.

    `reached` is the version up to which everything that matches was handed out by `take`; `initial` are the agents that
    matched at the beginning, if they were asked for. `over` says why it is to end: `lost` (it fell too far behind:
    resume at `reached`), `broken` (what comes next does not follow on what it has seen: list again) or `closing` (the
    replica is going down: resume at `reached` on another). Set `due`, monotonic seconds, to be woken in the second
    after it; set `writing_since` while the client is written to, and `abandon` to what ends one that takes nothing.
    """

    def __init__(self, watching: "Watching", matcher: Matcher, reached: int, backlog: list[Seen]) -> None:
        self.reached = reached
        self.initial: list[Record] | None = None
        self.due = float("inf")
        self.writing_since: float | None = None
        self.abandon: Callable[[], None] = lambda: None
        self.broken = False
        self.closing = False
        self._watching = watching
        self._backlog = backlog
        self._alarm: asyncio.TimerHandle | None = None
        self._group: Group
        self._cursor: Cursor
        self._group, self._cursor = watching.groups.join(matcher)

    @property
    def newest(self) -> int:
        """The version the replica holds."""
        return self._watching.newest

    @property
    def over(self) -> str | None:
        """Why the watch is to end, None while it goes on."""
        if self.broken:
            return "broken"
        if self._cursor.lost:
            return "lost"
        return "closing" if self.closing else None

    def take(self) -> list[Seen]:
        """Return the next events, none when everything was seen; moves `reached` along."""
        if self.broken or self._cursor.lost:
            return []
        group, cursor = self._group, self._cursor
        if self._backlog:
            seen, self._backlog = self._backlog[:_AT_ONCE], self._backlog[_AT_ONCE:]
        else:
            seen = group.after(cursor.at, _AT_ONCE)
            cursor.at += len(seen)
        self.reached = self._watching.newest if self.drained else seen[-1][1].version
        return seen

    @property
    def drained(self) -> bool:
        """Whether everything there is was taken."""
        return not self._backlog and self._cursor.at == self._group.end

    async def wait(self, push: Callable[[], bool] = never) -> None:
        """Wait until there may be something to take, or to end for, or `due` has come.

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
            self._alarm = asyncio.get_running_loop().call_later(max(left, 0.001), self.wake_at, moment)

    def wake(self) -> None:
        """End a `wait`."""
        self._cursor.wake()

    def close(self) -> None:
        """Let go; the watch holds nothing any more."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._watching.watchers.discard(self)
        self._watching.groups.leave(self._group, self._cursor)


class Watching:
    """Opens watches over the shared history of one replica. Call `tick` each second."""

    def __init__(self, feed: Feed) -> None:
        self.groups = Groups()
        self.watchers: set[Watcher] = set()
        self._feed = feed
        self._closing = False
        feed.trail.on_change = self.groups.publish
        feed.trail.on_break = self._break

    @property
    def newest(self) -> int:
        """The version the replica holds, up to which every watch has been shown what concerns it."""
        return self._feed.trail.history.last

    async def open(self, query: AgentQuery, since: int | None = None, *, initial: bool = False) -> Watcher:
        """Begin a watch: after version `since`, or at the version held now (as soon as any is, for 0).

        With `initial` it begins with the agents as they are, at a version not older than `since`, or the newest.
        Raises VersionTooOld when the log no longer holds `since`, VersionAhead when the store has not come so far, and
        NotReady before the first fill, when there are too many watches, or at the end.
        """
        if initial and since is None:
            await self._feed.fresh()
        elif initial:
            await self._come_to(since or 0)
        elif since:
            await self._reach(since)
        # From here on nothing awaits: what is read and where the cursor stands belong to one version.
        watcher = self.begin(query, None if initial else since or None)
        if initial and self._feed.view is not None:
            records = Matcher(query).select(self._feed.view)
            watcher.initial = sorted(records, key=lambda record: record.order)
        return watcher

    def begin(self, query: AgentQuery, since: int | None = None) -> Watcher:
        """Begin a watch at the version held now, or after one that is known to be held."""
        matcher = Matcher(query)
        if self._feed.view is None or self._closing or len(self.watchers) >= _MOST:
            raise NotReady("This replica cannot take another watch now; try again shortly")
        backlog = [] if since is None else _missed(matcher, self._feed.trail.history.since(since))
        watcher = Watcher(self, matcher, self.newest if since is None else since, backlog)
        self.watchers.add(watcher)
        return watcher

    async def tick(self) -> None:
        """Wake the watches that are due, and abandon the clients that take nothing."""
        now = time.monotonic()
        for watcher in list(self.watchers):
            if watcher.writing_since is not None and now - watcher.writing_since > _STUCK:
                watcher.abandon()
            elif watcher.due <= now:
                watcher.wake()

    def close(self) -> None:
        """End every watch: this replica is going down."""
        self._closing = True
        for watcher in self.watchers:
            watcher.closing = True
            watcher.wake()

    async def _come_to(self, version: int) -> None:
        if version > self.newest:
            await self._feed.fresh()
        if version > self.newest:
            raise VersionAhead(version, self.newest)

    async def _reach(self, since: int) -> None:
        await self._come_to(since)
        if not await self._feed.trail.reach(since):
            raise VersionTooOld(since, self.newest)

    def _break(self) -> None:
        for watcher in self.watchers:
            watcher.broken = True
            watcher.wake()


def _missed(matcher: Matcher, entries: Sequence[Entry]) -> list[Seen]:
    """Return what a watcher that has come so far has not seen yet."""
    key = matcher.key
    found: list[Seen] = []
    for entry in entries:
        if key is None or key in entry.keys:
            kind = matcher.kind(entry)
            if kind is not None:
                found.append((kind, entry))
    return found
