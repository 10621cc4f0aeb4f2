"""The registry's own state: counts of agents, readiness, leader, outages, self-preservation, warnings."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
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
from registry.store.redis_health import MESH, ProbeResult, ServerHealth
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
        longest_loop_lag: Callable[[], float] = lambda: 0.0,
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
        self._longest_loop_lag = longest_loop_lag
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
        lag = "Longest delay of the event loop of this replica within the last minute"
        yield gauge("loop_lag_seconds", lag, self._longest_loop_lag())
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

    async def end_self_preservation(self, namespace: str | None = None) -> int:
        """End self-preservation of a namespace (`*`: of the mesh), by default all; return the number of periods."""
        ended = await self._sweeper.end_self_preservation(namespace)
        with contextlib.suppress(
            RegistryError
        ):  # self-preservation has ended; a failed probe only delays the update of /health
            await self._monitor.tick()
        return ended

    @property
    def is_mesh_protected(self) -> bool:
        """Whether the last probe found the whole mesh in self-preservation."""
        return self._monitor.last_probe is not None and self._monitor.last_probe.is_mesh_protected

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
    """Return self-preservation as GET /health shows it: null and 0 before the first period.

    The times and numbers are those of all active periods together, or of the latest that has ended.
    """
    if probe is None:
        probe = ProbeResult(now=0)
    active = probe.active_periods
    periods = active or probe.self_preservation[-1:]
    of_namespaces = [period for period in periods if period.namespace != MESH]
    return {
        "active": bool(active),
        "mesh_wide": probe.is_mesh_protected,
        "since": min((rfc3339(period.since) for period in periods), default=None),
        "until": max((rfc3339(period.ended or period.until) for period in periods), default=None),
        "healthy": sum(period.healthy for period in of_namespaces),
        "overdue_at_start": sum(period.overdue for period in of_namespaces),
        "suspended": probe.suspended,
        "activations": probe.self_preservation_activations,
        "protected_namespaces": probe.protected_namespaces,
        "namespaces": [
            {
                "namespace": period.namespace,
                "since": rfc3339(period.since),
                "until": rfc3339(period.until),
                "healthy": period.healthy,
                "overdue_at_start": period.overdue,
                "suspended": period.suspended,
            }
            for period in active
            if period.namespace != MESH
        ],
    }


def _probe_metrics(probe: ProbeResult, outage: Outage | None) -> MetricsIterator:
    periods = probe.active_periods or probe.self_preservation[-1:]
    since = min((period.since for period in periods), default=None)
    until = max((period.ended or period.until for period in periods), default=None)
    active = bool(probe.active_periods)
    yield mesh_gauge("overdue_agents", "Agents past their deadline", probe.overdue)
    yield mesh_timestamp("outage_end", "End of the last outage", outage.end if outage else None)
    granted = "Times an agent's deadline was extended because of an outage"
    yield mesh_counter("outage_grace_granted", granted, probe.grace_granted)
    yield mesh_gauge("self_preservation_active", "1 while self-preservation suspends expiry", int(active))
    suspended = "Overdue agents whose expiry is suspended"
    yield mesh_gauge("self_preservation_suspended_agents", suspended, probe.suspended)
    namespaces = "Namespaces in self-preservation"
    yield mesh_gauge("self_preservation_namespaces", namespaces, probe.protected_namespaces)
    mesh_wide = "1 while self-preservation suspends expiry in the whole mesh"
    yield mesh_gauge("self_preservation_mesh_wide", mesh_wide, int(probe.is_mesh_protected))
    by_namespace = {
        (period.namespace,): period.suspended for period in probe.active_periods if period.namespace != MESH
    }
    shown = "The same, of the 20 namespaces whose self-preservation is the latest"
    yield labelled_gauge("self_preservation_suspended_by_namespace", shown, ("agent_namespace",), by_namespace)
    yield mesh_timestamp("self_preservation_since", "Start of the last self-preservation period", since)
    yield mesh_timestamp("self_preservation_until", "End of the last self-preservation period", until)
    activations = probe.self_preservation_activations
    yield mesh_counter("self_preservation_activations", "Self-preservation periods so far", activations)
