"""The registry's own state: counts of agents, readiness, leader, outages, self-preservation, warnings."""

import contextlib
from collections.abc import Mapping
from typing import Any

from registry.cache.reflector import Reflector
from registry.errors import RegistryError
from registry.model.agent import STATUSES
from registry.model.encoding.agent_json import rfc3339
from registry.service.liveness.leader_election import LeaderElection
from registry.service.liveness.store_monitor import StoreMonitor, outage_cause
from registry.service.liveness.sweeper import Sweeper
from registry.store.change_notifier import ChangeNotifier
from registry.store.leader import LeaderLock
from registry.store.server_health import ProbeResult, ServerHealth
from registry.telemetry.collectors import LeaderNumbers, MeshNumbers, ProbeNumbers, SweepNumbers


class StatusService:
    """Collects the state that `/health`, `/ready` and `/metrics` show; a stopping replica sets `shutting_down`."""

    def __init__(
        self,
        reflector: Reflector,
        notifier: ChangeNotifier,
        election: LeaderElection,
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
        self._election = election
        self._sweeper = sweeper
        self._monitor = monitor
        self._server_health = server_health
        self._instance = instance
        self._settings_warnings = warnings
        self._totals: Mapping[str, int] = {}

    @property
    def ready(self) -> bool:
        """Whether this replica accepts requests: its cache follows the change log, and it is not shutting down."""
        return self._reflector.following and not self.shutting_down

    def mesh_numbers(self) -> MeshNumbers:
        """Count the agents in the cache of this replica."""
        view = self._reflector.view
        if view is None:
            return MeshNumbers({}.fromkeys(STATUSES, 0), 0, 0, 0)
        return MeshNumbers(
            agents_by_status=dict(view.count_by_status().items()),
            draining=len(view.draining),
            capabilities=view.capability_count,
            capability_types=len(view.by_capability),
        )

    def sweep_numbers(self) -> SweepNumbers:
        """Return the state of leader election, sweep, outages and self-preservation."""
        lock, probe = self._election.observed_lock, self._monitor.last_probe
        return SweepNumbers(
            sweeps_here=self._sweeper.may_sweep,
            sweeps_rejected=self._sweeper.rejected_sweeps,
            leader=None if lock is None else LeaderNumbers(lock.instance, lock.host, lock.epoch, lock.since),
            probe=None if probe is None else _probe_numbers(probe),
        )

    async def totals(self) -> Mapping[str, int]:
        """Return the mesh-wide counters and refresh the cache; the last known ones while Redis is unreachable."""
        with contextlib.suppress(RegistryError):
            self._totals = await self._server_health.totals()
            await self._reflector.wait_fresh()
        return self._totals

    async def end_self_preservation(self) -> bool:
        """End self-preservation; False if it is not active."""
        ended = await self._sweeper.end_self_preservation()
        with contextlib.suppress(RegistryError):  # it has ended; a failed probe delays only what /health shows
            await self._monitor.tick()
        return ended

    def health(self) -> dict[str, Any]:
        """Return the body of GET /health, without the fields of the process."""
        view, probe = self._reflector.view, self._monitor.last_probe
        return {
            "status": "healthy" if self._reflector.following else "degraded",
            "instance": self._instance,
            "ready": self.ready,
            "resource_version": None if view is None else str(view.version),
            "timeline": None if view is None else view.timeline,
            "staleness_seconds": round(self._reflector.staleness, 1),
            "change_notifications": self._notifier.mode,
            "leader": self._leader_json(self._election.observed_lock),
            "outage": outage_json(probe),
            "self_preservation": self_preservation_json(probe),
            "warnings": [*self._settings_warnings, *self._monitor.config_warnings],
        }

    def _leader_json(self, lock: LeaderLock | None) -> dict[str, Any]:
        return {
            "leading": self._election.is_leader,
            "election": self._election.enabled,
            "instance": lock.instance if lock else None,
            "host": lock.host if lock else None,
            "pid": lock.pid if lock else None,
            "epoch": lock.epoch if lock else None,
            "since": rfc3339(lock.since) if lock else None,
        }


def outage_json(probe: ProbeResult | None) -> dict[str, Any]:
    """Return the last outage as GET /health shows it: all null before the first."""
    since, until = (probe.outage_start, probe.outage_end) if probe is not None else (None, None)
    return {
        "cause": outage_cause(probe) if probe is not None and until is not None else None,
        "since": _optional_rfc3339(since),
        "until": _optional_rfc3339(until),
        "grace_granted": probe.grace_granted if probe is not None else 0,
        "repairing_clock_rollback": probe is not None and probe.repairing_clock_rollback,
    }


def self_preservation_json(probe: ProbeResult | None) -> dict[str, Any]:
    """Return the last self-preservation period as GET /health shows it: null and 0 before the first."""
    period = probe.self_preservation if probe is not None else None
    active = period is not None and period.ended is None
    return {
        "active": active,
        "since": _optional_rfc3339(period.since) if period else None,
        "until": _optional_rfc3339(period.ended or period.until) if period else None,
        "healthy": period.healthy if period else 0,
        "overdue_at_start": period.overdue if period else 0,
        "suspended": probe.overdue if probe is not None and active else 0,
        "activations": probe.self_preservation_activations if probe is not None else 0,
    }


def _probe_numbers(probe: ProbeResult) -> ProbeNumbers:
    period = probe.self_preservation
    return ProbeNumbers(
        overdue=probe.overdue,
        outage_end_ms=probe.outage_end,
        grace_granted=probe.grace_granted,
        self_preservation_active=period is not None and period.ended is None,
        self_preservation_since_ms=period.since if period else None,
        self_preservation_until_ms=(period.ended or period.until) if period else None,
        self_preservation_activations=probe.self_preservation_activations,
    )


def _optional_rfc3339(time_ms: int | None) -> str | None:
    return None if time_ms is None else rfc3339(time_ms)
