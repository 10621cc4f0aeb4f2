"""The reflector, the only writer of the cache: fills it from Redis, follows the change log, refills it after a gap."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from registry.cache.view import View
from registry.cache.watch_history import LogReader, WatchHistory
from registry.concurrency.timeouts import FutureQueue
from registry.errors import NotReady, RegistryError, StoreUnavailable
from registry.model.agent import StoredAgent
from registry.model.change import LogPosition
from registry.telemetry.logs import get_logger

log = get_logger(__name__)

# Maximum seconds between two polls of the log: a change without a notification is read within this time.
POLL_INTERVAL_S = 1.0
_STALE_AFTER_S = 1.5 * POLL_INTERVAL_S
# Maximum seconds that a fresh read waits for its poll; the timeouts of the store are as long.
_READ_TIMEOUT_S = 2.0
# Seconds between attempts while Redis is unavailable; short, because recovery is promised within two seconds.
_RETRY_DELAY_S = 0.25
# If this many polls in a row find changes without a notification, the change notifier is considered broken.
_MAX_UNANNOUNCED_POLLS = 3


class LogGap(RegistryError):
    """The log lacks changes after the cached version, because it was trimmed, forked or replaced."""

    code = "log_gap"


class ChangeSource(LogReader, Protocol):
    """The part of the store that the reflector reads."""

    async def open(self) -> LogPosition:
        """Return the current version and timeline of the mesh."""

    def scan(self) -> AsyncIterator[list[StoredAgent]]:
        """Yield all agents of the mesh in slices."""


class ChangeSignal:
    """A signal that makes the reflector poll the change log before its next poll is due.

    The change notifier calls `notify` for each change; reads that need the newest version call `wake`.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._notified = False

    def notify(self) -> None:
        """Signal that the change log has a new entry."""
        self._notified = True
        self._event.set()

    def wake(self) -> None:
        """Make the reflector poll now, for a read that needs the newest version."""
        self._event.set()

    def take(self) -> bool:
        """Reset the signal, and return whether `notify` was called since the last reset."""
        notified, self._notified = self._notified, False
        self._event.clear()
        return notified

    async def wait(self, timeout: float) -> None:
        """Wait until the signal is set, for at most `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._event.wait()


class Reflector:
    """Fills the view of the mesh from Redis and updates it from the change log.

    `view` is None until the first fill. `fills` and `gaps` count fills of the cache and gaps in the log. `signal` ends
    the pause between two polls; `on_unannounced` is called if several polls in a row find changes without a signal.
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
        """Whether the view is up to date; it is not if the last poll failed or the next one is overdue."""
        return self._connected and time.monotonic() - self._last_poll_at <= _STALE_AFTER_S

    @property
    def staleness(self) -> float:
        """The maximum age of the view in seconds; 0 while the view is up to date."""
        return 0.0 if self.following else time.monotonic() - self._last_poll_at

    def smallest_timeout(self) -> float | None:
        """Return the smallest timeout of an agent in ms, infinity without agents; None before the first fill."""
        return None if self.view is None else self.view.smallest_timeout()

    def wait_fresh(self) -> "asyncio.Future[View]":
        """Return the view when it contains all changes that were written before this call.

        Concurrent calls share one poll. Fails within two seconds: with NotReady before the first fill, or
        with StoreUnavailable.
        """
        future = self._read_timeouts.add()
        self._waiting_reads.append(future)
        self._signal.wake()
        return future

    async def run(self) -> None:
        """Fill the view and follow the log, until cancelled."""
        outage_logged = False
        while True:
            try:
                view = await self.fill()
                await self._reconnect_watch_history(view)
                self._log_timeline_change(self.view, view)
                self.view = view
                self._connected, outage_logged = True, False
                self.fills += 1
                await self._follow(view)
            except LogGap as gap:
                self.gaps += 1
                log.warning("cache_refill_started", reason=str(gap))
            except StoreUnavailable as error:
                if not outage_logged and error.reason != "auth":
                    cause = str(error.__cause__ or error)
                    log.warning("store_unavailable", error=cause, effect="fresh reads return 503")
                    outage_logged = True
                self._fail_waiting_reads(error)
            if not self._connected:
                await asyncio.sleep(_RETRY_DELAY_S * random.uniform(0.5, 1.5))  # noqa: S311 - spreads replicas, no secret
            self._connected = False

    async def fill(self, on_progress: Callable[[int], None] = lambda _agents: None) -> View:
        """Read all agents, then all log entries that were written during the scan; however long this takes.

        `on_progress` receives the number of agents read so far. Raises StoreUnavailable, or LogGap if the log was
        trimmed during the scan.
        """
        view = View(await self._source.open())
        self._last_entry = None
        async for stored_agents in self._source.scan():
            now = time.monotonic()
            for stored in stored_agents:
                view.put(stored.agent, stored.heartbeat, now)
            on_progress(len(view.records))
        await self._catch_up(view)
        log.info("cache_filled", agents=len(view.records), version=view.version)
        return view

    async def _reconnect_watch_history(self, view: View) -> None:
        if not await self.watch_history.reconnect(view.version, view.timeline):
            raise LogGap("the log no longer contains the last entry of this replica; timeline invalidated")

    def _log_timeline_change(self, before: View | None, now: View) -> None:
        """Log a change of the timeline, which can mean that Redis lost data."""
        if before is not None and before.timeline != now.timeline:
            log.error(
                "timeline_changed",
                timeline_before=before.timeline,
                timeline_after=now.timeline,
                agents_before=len(before.records),
                agents_after=len(now.records),
            )

    def clamp_heartbeats(self, now: int, replacement: int) -> None:
        """Replace last heartbeats later than `now` by `replacement`, after the clock of Redis was set back."""
        if self.view is not None:
            for record in self.view.records.values():
                record.clamp_heartbeat(now, replacement)

    async def _follow(self, view: View) -> None:
        while True:
            reads, self._waiting_reads = self._waiting_reads, []
            notified = self._signal.take()
            try:
                changed = await self._catch_up(view)
            except BaseException:
                self._waiting_reads = reads + self._waiting_reads
                raise
            for future in reads:
                if not future.done():
                    future.set_result(view)
            self._count_unannounced(changed=changed, announced=notified or bool(reads))
            if not self._waiting_reads:
                await self._signal.wait(POLL_INTERVAL_S)

    async def _catch_up(self, view: View) -> bool:
        """Read the change log until the view has the newest version; return whether there were changes."""
        changed = False
        while True:
            read = await self._source.read_since(view.version, self._last_entry)
            if read.timeline != view.timeline:
                raise LogGap("the timeline changed")
            if not read.contiguous:
                raise LogGap(f"entry {view.version} was trimmed or changed")
            self._last_entry = read.last_entry
            now = time.monotonic()
            for change in read.changes:
                if change.prev != view.version:
                    raise LogGap(f"entry {change.version} has previous version {change.prev}, expected {view.version}")
                view.apply(change, now)
                if view is self.view:
                    self.watch_history.append(change)
            changed = changed or bool(read.changes)
            if view.version >= read.version:
                self._last_poll_at = now
                return changed
            if not read.changes:
                raise LogGap(f"version {read.version} has no log entry")

    def _count_unannounced(self, *, changed: bool, announced: bool) -> None:
        """Count consecutive polls that found changes without a notification; report when there are too many."""
        if not changed or announced:
            self._unannounced_polls = 0 if changed else self._unannounced_polls
            return
        self._unannounced_polls += 1
        if self._unannounced_polls >= _MAX_UNANNOUNCED_POLLS:
            self._unannounced_polls = 0
            self._on_unannounced()

    def _fail_waiting_reads(self, error: StoreUnavailable) -> None:
        reads, self._waiting_reads = self._waiting_reads, []
        for future in reads:
            if not future.done():
                future.set_exception(error)

    def _timeout_error(self, _future: "asyncio.Future[View]") -> RegistryError:
        if self.view is None:
            return NotReady("This replica is still filling its cache; try again shortly")
        return StoreUnavailable("Redis did not answer in time", reason="timeout")
