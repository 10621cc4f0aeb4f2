"""Those who watch the same: one group for each query, found by what it cannot match without."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator

from registry.cache.change_buffer import ChangeEntry, IndexKey
from registry.model.encoding.watch_event import EventKind
from registry.service.discovery.matching import Matcher

WatchEvent = tuple[EventKind, ChangeEntry]

# What a group keeps for its slowest watcher; one that falls further behind is ended with the version it reached.
_MAX_BUFFERED_EVENTS = 1024
# How many watchers are told of news before others have their turn.
_NOTIFY_BATCH_SIZE = 128


def no_push() -> bool:
    """Hand nothing on."""
    return False


class WatchGroup:
    """The events of one query, and the watchers that are cursors into them.

    Cursors count events from the group's beginning; `_dropped` are those no watcher needs any more.
    """

    def __init__(self, matcher: Matcher) -> None:
        self.matcher = matcher
        self.cursors: set[WatchCursor] = set()
        self._events: deque[WatchEvent] = deque()
        self._dropped = 0
        self._notified_end = 0
        self._notifying = False

    @property
    def end(self) -> int:
        """Where a cursor stands that has seen everything."""
        return self._dropped + len(self._events)

    def offer(self, entry: ChangeEntry) -> None:
        """Take a change that may concern the group; if it does, its watchers are told once this turn of the loop ends.

        So changes that come together are written together.
        """
        kind = self.matcher.event_type(entry)
        if kind is None:
            return
        self._events.append((kind, entry))
        if len(self._events) > _MAX_BUFFERED_EVENTS:
            self._drop_lagging_cursors()
        if not self._notifying:
            self._notifying = True
            asyncio.get_running_loop().call_soon(self._start_notifying)

    def events_from(self, cursor: int, max_events: int) -> list[WatchEvent]:
        """Return up to `max_events` events from a cursor on."""
        at = cursor - self._dropped
        return [self._events[i] for i in range(at, min(len(self._events), at + max_events))]

    def trim(self) -> None:
        """Drop the events every watcher has seen."""
        least = min((watcher.position for watcher in self.cursors), default=self.end)
        while self._dropped < least:
            self._events.popleft()
            self._dropped += 1

    def _start_notifying(self) -> None:
        self._notified_end = self.end
        self._notify(list(self.cursors))

    def _notify(self, cursors: "list[WatchCursor]") -> None:
        """Tell some of these watchers, and the others when the loop comes round; then begin anew if there is more."""
        for watcher in cursors[:_NOTIFY_BATCH_SIZE]:
            watcher.notify()
        left = cursors[_NOTIFY_BATCH_SIZE:]
        if left:
            asyncio.get_running_loop().call_soon(self._notify, left)
            return
        self.trim()
        self._notifying = self.end > self._notified_end
        if self._notifying:
            self._start_notifying()

    def _drop_lagging_cursors(self) -> None:
        """Drop half of the line; watchers that have not come so far are lost."""
        self.trim()
        least = self.end - _MAX_BUFFERED_EVENTS // 2
        if self._dropped >= least - _MAX_BUFFERED_EVENTS // 2:
            return
        for watcher in self.cursors:
            if watcher.position < least:
                watcher.overflowed = True
                watcher.position = self.end
                watcher.wake()
        self.trim()


class WatchCursor:
    """A place in a group's events. `overflowed` once it fell too far behind; `wake` ends its `wait`.

    `wait` may be given what hands on the events without waiting and tells whether it could: the task that waits need
    not wake for them then.
    """

    __slots__ = ("_future", "_push", "overflowed", "position")

    def __init__(self, position: int) -> None:
        self.position = position
        self.overflowed = False
        self._push: Callable[[], bool] = no_push
        self._future: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Let whoever waits look again."""
        future = self._future
        if future is not None and not future.done():
            future.set_result(None)

    def notify(self) -> None:
        """Say that there are events, to one who waits for them."""
        future = self._future
        if future is not None and not future.done() and not self._push():
            future.set_result(None)

    async def wait(self, push: Callable[[], bool]) -> None:
        """Wait until there may be something to look at that `push` did not hand on."""
        self._future, self._push = asyncio.get_running_loop().create_future(), push
        try:
            await self._future
        finally:
            self._future, self._push = None, no_push


class WatchFanout:
    """Every group, by query and by the key its matches must have."""

    def __init__(self) -> None:
        self._by_query: dict[object, WatchGroup] = {}
        self._by_key: dict[IndexKey | None, dict[int, WatchGroup]] = {}

    def __iter__(self) -> Iterator[WatchGroup]:
        return iter(list(self._by_query.values()))

    def subscribe(self, matcher: Matcher) -> tuple[WatchGroup, WatchCursor]:
        """Return the query's group, made anew if this is its first watcher, and a cursor at its end."""
        group = self._by_query.get(matcher.query)
        if group is None:
            group = self._by_query[matcher.query] = WatchGroup(matcher)
            self._by_key.setdefault(matcher.index_key, {})[id(group)] = group
        cursor = WatchCursor(group.end)
        group.cursors.add(cursor)
        return group, cursor

    def unsubscribe(self, group: WatchGroup, cursor: WatchCursor) -> None:
        """Take a cursor away; a group without any is dropped."""
        group.cursors.discard(cursor)
        if group.cursors:
            return
        self._by_query.pop(group.matcher.query, None)
        alike = self._by_key.get(group.matcher.index_key, {})
        alike.pop(id(group), None)
        if not alike:
            self._by_key.pop(group.matcher.index_key, None)

    def publish(self, entry: ChangeEntry) -> None:
        """Show a change to every group it may concern, and to no other."""
        if not self._by_key:
            return
        for group in self._by_key.get(None, {}).values():
            group.offer(entry)
        if len(self._by_key) > (None in self._by_key):
            for key in entry.index_keys:
                for group in self._by_key.get(key, {}).values():
                    group.offer(entry)
