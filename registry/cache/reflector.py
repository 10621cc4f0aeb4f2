"""Fill the view, then follow the log. The only writer of this room; it heals after any gap by filling anew."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from registry.cache.change_signal import ChangeSignal
from registry.cache.view import View
from registry.cache.watch_history import WatchHistory
from registry.concurrency.timeouts import FutureQueue
from registry.errors import NotReady, RegistryError, StoreUnavailable
from registry.model.agent import StoredAgent
from registry.model.change import Change, LogPosition, LogRead
from registry.telemetry.logs import get_logger

log = get_logger(__name__)

# Looking needs no bell: whatever came unannounced is seen within this many seconds.
POLL_INTERVAL_S = 1.0
_STALE_AFTER_S = 1.5 * POLL_INTERVAL_S
# A read waits at most this long for its look; the store's own time-outs are as long.
_READ_TIMEOUT_S = 2.0
# Seconds between attempts while the store is away; short, since recovery is promised within two seconds.
_RETRY_DELAY_S = 0.25
# Unannounced changes in this many looks in a row mean that the bell is broken.
_MAX_UNANNOUNCED_POLLS = 3


class LogGap(RegistryError):
    """The log does not lead from what is held to what there is: trimmed, forked, or another history."""

    code = "gap"


class ChangeSource(Protocol):
    """What the feed needs of a store."""

    async def open(self) -> LogPosition:
        """Return where the mesh stands."""

    async def read_since(self, after: int, last_entry: object = None) -> LogRead:
        """Return version and history now, and the changes after entry `after`, which must read like `last_entry`."""

    async def entry(self, version: int) -> Change | None:
        """Return one entry, None when it is not there."""

    async def invalidate(self, timeline: str, last_seen: int) -> bool:
        """Give up a history whose log lost an entry; return whether that was done."""

    def scan(self) -> AsyncIterator[list[StoredAgent]]:
        """Return every agent, a slice at a time."""


class Reflector:
    """Keeps one view of the mesh up to date.

    `view` is None until the first fill; `following` tells whether it is kept up to date. `fills` and `gaps` count.
    `signal` ends the pause between two polls; `on_unannounced` is called when changes come without it again and again.
    """

    def __init__(
        self,
        source: ChangeSource,
        watch_history: WatchHistory,
        signal: ChangeSignal,
        *,
        on_unannounced: Callable[[], None],
    ) -> None:
        self.watch_history = watch_history
        self.view: View | None = None
        self.fills = 0
        self.gaps = 0
        self._source = source
        self._signal = signal
        self._on_unannounced = on_unannounced
        self._read_timeouts: FutureQueue[View] = FutureQueue(_READ_TIMEOUT_S, self._timeout_error)
        self._waiting_reads: list[asyncio.Future[View]] = []
        self._unannounced_polls = 0
        self._last_entry: object = None
        self._last_poll_at = time.monotonic()
        self._connected = False

    @property
    def following(self) -> bool:
        """Whether the view is kept up to date; a look that is overdue counts as trouble before it has failed."""
        return self._connected and time.monotonic() - self._last_poll_at <= _STALE_AFTER_S

    @property
    def staleness(self) -> float:
        """Seconds for which the view may be old; 0 while it is followed."""
        return 0.0 if self.following else time.monotonic() - self._last_poll_at

    def wait_fresh(self) -> "asyncio.Future[View]":
        """Return the view once it holds a version that was asked for after this call.

        All who wait share one question. Fails with StoreUnavailable, or NotReady before the first fill, within two
        seconds.
        """
        future = self._read_timeouts.add()
        self._waiting_reads.append(future)
        self._signal.wake()
        return future

    async def run(self) -> None:
        """Fill and follow for ever."""
        told = False
        while True:
            try:
                view = await self._fill()
                await self._reconnect_watch_history(view)
                self._log_timeline_change(self.view, view)
                self.view = view
                self._connected, told = True, False
                self.fills += 1
                await self._follow(view)
            except LogGap as gap:
                self.gaps += 1
                log.warning("the cache is filled anew", reason=str(gap))
            except StoreUnavailable as error:
                if not told:
                    cause = str(error.__cause__ or error)
                    log.warning("the store is away; fresh reads answer 503 until it is back", error=cause)
                    told = True
                self._fail_waiting_reads(error)
            if not self._connected:
                await asyncio.sleep(_RETRY_DELAY_S * random.uniform(0.5, 1.5))  # noqa: S311 - spreads replicas, no secret
            self._connected = False

    async def _fill(self) -> View:
        """Read the whole state and follow the log from before it, until the version at the end of it is held."""
        view = View(await self._source.open())
        self._last_entry = None
        async for held in self._source.scan():
            now = time.monotonic()
            for one in held:
                view.put(one.agent, one.heartbeat, now)
        await self._catch_up(view)
        log.info("the cache is filled", agents=len(view.records), version=view.version)
        return view

    async def _reconnect_watch_history(self, view: View) -> None:
        if not await self.watch_history.reconnect(view.version, view.timeline):
            raise LogGap("the log lost what this replica has seen; another history begins")

    def _log_timeline_change(self, before: View | None, now: View) -> None:
        """Say loudly that the store forgot, which no reader of numbers alone could see."""
        if before is not None and before.timeline != now.timeline:
            log.error(
                "the store lost its history: agents that are missing must register anew, watchers will list again",
                history_before=before.timeline,
                history_now=now.timeline,
                agents_before=len(before.records),
                agents_now=len(now.records),
            )

    def clamp_heartbeats(self, now: int, replacement: int) -> None:
        """Redis' clock went back to `replacement`, and is at `now`: no last heartbeat may lie in its future."""
        if self.view is not None:
            for record in self.view.records.values():
                record.clamp_heartbeat(now, replacement)

    async def _follow(self, view: View) -> None:
        while True:
            asked, self._waiting_reads = self._waiting_reads, []
            notified = self._signal.take()
            try:
                moved = await self._catch_up(view)
            except BaseException:
                self._waiting_reads = asked + self._waiting_reads
                raise
            for future in asked:
                if not future.done():
                    future.set_result(view)
            self._count_unannounced(changed=moved, announced=notified or bool(asked))
            if not self._waiting_reads:
                await self._signal.wait(POLL_INTERVAL_S)

    async def _catch_up(self, view: View) -> bool:
        """Pull until the version the store named is held; return whether anything came."""
        moved = False
        while True:
            pulled = await self._source.read_since(view.version, self._last_entry)
            if pulled.timeline != view.timeline:
                raise LogGap("another history")
            if not pulled.contiguous:
                raise LogGap(f"entry {view.version} cannot be followed any more")
            self._last_entry = pulled.last_entry
            now = time.monotonic()
            for change in pulled.changes:
                if change.prev != view.version:
                    raise LogGap(f"entry {change.version} follows {change.prev}, not {view.version}")
                view.apply(change, now)
                if view is self.view:
                    self.watch_history.append(change)
            moved = moved or bool(pulled.changes)
            if view.version >= pulled.version:
                self._last_poll_at = now
                return moved
            if not pulled.changes:
                raise LogGap(f"version {pulled.version} has no log entry")

    def _count_unannounced(self, *, changed: bool, announced: bool) -> None:
        """Count the looks in a row that found changes nobody had announced."""
        if not changed or announced:
            self._unannounced_polls = 0 if changed else self._unannounced_polls
            return
        self._unannounced_polls += 1
        if self._unannounced_polls >= _MAX_UNANNOUNCED_POLLS:
            self._unannounced_polls = 0
            self._on_unannounced()

    def _fail_waiting_reads(self, error: StoreUnavailable) -> None:
        asked, self._waiting_reads = self._waiting_reads, []
        for future in asked:
            if not future.done():
                future.set_exception(error)

    def _timeout_error(self, _future: "asyncio.Future[View]") -> RegistryError:
        if self.view is None:
            return NotReady("This replica is still filling its cache; try again shortly")
        return StoreUnavailable("The store did not answer in time", reason="timeout")
