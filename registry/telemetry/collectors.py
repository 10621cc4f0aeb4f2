"""Prometheus collectors: gauges of the mesh, of the sweep and of this replica, read at each scrape."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_MESH_WIDE = "; mesh-wide, equal on every replica: use max(), not sum()"


@dataclass(frozen=True, slots=True)
class MeshNumbers:
    """Numbers of all agents of the mesh."""

    agents_by_status: Mapping[str, int]
    draining: int
    capabilities: int
    capability_types: int


@dataclass(frozen=True, slots=True)
class ReplicaNumbers:
    """Numbers of this replica."""

    ready: bool
    staleness_s: float
    watchers: int
    cache_fills: int


@dataclass(frozen=True, slots=True)
class LeaderNumbers:
    """The elected leader; `since_ms` is the time of the election by the clock of Redis."""

    instance: str
    host: str
    epoch: int
    since_ms: int


@dataclass(frozen=True, slots=True)
class ProbeNumbers:
    """Results of the last store probe; times are milliseconds by the clock of Redis, None if there was no event."""

    overdue: int
    outage_end_ms: int | None
    grace_granted: int
    self_preservation_active: bool
    self_preservation_since_ms: int | None
    self_preservation_until_ms: int | None
    self_preservation_activations: int


@dataclass(frozen=True, slots=True)
class SweepNumbers:
    """Numbers of leader election and sweep; `leader` and `probe` are None if unknown."""

    sweeps_here: bool
    sweeps_rejected: int
    leader: LeaderNumbers | None
    probe: ProbeNumbers | None


class MeshCollector(Collector):
    """Yields the numbers of the mesh."""

    def __init__(self, read: Callable[[], MeshNumbers]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """Yield one gauge for each number."""
        numbers = self._read()
        yield _gauge("agents_total", f"Registered agents{_MESH_WIDE}", sum(numbers.agents_by_status.values()))
        by_status = GaugeMetricFamily(
            "mcp_registry_agents_by_status", f"Registered agents by status{_MESH_WIDE}", labels=("status",)
        )
        for status, count in numbers.agents_by_status.items():
            by_status.add_metric((status,), count)
        yield by_status
        yield _gauge("agents_draining", f"Draining agents, of any status{_MESH_WIDE}", numbers.draining)
        yield _gauge("capabilities_total", f"Capabilities of all agents{_MESH_WIDE}", numbers.capabilities)
        yield _gauge("capability_types_total", f"Distinct capability names{_MESH_WIDE}", numbers.capability_types)


class ReplicaCollector(Collector):
    """Yields the numbers of this replica."""

    def __init__(self, read: Callable[[], ReplicaNumbers]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """Yield one gauge for each number."""
        numbers = self._read()
        yield _gauge("ready", "1 while this replica accepts requests", int(numbers.ready))
        yield _gauge("cache_staleness_seconds", "Maximum age of this replica's cache", numbers.staleness_s)
        yield _gauge("watchers", "Open watches on this replica", numbers.watchers)
        yield _gauge("cache_fills", "Full reads of all agents into the cache of this replica", numbers.cache_fills)


class SweepCollector(Collector):
    """Yields the numbers of leader election, sweep, outages and self-preservation; the time of no event is 0."""

    def __init__(self, read: Callable[[], SweepNumbers]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; those of the store probe are missing before the first probe."""
        numbers = self._read()
        yield _gauge("is_leader", "1 on the replica that sweeps", int(numbers.sweeps_here))
        rejected = "Sweeps of this replica that Redis rejected because of a newer leader"
        yield _counter("sweeps_rejected", rejected, numbers.sweeps_rejected)
        yield from _leader_metrics(numbers.leader)
        if numbers.probe is not None:
            yield from _probe_metrics(numbers.probe)


def _leader_metrics(leader: LeaderNumbers | None) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        "mcp_registry_leader_info", f"1, labelled with the name of the leader{_MESH_WIDE}", labels=("instance", "host")
    )
    if leader is not None:
        info.add_metric((leader.instance, leader.host), 1)
    yield info
    yield _gauge("leader_epoch", f"Epoch of the leader{_MESH_WIDE}", leader.epoch if leader else 0)
    yield _timestamp("leader_since", "Election of the leader", leader.since_ms if leader else None)


def _probe_metrics(probe: ProbeNumbers) -> Iterator[Metric]:
    active = probe.self_preservation_active
    yield _gauge("overdue_agents", f"Agents past their deadline{_MESH_WIDE}", probe.overdue)
    yield _timestamp("outage_end", "End of the last outage", probe.outage_end_ms)
    granted = f"Times an agent's deadline was extended because of an outage{_MESH_WIDE}"
    yield _counter("outage_grace_granted", granted, probe.grace_granted)
    yield _gauge("self_preservation_active", f"1 while self-preservation suspends expiry{_MESH_WIDE}", int(active))
    yield _gauge(
        "self_preservation_suspended_agents",
        f"Overdue agents whose expiry is suspended{_MESH_WIDE}",
        probe.overdue if active else 0,
    )
    yield _timestamp(
        "self_preservation_since", "Start of the last self-preservation period", probe.self_preservation_since_ms
    )
    yield _timestamp(
        "self_preservation_until", "End of the last self-preservation period", probe.self_preservation_until_ms
    )
    activations = f"Self-preservation periods so far{_MESH_WIDE}"
    yield _counter("self_preservation_activations", activations, probe.self_preservation_activations)


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"mcp_registry_{name}", help_text, value=value)


def _counter(name: str, help_text: str, value: float) -> Metric:
    return CounterMetricFamily(f"mcp_registry_{name}", help_text, value=value)


def _timestamp(name: str, help_text: str, time_ms: int | None) -> Metric:
    help_text = f"{help_text}, by the clock of Redis{_MESH_WIDE}"
    return _gauge(f"{name}_timestamp_seconds", help_text, (time_ms or 0) / 1000)
