"""Lead, and move on those who fell silent. The lock only saves work: the epoch in every sweep keeps it safe."""

import asyncio
import time
from collections.abc import Callable

from registry.config.settings import Settings
from registry.errors import StoreUnavailable
from registry.store.leader import LeaderLock, Leadership
from registry.store.sweeps import ScanCursor, StaleEpochError, SweepResult, Sweeps
from registry.telemetry.logs import get_logger

log = get_logger(__name__)

# Calls of one look; with 200 agents a call that is 10,000 agents a second.
_MAX_SWEEPS_PER_TICK = 50
# A walk over all agents that has not begun.
_NO_REPAIR: tuple[str, ScanCursor | None] = ("", None)


class Sweeper:
    """Looks after the lock and, while this replica leads, after the overdue agents; `tick` is called each second.

    Two leaders at once would do no harm: Redis refuses the sweep of an older epoch, and checks each deadline again
    inside the script, so a heartbeat that came first wins. Durations are measured on `clock`, monotonic seconds: no
    step of a wall clock can lengthen a lease.
    """

    def __init__(
        self,
        leadership: Leadership,
        sweeps: Sweeps,
        settings: Settings,
        *,
        on_swept: Callable[[SweepResult], None] = lambda _swept: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.observed_lock: LeaderLock | None = None
        self.refused_sweeps = 0
        self._leadership = leadership
        self._sweeps = sweeps
        self.election_enabled = settings.leader_election
        self._lease_s = settings.lease_duration.total_seconds()
        self._renew_deadline_s = settings.renew_deadline.total_seconds()
        self._retry_period_s = settings.retry_period.total_seconds()
        self._on_swept = on_swept
        self._clock = clock
        self._own_lock: LeaderLock | None = None
        self._renewed_at = 0.0
        self._lock_unchanged_since = 0.0
        self._tick_lock = asyncio.Lock()
        self._resigned = False
        self._repair_progress = _NO_REPAIR

    @property
    def is_leader(self) -> bool:
        """Whether this replica has the lead: it holds the lock and renewed it in time by its own clock."""
        return self._own_lock is not None and self._clock() - self._renewed_at <= self._renew_deadline_s

    @property
    def may_sweep(self) -> bool:
        """Whether this replica sweeps now: it leads, or needs no lead, and has not resigned."""
        return not self._resigned and (self.is_leader or not self.election_enabled)

    async def tick(self) -> None:
        """Take or renew the lock where that is due, and sweep where this replica may."""
        async with self._tick_lock:
            if self._resigned:
                return
            if not self.election_enabled:
                await self._sweep_due(await self._sweeps.epoch())
                return
            if self._own_lock is None:
                await self._try_acquire()
            elif self._clock() - self._renewed_at >= self._retry_period_s:
                await self._renew(self._own_lock)
            if self._own_lock is not None and self.is_leader:
                await self._sweep_due(self._own_lock.epoch)

    async def resign(self) -> None:
        """Sweep no more, and give the lead up, if this replica has it, so that another takes it at its next look.

        A look under way ends first: its renewal would change the lock that is to be given up.
        """
        self._resigned = True
        async with self._tick_lock:
            mine, self._own_lock = self._own_lock, None
            if mine is not None and await self._leadership.resign(mine):
                log.info("gave up the lead", epoch=mine.epoch)

    async def end_self_preservation(self) -> bool:
        """End the hold of a mass silence, so that the next look moves on whoever is overdue; False when none is on."""
        released = await self._sweeps.end_self_preservation()
        if released:
            log.warning("the hold was released")
        return released

    async def _try_acquire(self) -> None:
        """Take a free lock, or one whose counter has stood still for a whole lease on our own clock."""
        now, seen = self._clock(), ""
        if self.observed_lock is not None and now - self._lock_unchanged_since >= self._lease_s:
            seen = self.observed_lock.encoded
        taken, lock = await self._leadership.acquire(seen)
        if self.observed_lock is None or lock.encoded != self.observed_lock.encoded:
            self._lock_unchanged_since = now
        self.observed_lock = lock
        if taken:
            self._own_lock, self._renewed_at = lock, now
            log.info("leads", epoch=lock.epoch, instance=lock.instance)

    async def _renew(self, lock: LeaderLock) -> None:
        now = self._clock()
        try:
            renewed = await self._leadership.renew(lock)
        except StoreUnavailable:
            if now - self._renewed_at > self._renew_deadline_s:
                self._step_down("the lock could not be renewed in time")
            raise
        if renewed is None:
            self._step_down("another replica has the lock")
        else:
            self.observed_lock = self._own_lock = renewed
            self._renewed_at = now

    def _step_down(self, reason: str) -> None:
        log.warning("stepped down; it follows from now on", reason=reason)
        self._own_lock = self.observed_lock = None

    async def _sweep_due(self, epoch: int) -> None:
        """Do what is due, as much as one look may, and only for as long as this replica sweeps by its own clock."""
        graced = 0
        try:
            for turn in range(_MAX_SWEEPS_PER_TICK):
                due = await self._sweeps.find_work()
                # Where a hold is or was, its end and what follows are decided once a look, overdue agents or not.
                if not self.may_sweep or not (due.ids or due.clock_rollback or (due.self_preservation and turn == 0)):
                    break
                if due.clock_rollback:
                    await self._repair_clock_rollback(due.clock_rollback, epoch)
                    continue
                swept = await self._sweeps.sweep(due.ids, epoch)
                if swept is None:
                    break
                self._on_swept(swept)
                graced += swept.grace_granted
        except StaleEpochError as error:
            self.refused_sweeps += 1
            if self.election_enabled:
                self._step_down(str(error))
        if graced:
            log.info("grace: agents keep their status, an outage kept them from being heard", agents=graced)

    async def _repair_clock_rollback(self, rollback: str, epoch: int) -> None:
        """Set the times of some more agents right; until all are, nobody is swept by times that are wrong."""
        asked, cursor = self._repair_progress
        self._repair_progress = _NO_REPAIR
        if asked != rollback:
            log.warning("the clock of Redis went back; the times of all agents are set right")
            cursor = None
        cursor, ids = await self._sweeps.scan_agents(cursor)
        if not await self._sweeps.repair_clock_rollback(ids, rollback, epoch, is_last=cursor is None):
            return
        if cursor is None:
            log.info("the times of all agents are right again")
        else:
            self._repair_progress = (rollback, cursor)
