"""Fill the view, then follow the log. The only writer of this room; it heals after any gap by filling anew."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from registry.cache.view import View
from registry.cache.watch_history import Trail
from registry.concurrency.timeouts import Waiters
from registry.errors import NotReady, RegistryError, StoreUnavailable
from registry.model.agent import Held
from registry.model.change import Change, Position, Pulled
from registry.telemetry.logs import get_logger

log = get_logger(__name__)

# Looking needs no bell: whatever came unannounced is seen within this many seconds.
LOOK_EVERY = 1.0
_OVERDUE = 1.5 * LOOK_EVERY
# A read waits at most this long for its look; the store's own time-outs are as long.
_PATIENCE = 2.0
# Seconds between attempts while the store is away; short, since recovery is promised within two seconds.
_AGAIN = 0.25
# Unannounced changes in this many looks in a row mean that the bell is broken.
_UNANNOUNCED = 3


class Gap(RegistryError):
    """The log does not lead from what is held to what there is: trimmed, forked, or another history."""

    code = "gap"


class ChangeSource(Protocol):
    """What the feed needs of a store."""

    async def open(self) -> Position:
        """Return where the mesh stands."""

    async def pull(self, after: int, mark: object = None) -> Pulled:
        """Return version and history now, and the changes after entry `after`, which must read like `mark`."""

    async def entry(self, version: int) -> Change | None:
        """Return one entry, None when it is not there."""

    async def sever(self, history: str, seen: int) -> bool:
        """Give up a history whose log lost an entry; return whether that was done."""

    def scan(self) -> AsyncIterator[list[Held]]:
        """Return every agent, a slice at a time."""


class Feed:
    """Keeps one view of the mesh up to date.

    `view` is None until the first fill; `following` tells whether it is kept up to date. `fills` and `gaps` count.
    `on_unannounced` is called when the bell seems to be broken.
    """

    def __init__(self, source: ChangeSource, most: int = 20_000) -> None:
        self.trail = Trail(source, most)
        self.view: View | None = None
        self.on_unannounced: Callable[[], None] = lambda: None
        self.fills = 0
        self.gaps = 0
        self._source = source
        self._waiters: Waiters[View] = Waiters(_PATIENCE, self._overdue)
        self._asked: list[asyncio.Future[View]] = []
        self._wake = asyncio.Event()
        self._rung = False
        self._unannounced = 0
        self._mark: object = None
        self._looked = time.monotonic()
        self._linked = False

    @property
    def following(self) -> bool:
        """Whether the view is kept up to date; a look that is overdue counts as trouble before it has failed."""
        return self._linked and time.monotonic() - self._looked <= _OVERDUE

    @property
    def behind(self) -> float:
        """Seconds for which the view may be old; 0 while it is followed."""
        return 0.0 if self.following else time.monotonic() - self._looked

    def ring(self) -> None:
        """Look now: something happened."""
        self._rung = True
        self._wake.set()

    def fresh(self) -> "asyncio.Future[View]":
        """Return the view once it holds a version that was asked for after this call.

        All who wait share one question. Fails with StoreUnavailable, or NotReady before the first fill, within two
        seconds.
        """
        future = self._waiters.join()
        self._asked.append(future)
        self._wake.set()
        return future

    async def run(self) -> None:
        """Fill and follow for ever."""
        told = False
        while True:
            try:
                view = await self._fill()
                await self._connect(view)
                self._compare(self.view, view)
                self.view = view
                self._linked, told = True, False
                self.fills += 1
                await self._follow(view)
            except Gap as gap:
                self.gaps += 1
                log.warning("the cache is filled anew", reason=str(gap))
            except StoreUnavailable as error:
                if not told:
                    cause = str(error.__cause__ or error)
                    log.warning("the store is away; fresh reads answer 503 until it is back", error=cause)
                    told = True
                self._fail(error)
            if not self._linked:
                await asyncio.sleep(_AGAIN * random.uniform(0.5, 1.5))  # noqa: S311 - spreads replicas, no secret
            self._linked = False

    async def _fill(self) -> View:
        """Read the whole state and follow the log from before it, until the version at the end of it is held."""
        view = View(await self._source.open())
        self._mark = None
        async for held in self._source.scan():
            now = time.monotonic()
            for one in held:
                view.put(one.agent, one.heartbeat, now)
        await self._catch_up(view)
        log.info("the cache is filled", agents=len(view.records), version=view.version)
        return view

    async def _connect(self, view: View) -> None:
        if not await self.trail.lead_to(view.version, view.history):
            raise Gap("the log lost what this replica has seen; another history begins")

    def _compare(self, before: View | None, now: View) -> None:
        """Say loudly that the store forgot, which no reader of numbers alone could see."""
        if before is not None and before.history != now.history:
            log.error(
                "the store lost its history: agents that are missing must register anew, watchers will list again",
                history_before=before.history,
                history_now=now.history,
                agents_before=len(before.records),
                agents_now=len(now.records),
            )

    def rewind(self, now: int, to: int) -> None:
        """Redis' clock went back to `to`, and is at `now`: no last heartbeat may lie in its future."""
        if self.view is not None:
            for record in self.view.records.values():
                record.rewind(now, to)

    async def _follow(self, view: View) -> None:
        while True:
            asked, self._asked = self._asked, []
            rung, self._rung = self._rung, False
            self._wake.clear()
            try:
                moved = await self._catch_up(view)
            except BaseException:
                self._asked = asked + self._asked
                raise
            for future in asked:
                if not future.done():
                    future.set_result(view)
            self._listen(moved=moved, announced=rung or bool(asked))
            if not self._asked:
                await self._rest()

    async def _catch_up(self, view: View) -> bool:
        """Pull until the version the store named is held; return whether anything came."""
        moved = False
        while True:
            pulled = await self._source.pull(view.version, self._mark)
            if pulled.history != view.history:
                raise Gap("another history")
            if not pulled.holds:
                raise Gap(f"entry {view.version} cannot be followed any more")
            self._mark = pulled.mark
            now = time.monotonic()
            for change in pulled.changes:
                if change.prev != view.version:
                    raise Gap(f"entry {change.version} follows {change.prev}, not {view.version}")
                view.apply(change, now)
                if view is self.view:
                    self.trail.add(change)
            moved = moved or bool(pulled.changes)
            if view.version >= pulled.version:
                self._looked = now
                return moved
            if not pulled.changes:
                raise Gap(f"version {pulled.version} has no log entry")

    def _listen(self, *, moved: bool, announced: bool) -> None:
        """Count the looks in a row that found changes nobody had announced."""
        if not moved or announced:
            self._unannounced = 0 if moved else self._unannounced
            return
        self._unannounced += 1
        if self._unannounced >= _UNANNOUNCED:
            self._unannounced = 0
            self.on_unannounced()

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(LOOK_EVERY):
                await self._wake.wait()
        except TimeoutError:
            return

    def _fail(self, error: StoreUnavailable) -> None:
        asked, self._asked = self._asked, []
        for future in asked:
            if not future.done():
                future.set_exception(error)

    def _overdue(self, _future: "asyncio.Future[View]") -> RegistryError:
        if self.view is None:
            return NotReady("This replica is still filling its cache; try again shortly")
        return StoreUnavailable("The store did not answer in time", reason="timeout")
