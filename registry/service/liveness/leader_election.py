"""The election of the replica that sweeps agents: acquires, renews and releases the leader lock in Redis."""

import time
from collections.abc import Callable
from typing import Literal

from registry.config.settings import Settings
from registry.errors import StoreUnavailable
from registry.store.leader_lock import LeaderLock, Leadership
from registry.telemetry.logs import get_logger

log = get_logger(__name__)


class LeaderElection:
    """This replica's part in the election of the leader, the replica that sweeps agents.

    `observed_lock` is the lock as last read. The lock saves work and does not ensure safety: two leaders at once do no
    harm, because Redis rejects the sweep of an older epoch. Durations are measured on `clock`, monotonic seconds, so
    that no step of the wall clock extends a lease. The caller serializes all calls.
    """

    def __init__(
        self, leadership: Leadership, settings: Settings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.observed_lock: LeaderLock | None = None
        self.enabled = settings.leader_election
        self._leadership = leadership
        self._lease_s = settings.lease_duration.total_seconds()
        self._renew_deadline_s = settings.renew_deadline.total_seconds()
        self._retry_period_s = settings.retry_period.total_seconds()
        self._clock = clock
        self._own_lock: LeaderLock | None = None
        self._renewed_at = 0.0
        self._lock_unchanged_since = 0.0

    @property
    def is_leader(self) -> bool:
        """Whether this replica is the leader: it holds the lock and has renewed it in time by its own clock."""
        return self.epoch is not None

    @property
    def epoch(self) -> int | None:
        """The epoch in which this replica is the leader, None while it is not the leader."""
        if self._own_lock is None or self._clock() - self._renewed_at > self._renew_deadline_s:
            return None
        return self._own_lock.epoch

    async def tick(self) -> None:
        """Try to acquire the leader lock, or renew it when the renewal is due."""
        if self._own_lock is None:
            await self._try_acquire()
        elif self._clock() - self._renewed_at >= self._retry_period_s:
            await self._renew(self._own_lock)

    async def resign(self) -> None:
        """Release the leader lock if this replica holds it, so that another replica can acquire it."""
        lock, self._own_lock = self._own_lock, None
        if lock is not None and await self._leadership.resign(lock):
            log.info("leadership_resigned", epoch=lock.epoch)

    def step_down(self, reason: Literal["renew_deadline_exceeded", "taken_by_other_replica", "stale_epoch"]) -> None:
        """Stop leading without releasing the leader lock, because this replica has lost it."""
        log.warning("leadership_lost", reason=reason)
        self._own_lock = self.observed_lock = None

    async def _try_acquire(self) -> None:
        """Acquire the leader lock if it is free, or if its holder has not renewed it for a whole lease."""
        now, expired_lock = self._clock(), ""
        if self.observed_lock is not None and now - self._lock_unchanged_since >= self._lease_s:
            expired_lock = self.observed_lock.encoded
        acquired, lock = await self._leadership.acquire(expired_lock)
        if self.observed_lock is None or lock.encoded != self.observed_lock.encoded:
            self._lock_unchanged_since = now
        self.observed_lock = lock
        if acquired:
            self._own_lock, self._renewed_at = lock, now
            log.info("leadership_acquired", epoch=lock.epoch, instance=lock.instance)

    async def _renew(self, lock: LeaderLock) -> None:
        now = self._clock()
        try:
            renewed = await self._leadership.renew(lock)
        except StoreUnavailable:
            if now - self._renewed_at > self._renew_deadline_s:
                self.step_down("renew_deadline_exceeded")
            raise
        if renewed is None:
            self.step_down("taken_by_other_replica")
        else:
            self.observed_lock = self._own_lock = renewed
            self._renewed_at = now
