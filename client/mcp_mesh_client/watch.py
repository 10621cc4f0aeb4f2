"""A watch: an asynchronous iterator of the changes of agents."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from mcp_mesh_client.types.agents import WatchEvent
from mcp_mesh_client.watch_stream import WatchStream

# Beyond this number of buffered events the client stops reading, which slows the registry's stream down.
_MAX_BUFFERED_EVENTS = 1000


class Watch:
    """An iterator of watch events; `async with` waits until the watch is established, and closes it at the end.

    Each event has a `type`, the `object`, a `timestamp`, and the `resource_version` from which a later watch can
    resume. After a connection error the watch resumes, on another replica if necessary; only `close()` or a rejection
    ends it. Cancelling a wait for the next event loses no event. `resource_version` is the version of the last event
    returned or, if newer, of the last bookmark.
    """

    def __init__(self, stream: WatchStream, *, bookmarks: bool) -> None:
        self.resource_version: str | None = None
        self._stream = stream
        self._bookmarks = bookmarks
        self._events: deque[WatchEvent] = deque()
        self._established = False
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._closed = False

    async def __aenter__(self) -> Self:
        """Wait until the registry has accepted the watch, which returns every later change. Raises RequestRejected."""
        await self._wait_until(lambda: self._established)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchEvent:
        """Wait for the next event. Raises RequestRejected if the registry rejects the watch."""
        while True:
            await self._wait_until(lambda: bool(self._events))
            if self._closed:
                raise StopAsyncIteration
            event = self._events.popleft()
            self.resource_version = event["resource_version"]
            self._changed.set()
            if self._bookmarks or event["type"] != "BOOKMARK":
                return event

    async def close(self) -> None:
        """End the watch; an iteration that waits for an event ends, too."""
        self._closed = True
        self._events.clear()
        self._changed.set()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition is true or the watch is closed. Raises the error that ended the watch."""
        while not self._closed and not condition():
            if self._task is None:
                self._task = asyncio.create_task(self._read_stream(), name="mcp-mesh-watch")
            if self._task.done():
                self._closed = True
                self._task.result()
            self._changed.clear()
            await self._changed.wait()

    async def _read_stream(self) -> None:
        """Buffer arriving events, while the buffer has room."""
        try:
            async with contextlib.aclosing(self._stream.batches()) as batches:
                async for batch in batches:
                    self._events.extend(batch)
                    self._established = True
                    self._changed.set()
                    while len(self._events) > _MAX_BUFFERED_EVENTS:
                        self._changed.clear()
                        await self._changed.wait()
        finally:
            self._changed.set()
