"""Those who watch the same: one group for each query, found by what it cannot match without."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator

from registry.cache.change_buffer import Entry, Key
from registry.model.encoding.watch_event import EventKind
from registry.service.discovery.matching import Matcher

Seen = tuple[EventKind, Entry]

# What a group keeps for its slowest watcher; one that falls further behind is ended with the version it reached.
_LONGEST_LINE = 1024
# How many watchers are told of news before others have their turn.
_AT_ONCE = 128


def never() -> bool:
    """Hand nothing on."""
    return False


class Group:
    """The events of one query, and the watchers that are cursors into them.

    Cursors count events from the group's beginning; `_dropped` are those no watcher needs any more.
    """

    def __init__(self, matcher: Matcher) -> None:
        self.matcher = matcher
        self.watchers: set[Cursor] = set()
        self._events: deque[Seen] = deque()
        self._dropped = 0
        self._told = 0
        self._telling = False

    @property
    def end(self) -> int:
        """Where a cursor stands that has seen everything."""
        return self._dropped + len(self._events)

    def examine(self, entry: Entry) -> None:
        """Take a change that may concern the group; if it does, its watchers are told once this turn of the loop ends.

        So changes that come together are written together.
        """
        kind = self.matcher.kind(entry)
        if kind is None:
            return
        self._events.append((kind, entry))
        if len(self._events) > _LONGEST_LINE:
            self._shorten()
        if not self._telling:
            self._telling = True
            asyncio.get_running_loop().call_soon(self._begin_telling)

    def after(self, cursor: int, most: int) -> list[Seen]:
        """Return up to `most` events from a cursor on."""
        at = cursor - self._dropped
        return [self._events[i] for i in range(at, min(len(self._events), at + most))]

    def forget(self) -> None:
        """Drop the events every watcher has seen."""
        least = min((watcher.at for watcher in self.watchers), default=self.end)
        while self._dropped < least:
            self._events.popleft()
            self._dropped += 1

    def _begin_telling(self) -> None:
        self._told = self.end
        self._tell(list(self.watchers))

    def _tell(self, watchers: "list[Cursor]") -> None:
        """Tell some of these watchers, and the others when the loop comes round; then begin anew if there is more."""
        for watcher in watchers[:_AT_ONCE]:
            watcher.tell()
        left = watchers[_AT_ONCE:]
        if left:
            asyncio.get_running_loop().call_soon(self._tell, left)
            return
        self.forget()
        self._telling = self.end > self._told
        if self._telling:
            self._begin_telling()

    def _shorten(self) -> None:
        """Drop half of the line; watchers that have not come so far are lost."""
        self.forget()
        least = self.end - _LONGEST_LINE // 2
        if self._dropped >= least - _LONGEST_LINE // 2:
            return
        for watcher in self.watchers:
            if watcher.at < least:
                watcher.lost = True
                watcher.at = self.end
                watcher.wake()
        self.forget()


class Cursor:
    """A place in a group's events. `lost` once it fell too far behind; `wake` ends its `wait`.

    `wait` may be given what hands on the events without waiting and tells whether it could: the task that waits need
    not wake for them then.
    """

    __slots__ = ("_future", "_push", "at", "lost")

    def __init__(self, at: int) -> None:
        self.at = at
        self.lost = False
        self._push: Callable[[], bool] = never
        self._future: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Let whoever waits look again."""
        future = self._future
        if future is not None and not future.done():
            future.set_result(None)

    def tell(self) -> None:
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
            self._future, self._push = None, never


class Groups:
    """Every group, by query and by the key its matches must have."""

    def __init__(self) -> None:
        self._by_query: dict[object, Group] = {}
        self._by_key: dict[Key | None, dict[int, Group]] = {}

    def __iter__(self) -> Iterator[Group]:
        return iter(list(self._by_query.values()))

    def join(self, matcher: Matcher) -> tuple[Group, Cursor]:
        """Return the query's group, made anew if this is its first watcher, and a cursor at its end."""
        group = self._by_query.get(matcher.query)
        if group is None:
            group = self._by_query[matcher.query] = Group(matcher)
            self._by_key.setdefault(matcher.key, {})[id(group)] = group
        cursor = Cursor(group.end)
        group.watchers.add(cursor)
        return group, cursor

    def leave(self, group: Group, cursor: Cursor) -> None:
        """Take a cursor away; a group without any is dropped."""
        group.watchers.discard(cursor)
        if group.watchers:
            return
        self._by_query.pop(group.matcher.query, None)
        alike = self._by_key.get(group.matcher.key, {})
        alike.pop(id(group), None)
        if not alike:
            self._by_key.pop(group.matcher.key, None)

    def publish(self, entry: Entry) -> None:
        """Show a change to every group it may concern, and to no other."""
        if not self._by_key:
            return
        for group in self._by_key.get(None, {}).values():
            group.examine(entry)
        if len(self._by_key) > (None in self._by_key):
            for key in entry.keys:
                for group in self._by_key.get(key, {}).values():
                    group.examine(entry)
