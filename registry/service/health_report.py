"""The registry's own state: counts of agents, readiness, leader, outages, self-preservation, warnings."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from registry.cache.reflector import Reflector
from registry.errors import RegistryError
from registry.model.agent import STATUSES
from registry.model.encoding.agent_json import rfc3339
from registry.service.liveness.leader_election import LeaderElection
from registry.service.liveness.store_monitor import Outage, StoreMonitor
from registry.service.liveness.sweeper import Sweeper
from registry.store.change_notifier import ChangeNotifier
from registry.store.leader_lock import LeaderLock
from registry.store.redis.errors import REFUSAL_ADVICE
from registry.store.redis_health import ProbeResult, ServerHealth
from registry.telemetry.collectors import (
    MetricsIterator,
    counter,
    gauge,
    labelled_gauge,
    mesh_counter,
    mesh_gauge,
    mesh_timestamp,
)


class MeshNumbers(NamedTuple):
    """The number of agents by status, of draining agents, and of capabilities in the mesh."""

    agents_by_status: Mapping[str, int]
    draining: int
    capabilities: int
    capability_types: int


class StatusService:
    """Collects the data that `/health`, `/ready` and `/metrics` show; a stopping replica sets `shutting_down`."""

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
        """Whether this replica accepts requests: its store works, and it is not shutting down."""
        return self._store_works and not self.shutting_down

    @property
    def refused_commands(self) -> tuple[str, ...]:
        """The commands that Redis refuses and that the registry requires."""
        return self._server_health.refused_commands

    @property
    def _store_works(self) -> bool:
        """Whether the cache follows the change log and Redis permits all commands."""
        return self._reflector.following and not self.refused_commands

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

    def metrics(self) -> MetricsIterator:
        """Yield the metrics of the mesh and of this replica, gauges and counters."""
        mesh = self.mesh_numbers()
        by_status = {(status,): count for status, count in mesh.agents_by_status.items()}
        yield mesh_gauge("agents_total", "Registered agents", sum(by_status.values()))
        yield labelled_gauge("agents_by_status", "Registered agents by status", ("status",), by_status)
        yield mesh_gauge("agents_draining", "Draining agents, of any status", mesh.draining)
        yield mesh_gauge("capabilities_total", "Capabilities of all agents", mesh.capabilities)
        yield mesh_gauge("capability_types_total", "Distinct capability names", mesh.capability_types)
        yield gauge("ready", "1 while this replica accepts requests", int(self.ready))
        yield gauge("cache_staleness_seconds", "Maximum age of this replica's cache", self._reflector.staleness)
        yield gauge("cache_fills", "Full reads of all agents into the cache of this replica", self._reflector.fills)
        yield gauge("warnings", "Warnings of this replica in GET /health", len(self._warnings))
        yield gauge("is_leader", "1 on the replica that sweeps", int(self._sweeper.may_sweep))
        rejected = "Sweeps of this replica that Redis rejected because of a newer leader"
        yield counter("sweeps_rejected", rejected, self._sweeper.rejected_sweeps)
        lock = self._election.observed_lock
        leader = {(lock.instance, lock.host): 1} if lock else {}
        yield labelled_gauge("leader_info", "1, labelled with the name of the leader", ("instance", "host"), leader)
        yield mesh_gauge("leader_epoch", "Epoch of the leader", lock.epoch if lock else 0)
        yield mesh_timestamp("leader_since", "Election of the leader", lock.since if lock else None)
        if self._monitor.last_probe is not None:
            yield from _probe_metrics(self._monitor.last_probe, self._monitor.last_outage)

    async def totals(self) -> Mapping[str, int]:
        """Return the mesh-wide counters, the last known ones while Redis is unreachable; also refresh the cache."""
        with contextlib.suppress(RegistryError):
            self._totals = await self._server_health.totals()
            await self._reflector.wait_fresh()
        return self._totals

    async def end_self_preservation(self) -> bool:
        """End self-preservation of the mesh; return False if it is not active."""
        ended = await self._sweeper.end_self_preservation()
        with contextlib.suppress(
            RegistryError
        ):  # self-preservation has ended; a failed probe only delays the update of /health
            await self._monitor.tick()
        return ended

    def health(self) -> dict[str, Any]:
        """Return the body of GET /health, without the fields about the process."""
        view, probe = self._reflector.view, self._monitor.last_probe
        return {
            "status": "healthy" if self._store_works else "degraded",
            "instance": self._instance,
            "ready": self.ready,
            "resource_version": None if view is None else str(view.version),
            "timeline": None if view is None else view.timeline,
            "staleness_seconds": round(self._reflector.staleness, 1),
            "change_notifications": self._notifier.mode,
            "leader": _leader_json(
                self._election.observed_lock, leading=self._election.is_leader, election=self._election.enabled
            ),
            "outage": outage_json(self._monitor.last_outage, probe),
            "self_preservation": self_preservation_json(probe),
            "warnings": self._warnings,
        }

    @property
    def _warnings(self) -> list[str]:
        return [
            *self._settings_warnings,
            *(f"Redis refuses {command}; {REFUSAL_ADVICE}" for command in self.refused_commands),
            *self._monitor.config_warnings,
        ]


def starting_health(instance: str, warnings: Sequence[str], *, leader_election: bool) -> dict[str, Any]:
    """Return the body of GET /health before the store is open, without the fields about the process."""
    return {
        "status": "starting",
        "instance": instance,
        "ready": False,
        "resource_version": None,
        "timeline": None,
        "staleness_seconds": 0.0,
        "change_notifications": "disconnected",
        "leader": _leader_json(None, leading=False, election=leader_election),
        "outage": outage_json(None, None),
        "self_preservation": self_preservation_json(None),
        "warnings": list(warnings),
    }


def public_health(health: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a body of GET /health that callers without a credential get."""
    return {"status": health["status"], "ready": health["ready"]}


