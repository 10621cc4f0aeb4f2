"""The registry's own state: counts, totals, who leads, what to worry about."""

import contextlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from registry.cache.reflector import Reflector
from registry.errors import RegistryError, StartupError, StoreUnavailable
from registry.model.agent import STATUSES, Status
from registry.model.encoding.agent_json import rfc3339
from registry.service.liveness.store_monitor import (
    StoreMonitor,
    in_self_preservation,
    outage_document,
    self_preservation_document,
)
from registry.service.liveness.sweeper import Sweeper
from registry.store.change_notifier import ChangeNotifier
from registry.store.leader import LeaderLock
from registry.store.server_health import ProbeResult, ServerHealth
from registry.telemetry.logs import get_logger

log = get_logger(__name__)

_STORE_CHECK_INTERVAL_S = 60.0


@dataclass(frozen=True, slots=True)
class AgentCounts:
    """How many agents there are of each status, how many drain, how many capabilities, how many names of these."""

    by_status: Mapping[Status, int]
    draining: int
    capabilities: int
    capability_types: int


@dataclass(frozen=True, slots=True)
class SweepStatus:
    """How the sweep fares: whether this replica does it, its refused tries, who leads, and what the last pulse saw."""

    sweeps_here: bool
    refused_sweeps: int
    leader: LeaderLock | None
    probe: ProbeResult | None

    @property
    def self_preservation(self) -> bool:
        """Whether a hold is on."""
        return self.probe is not None and in_self_preservation(self.probe)


class StatusService:
    """Gathers what `/health`, `/ready` and `/metrics` show. Set `shutting_down` when the replica is going down."""

    def __init__(
        self,
        reflector: Reflector,
        notifier: ChangeNotifier,
        sweeper: Sweeper,
        monitor: StoreMonitor,
        server_health: ServerHealth,
        *,
        instance: str,
        warnings: tuple[str, ...] = (),
    ) -> None:
        self.shutting_down = False
        self._reflector = reflector
        self._notifier = notifier
        self._sweeper = sweeper
        self._monitor = monitor
        self._server_health = server_health
        self._instance = instance
        self._settings_warnings = warnings
        self._store_warnings: tuple[str, ...] = ()
        self._checked_at = -math.inf
        self._totals: Mapping[str, int] = {}

    def agent_counts(self) -> AgentCounts:
        """Count the mesh as this replica holds it: the same on each replica but for the moment."""
        view = self._reflector.view
        if view is None:
            return AgentCounts(dict.fromkeys(STATUSES, 0), 0, 0, 0)
        return AgentCounts(view.count_by_status(), len(view.draining), view.capability_count, len(view.by_capability))

    async def totals(self) -> Mapping[str, int]:
        """Return the mesh-wide counters, and let a census after it be fresh; the last known when the store is away."""
        with contextlib.suppress(RegistryError):
            self._totals = await self._server_health.totals()
            await self._reflector.wait_fresh()
        return self._totals

    async def check_store(self) -> None:
        """Check how the store is set up, once a minute and behind each new connection; a new warning is logged."""
        due = time.monotonic() - self._checked_at >= _STORE_CHECK_INTERVAL_S
        if not due and not self._server_health.reconnected:
            return
        found = (await self._server_health.check_config()).messages
        self._checked_at = time.monotonic()
        for warning in found:
            if warning not in self._store_warnings:
                log.warning("the store is not set up to keep what it acknowledges", warning=warning)
        self._store_warnings = found

    async def require_supported_store(self) -> None:
        """Raise StartupError when the store is too old for the scripts; one that is away is looked at later."""
        with contextlib.suppress(StoreUnavailable):
            findings = await self._server_health.check_config()
            if findings.unsupported_version:
                raise StartupError(findings.unsupported_version)

    @property
    def ready(self) -> bool:
        """Whether this replica should get requests: its cache is filled and followed, and it is not going down."""
        return self._reflector.following and not self.shutting_down

    async def end_self_preservation(self) -> bool:
        """End the hold of a mass silence; False when there is none."""
        released = await self._sweeper.end_self_preservation()
        with contextlib.suppress(RegistryError):  # it is done; only what is shown of it would come a second later
            await self._monitor.tick()
        return released

    def sweep_status(self) -> SweepStatus:
        """Return how the sweep fares, in numbers."""
        return SweepStatus(
            self._sweeper.may_sweep, self._sweeper.refused_sweeps, self._sweeper.observed_lock, self._monitor.last_probe
        )

    def health(self) -> dict[str, Any]:
        """Return what /health shows."""
        view, lock = self._reflector.view, self._sweeper.observed_lock
        return {
            "status": "healthy" if self._reflector.following else "degraded",
            "instance": self._instance,
            "ready": self.ready,
            "resource_version": None if view is None else str(view.version),
            "history": None if view is None else view.timeline,
            "behind_seconds": round(self._reflector.staleness, 1),
            "bell": self._notifier.mode,
            "leader": {
                "leading": self._sweeper.is_leader,
                "election": self._sweeper.election_enabled,
                "instance": lock.instance if lock else None,
                "host": lock.host if lock else None,
                "pid": lock.pid if lock else None,
                "epoch": lock.epoch if lock else None,
                "since": rfc3339(lock.since) if lock else None,
            },
            "outage": outage_document(self._monitor.last_probe),
            "hold": self_preservation_document(self._monitor.last_probe),
            "warnings": [*self._settings_warnings, *self._store_warnings],
        }
