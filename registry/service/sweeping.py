"""Lead, and move on those who fell silent. The lock only saves work: the epoch in every sweep keeps it safe."""

import time
from collections.abc import Callable

from registry.errors import StoreUnavailable
from registry.settings import Settings
from registry.store.leader import Leadership, Lock
from registry.store.sweeps import StaleEpochError, Sweeps, Swept
from registry.telemetry.logs import get_logger

log = get_logger(__name__)

# Calls of one look; with 200 agents a call that is 10,000 agents a second.
_CALLS = 50


class Sweeping:
    """Looks after the lock and, while this replica leads, after the overdue agents; `look` is called each second.

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
        on_swept: Callable[[Swept], None] = lambda _swept: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lock: Lock | None = None
        self.refused = 0
        self._leadership = leadership
        self._sweeps = sweeps
        self._elects = settings.leader_election
        self._lease = settings.lease_duration.total_seconds()
        self._deadline = settings.renew_deadline.total_seconds()
        self._retry = settings.retry_period.total_seconds()
        self._on_swept = on_swept
        self._clock = clock
        self._mine: Lock | None = None
        self._renewed = 0.0
        self._still_since = 0.0

    @property
    def leads(self) -> bool:
        """Whether this replica sweeps now: it holds the lock and renewed it in time by its own clock."""
        return self._mine is not None and self._clock() - self._renewed <= self._deadline

    async def look(self) -> None:
        """Take or renew the lock where that is due, and sweep where this replica may."""
        if not self._elects:
            await self._sweep(await self._sweeps.epoch())
            return
        if self._mine is None:
            await self._try_to_take()
        elif self._clock() - self._renewed >= self._retry:
            await self._renew(self._mine)
        if self._mine is not None and self.leads:
            await self._sweep(self._mine.epoch)

    async def resign(self) -> None:
        """Give the lead up, if this replica has it, so that another takes it at its next look."""
        mine, self._mine = self._mine, None
        if mine is not None and await self._leadership.resign(mine):
            log.info("gave up the lead", epoch=mine.epoch)

    async def _try_to_take(self) -> None:
        """Take a free lock, or one whose counter has stood still for a whole lease on our own clock."""
        now, seen = self._clock(), ""
        if self.lock is not None and now - self._still_since >= self._lease:
            seen = self.lock.text
        taken, lock = await self._leadership.take(seen)
        if self.lock is None or lock.text != self.lock.text:
            self._still_since = now
        self.lock = lock
        if taken:
            self._mine, self._renewed = lock, now
            log.info("leads", epoch=lock.epoch, instance=lock.instance)

    async def _renew(self, mine: Lock) -> None:
        now = self._clock()
        try:
            renewed = await self._leadership.renew(mine)
        except StoreUnavailable:
            if now - self._renewed > self._deadline:
                self._step_down("the lock could not be renewed in time")
            raise
        if renewed is None:
            self._step_down("another replica has the lock")
        else:
            self.lock = self._mine = renewed
            self._renewed = now

    def _step_down(self, reason: str) -> None:
        log.warning("stepped down; it follows from now on", reason=reason)
        self._mine = self.lock = None

    async def _sweep(self, epoch: int) -> None:
        for _ in range(_CALLS):
            ids = await self._sweeps.overdue()
            if not ids:
                return
            try:
                self._on_swept(await self._sweeps.sweep(ids, epoch))
            except StaleEpochError as error:
                self.refused += 1
                self._step_down(str(error))
                return
