"""Lead, and move on those who fell silent. The lock only saves work: the epoch in every sweep keeps it safe."""

import asyncio
import time
from collections.abc import Callable

from registry.config.settings import Settings
from registry.errors import StoreUnavailable
from registry.store.leader import Leadership, Lock
from registry.store.sweeps import Cursor, StaleEpochError, Sweeps, Swept
from registry.telemetry.logs import get_logger

log = get_logger(__name__)

# Calls of one look; with 200 agents a call that is 10,000 agents a second.
_CALLS = 50
# A walk over all agents that has not begun.
_NO_WALK: tuple[str, Cursor | None] = ("", None)


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
        self.elects = settings.leader_election
        self._lease = settings.lease_duration.total_seconds()
        self._deadline = settings.renew_deadline.total_seconds()
        self._retry = settings.retry_period.total_seconds()
        self._on_swept = on_swept
        self._clock = clock
        self._mine: Lock | None = None
        self._renewed = 0.0
        self._still_since = 0.0
        self._turn = asyncio.Lock()
        self._resigned = False
        self._walk = _NO_WALK

    @property
    def leads(self) -> bool:
        """Whether this replica has the lead: it holds the lock and renewed it in time by its own clock."""
        return self._mine is not None and self._clock() - self._renewed <= self._deadline

    @property
    def sweeps(self) -> bool:
        """Whether this replica sweeps now: it leads, or needs no lead, and has not resigned."""
        return not self._resigned and (self.leads or not self.elects)

    async def look(self) -> None:
        """Take or renew the lock where that is due, and sweep where this replica may."""
        async with self._turn:
            if self._resigned:
                return
            if not self.elects:
                await self._work(await self._sweeps.epoch())
                return
            if self._mine is None:
                await self._try_to_take()
            elif self._clock() - self._renewed >= self._retry:
                await self._renew(self._mine)
            if self._mine is not None and self.leads:
                await self._work(self._mine.epoch)

    async def resign(self) -> None:
        """Sweep no more, and give the lead up, if this replica has it, so that another takes it at its next look.

        A look under way ends first: its renewal would change the lock that is to be given up.
        """
        self._resigned = True
        async with self._turn:
            mine, self._mine = self._mine, None
            if mine is not None and await self._leadership.resign(mine):
                log.info("gave up the lead", epoch=mine.epoch)

    async def release(self) -> bool:
        """End the hold of a mass silence, so that the next look moves on whoever is overdue; False when none is on."""
        released = await self._sweeps.release()
        if released:
            log.warning("the hold was released")
        return released

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

    async def _work(self, epoch: int) -> None:
        """Do what is due, as much as one look may, and only for as long as this replica sweeps by its own clock."""
        graced = 0
        try:
            for turn in range(_CALLS):
                due = await self._sweeps.due()
                # Where a hold is or was, its end and what follows are decided once a look, overdue agents or not.
                if not self.sweeps or not (due.ids or due.rewind or (due.hold and turn == 0)):
                    break
                if due.rewind:
                    await self._walk_on(due.rewind, epoch)
                    continue
                swept = await self._sweeps.sweep(due.ids, epoch)
                if swept is None:
                    break
                self._on_swept(swept)
                graced += swept.graced
        except StaleEpochError as error:
            self.refused += 1
            if self.elects:
                self._step_down(str(error))
        if graced:
            log.info("grace: agents keep their status, an outage kept them from being heard", agents=graced)

    async def _walk_on(self, rewind: str, epoch: int) -> None:
        """Set the times of some more agents right; until all are, nobody is swept by times that are wrong."""
        asked, cursor = self._walk
        self._walk = _NO_WALK
        if asked != rewind:
            log.warning("the clock of Redis went back; the times of all agents are set right")
            cursor = None
        cursor, ids = await self._sweeps.agents_from(cursor)
        if not await self._sweeps.rewind(ids, rewind, epoch, final=cursor is None):
            return
        if cursor is None:
            log.info("the times of all agents are right again")
        else:
            self._walk = (rewind, cursor)
