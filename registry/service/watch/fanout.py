"""Groups watchers by query, so that a change is matched once for each query and not once for each watcher."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator

from registry.cache.change_buffer import ChangeEntry, IndexKey
from registry.model.encoding.watch_event import EventKind
from registry.service.discovery.query_match import Matcher

WatchEvent = tuple[EventKind, ChangeEntry]

# Events a group buffers for its slowest watcher; the watch of a watcher that falls further behind ends.
_MAX_BUFFERED_EVENTS = 1024
# Watchers notified before the event loop runs other tasks.
_NOTIFY_BATCH_SIZE = 128


def no_push() -> bool:
    """Return False: the default for a watcher that has no function to push events."""
    return False


class WatchGroup:
    """The watchers of one query: the buffered events, and the cursor of each watcher.

    Positions count events from the beginning of the group; `_dropped` counts those that all watchers have taken.
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
        """The cursor position after the last event of the group."""
        return self._dropped + len(self._events)

    def offer(self, entry: ChangeEntry) -> None:
        """Buffer a matching change; notify watchers in the loop's next iteration, to write changes together."""
        kind = self.matcher.event_type(entry)
        if kind is None:
            return
        self._events.append((kind, entry))
        if len(self._events) > _MAX_BUFFERED_EVENTS:
            self._drop_lagging_cursors()
        if not self._notifying:
            self._notifying = True
            asyncio.get_running_loop().call_soon(self._start_notifying)

    def events_from(self, position: int, max_events: int) -> list[WatchEvent]:
        """Return up to `max_events` buffered events from a cursor position on."""
        at = position - self._dropped
        return [self._events[i] for i in range(at, min(len(self._events), at + max_events))]

    def trim(self) -> None:
        """Drop the buffered events that every watcher has taken."""
        first_needed = min((cursor.position for cursor in self.cursors), default=self.end)
        while self._dropped < first_needed:
            self._events.popleft()
            self._dropped += 1

    def _start_notifying(self) -> None:
        self._notified_end = self.end
        self._notify(list(self.cursors))

    def _notify(self, cursors: "list[WatchCursor]") -> None:
        """Notify watchers of new events in batches, then start over if more events arrived in the meantime."""
        for cursor in cursors[:_NOTIFY_BATCH_SIZE]:
            cursor.notify()
        remaining = cursors[_NOTIFY_BATCH_SIZE:]
        if remaining:
            asyncio.get_running_loop().call_soon(self._notify, remaining)
            return
        self.trim()
        self._notifying = self.end > self._notified_end
        if self._notifying:
            self._start_notifying()

    def _drop_lagging_cursors(self) -> None:
        """Drop the older half of the events, and mark the watchers that have not taken those events as overflowed."""
        self.trim()
        first_retained = self.end - _MAX_BUFFERED_EVENTS // 2
        if self._dropped >= first_retained - _MAX_BUFFERED_EVENTS // 2:
            return
        for cursor in self.cursors:
            if cursor.position < first_retained:
                cursor.overflowed = True
                cursor.position = self.end
                cursor.wake()
        self.trim()


class WatchCursor:
    """The position of one watcher in the events of its group.

    `overflowed` is set when it has fallen too far behind, `log_gap` when changes after its last event are missing.
    """

    __slots__ = ("_future", "_push", "log_gap", "overflowed", "position")

    def __init__(self, position: int) -> None:
        self.position = position
        self.overflowed = False
        self.log_gap = False
        self._push: Callable[[], bool] = no_push
        self._future: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """End the `wait` of the watcher."""
        future = self._future
        if future is not None and not future.done():
            future.set_result(None)

    def notify(self) -> None:
        """Call `push` for new events, and end the watcher's `wait` if `push` does not handle the events."""
        future = self._future
        if future is not None and not future.done() and not self._push():
            future.set_result(None)

    async def wait(self, push: Callable[[], bool]) -> None:
        """Wait until `wake` is called, or events arrive that `push` does not handle; for others no task runs."""
        self._future, self._push = asyncio.get_running_loop().create_future(), push
        try:
            await self._future
        finally:
            self._future, self._push = None, no_push


class WatchFanout:
    """Sends each change of an agent to the watchers whose query it may affect."""

    def __init__(self) -> None:
        self._by_query: dict[object, WatchGroup] = {}
        self._by_key: dict[IndexKey | None, dict[int, WatchGroup]] = {}

    def __iter__(self) -> Iterator[WatchGroup]:
        return iter(list(self._by_query.values()))

    def subscribe(self, matcher: Matcher) -> tuple[WatchGroup, WatchCursor]:
        """Add a watcher to the group of its query; return the group and a cursor after its last event."""
        group = self._by_query.get(matcher.query)
        if group is None:
            group = self._by_query[matcher.query] = WatchGroup(matcher)
            self._by_key.setdefault(matcher.index_key, {})[id(group)] = group
        cursor = WatchCursor(group.end)
        group.cursors.add(cursor)
        return group, cursor

    def unsubscribe(self, group: WatchGroup, cursor: WatchCursor) -> None:
        """Remove the cursor of a watcher from its group, and an empty group."""
        group.cursors.discard(cursor)
        if group.cursors:
            return
        self._by_query.pop(group.matcher.query, None)
        groups = self._by_key.get(group.matcher.index_key, {})
        groups.pop(id(group), None)
        if not groups:
            self._by_key.pop(group.matcher.index_key, None)

    def publish(self, entry: ChangeEntry) -> None:
        """Offer a change to each group of watchers whose query it may affect."""
        if not self._by_key:
            return
        for group in self._by_key.get(None, {}).values():
            group.offer(entry)
        if len(self._by_key) > (None in self._by_key):
            for key in entry.index_keys:
                for group in self._by_key.get(key, {}).values():
                    group.offer(entry)

    def end_with_log_gap(self) -> None:
        """End every watch with a log gap, because changes after its last event are missing."""
        for group in self:
            for cursor in group.cursors:
                cursor.log_gap = True
                cursor.wake()
