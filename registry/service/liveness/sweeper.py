"""The sweep: degrades, expires and removes overdue agents, and repairs their times after a Redis clock rollback."""

import asyncio
from collections.abc import Callable
from typing import Final

from registry.service.liveness.leader_election import LeaderElection
from registry.store.sweeps import Release, ScanCursor, StaleEpochError, SweepResult, Sweeps, SweepWork
from registry.telemetry.logs import get_logger

log = get_logger(__name__)

# With 200 agents a call this allows 10,000 agents a second.
_MAX_SWEEPS_PER_TICK: Final = 50
# No repair is in progress: no clock rollback, no scan cursor.
_NO_REPAIR: Final[tuple[str, ScanCursor | None]] = ("", None)


class Sweeper:
    """Sweeps overdue agents while this replica is the leader, or always without an election.

    Call `tick` once a second. The Lua script checks each deadline again, so an agent that sent a heartbeat in the
    meantime is not transitioned. `rejected_sweeps` counts those that Redis rejected for another replica's newer epoch.
    """

    def __init__(
        self, election: LeaderElection, sweeps: Sweeps, *, on_swept: Callable[[SweepResult], None] = lambda _swept: None
    ) -> None:
        self.rejected_sweeps = 0
        self._election = election
        self._sweeps = sweeps
        self._on_swept = on_swept
        self._tick_lock = asyncio.Lock()
        self._resigned = False
        self._repair_progress = _NO_REPAIR

    @property
    def may_sweep(self) -> bool:
        """Whether this replica may sweep: it is the leader or there is no election, and it has not resigned."""
        return not self._resigned and (self._election.is_leader or not self._election.enabled)

    async def tick(self) -> None:
        """Take part in the leader election, and sweep overdue agents if this replica is the leader."""
        async with self._tick_lock:
            if self._resigned:
                return
            if not self._election.enabled:
                await self._sweep_due(await self._sweeps.epoch())
                return
            await self._election.tick()
            epoch = self._election.epoch
            if epoch is not None:
                await self._sweep_due(epoch)

    async def resign(self) -> None:
        """Stop sweeping, and release the leader lock after a tick in progress, which may change the lock."""
        self._resigned = True
        async with self._tick_lock:
            await self._election.resign()

    async def end_self_preservation(self, namespace: str | None = None) -> int:
        """End self-preservation of a namespace (`*` is the whole mesh), by default all.

        The next sweep then expires overdue agents. Returns the number of periods that were active.
        """
        ended = await self._sweeps.end_self_preservation(namespace)
        if ended:
            log.warning("self_preservation_end_requested", namespace=namespace or "all", periods=ended)
        return ended

    async def _sweep_due(self, epoch: int) -> None:
        """Sweep the overdue agents, up to the limit of one tick, as long as this replica is the leader."""
        grace_granted = 0
        release = Release(0, None)
        try:
            for index in range(_MAX_SWEEPS_PER_TICK):
                work = await self._sweeps.find_work()
                if not self.may_sweep:
                    break
                if work.clock_rollback:
                    await self._repair_clock_rollback(work.clock_rollback, epoch)
                    continue
                # Without overdue agents, too: periods end, and then agents are overdue again.
                if index == 0 or release.after is not None:
                    release = await self._release_suspended(work, release, epoch)
                elif not work.ids:
                    break
                if work.ids:
                    swept = await self._sweeps.sweep(work.ids, epoch)
                    if not any(swept):
                        break  # the next store probe comes first
                    self._on_swept(swept)
                    grace_granted += swept.grace_granted
        except StaleEpochError:
            self.rejected_sweeps += 1
            if self._election.enabled:
                self._election.step_down("stale_epoch")
        _log_grace_granted(grace_granted)

    async def _release_suspended(self, work: SweepWork, previous: Release, epoch: int) -> Release:
        """Update self-preservation at the first call of a tick, and release agents that it no longer suspends."""
        if previous.after is not None:
            return await self._sweeps.release(epoch, previous.after)
        return await self._sweeps.update_self_preservation(epoch) if work.self_preservation else previous

    async def _repair_clock_rollback(self, rollback: str, epoch: int) -> None:
        """Repair the times of the next batch of agents after a clock rollback; sweeping waits for the last batch.

        Suspended agents get their deadline back before, because the scan reads only agents with one.
        """
        repaired_rollback, cursor = self._repair_progress
        self._repair_progress = _NO_REPAIR
        is_new = repaired_rollback != rollback
        if is_new:
            cursor = None
        if cursor is None and (await self._sweeps.release(epoch, "", everything=True)).after is not None:
            return
        if is_new:
            log.warning("clock_rollback_repair_started")
        cursor, ids = await self._sweeps.scan_agents(cursor)
        if not await self._sweeps.repair_clock_rollback(ids, rollback, epoch, is_last=cursor is None):
            return
        if cursor is None:
            log.info("clock_rollback_repair_finished")
        else:
            self._repair_progress = (rollback, cursor)


def _log_grace_granted(agents: int) -> None:
    if agents:
        log.info("outage_grace_granted", agents=agents)