def _leader_json(lock: LeaderLock | None, *, leading: bool, election: bool) -> dict[str, Any]:
    return {
        "leading": leading,
        "election": election,
        "instance": lock.instance if lock else None,
        "host": lock.host if lock else None,
        "pid": lock.pid if lock else None,
        "epoch": lock.epoch if lock else None,
        "since": rfc3339(lock.since) if lock else None,
    }


def outage_json(outage: Outage | None, probe: ProbeResult | None) -> dict[str, Any]:
    """Return the last outage of Redis as GET /health shows it: all fields null before the first outage."""
    return {
        "cause": outage.cause if outage else None,
        "since": rfc3339(outage.start) if outage else None,
        "until": rfc3339(outage.end) if outage else None,
        "grace_granted": probe.grace_granted if probe is not None else 0,
        "repairing_clock_rollback": probe is not None and probe.repairing_clock_rollback,
    }


def self_preservation_json(probe: ProbeResult | None) -> dict[str, Any]:
    """Return the last self-preservation period as GET /health shows it: null and 0 before the first period."""
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


def _probe_metrics(probe: ProbeResult, outage: Outage | None) -> MetricsIterator:
    period = probe.self_preservation
    since, until = (period.since, period.ended or period.until) if period else (None, None)
    active = period is not None and period.ended is None
    yield mesh_gauge("overdue_agents", "Agents past their deadline", probe.overdue)
    yield mesh_timestamp("outage_end", "End of the last outage", outage.end if outage else None)
    granted = "Times an agent's deadline was extended because of an outage"
    yield mesh_counter("outage_grace_granted", granted, probe.grace_granted)
    yield mesh_gauge("self_preservation_active", "1 while self-preservation suspends expiry", int(active))
    suspended = "Overdue agents whose expiry is suspended"
    yield mesh_gauge("self_preservation_suspended_agents", suspended, probe.overdue if active else 0)
    yield mesh_timestamp("self_preservation_since", "Start of the last self-preservation period", since)
    yield mesh_timestamp("self_preservation_until", "End of the last self-preservation period", until)
    activations = probe.self_preservation_activations
    yield mesh_counter("self_preservation_activations", "Self-preservation periods so far", activations)


def _optional_rfc3339(time_ms: int | None) -> str | None:
    return None if time_ms is None else rfc3339(time_ms)
