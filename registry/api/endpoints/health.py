"""The registry's own state, and the health of one agent."""

from collections.abc import Iterator

import orjson
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry import __version__
from registry.api.response.responses import json_response, timestamp
from registry.model.encoding.agent_json import rfc3339
from registry.service.liveness.agent_health import AgentHealthService
from registry.service.status import StatusService
from registry.telemetry.metrics import PROMETHEUS_CONTENT_TYPE, Metrics

_TEXT_MEDIA_TYPES = ("text/plain", "application/openmetrics-text")
_MESH_WIDE_HELP = "; mesh-wide, the same on each replica: take max(), not sum()"


class HealthRoutes:
    """Liveness, readiness, metrics, and how one agent is."""

    def __init__(self, status_service: StatusService, agent_health: AgentHealthService, metrics: Metrics) -> None:
        self._status_service = status_service
        self._agent_health = agent_health
        self._metrics = metrics
        metrics.collector_registry.register(MeshCollector(status_service))
        metrics.collector_registry.register(SweepCollector(status_service))
        self.metrics_routes = [Route("/metrics", self.prometheus), Route("/metrics/prometheus", self.prometheus)]
        self.routes = [
            Route("/health", self.health),
            Route("/health/{agent_id}", self.agent_health),
            Route("/ready", self.ready),
            Route("/metrics", self.metrics),
            Route("/metrics/prometheus", self.prometheus),
        ]

    async def health(self, _request: Request) -> Response:
        """GET /health: 200 while the process lives."""
        state = self._status_service.health()
        return json_response(
            orjson.dumps(
                state
                | {
                    "service": "mcp-mesh-registry",
                    "version": __version__,
                    "uptime_seconds": round(self._metrics.uptime_seconds, 3),
                    "timestamp": timestamp(),
                }
            )
        )

    async def ready(self, _request: Request) -> Response:
        """GET /ready: 200 when this replica should get requests, else 503."""
        ready = self._status_service.ready
        body = orjson.dumps({"status": "ready" if ready else "not_ready"})
        headers = None if ready else {"retry-after": "1"}
        return Response(body, 200 if ready else 503, headers, media_type="application/json")

    async def agent_health(self, request: Request) -> Response:
        """GET /health/{id}."""
        health = await self._agent_health.health(request.path_params["agent_id"])
        agent = health.agent
        return json_response(
            orjson.dumps(
                {
                    "agent_id": agent.id,
                    "status": health.status,
                    "last_heartbeat": None if health.last_heartbeat is None else rfc3339(health.last_heartbeat),
                    "time_since_heartbeat": None if health.elapsed_ms is None else health.elapsed_ms / 1000,
                    "is_expired": health.status == "expired",
                    "timeout_threshold": agent.timeout / 1000,
                    "eviction_threshold": agent.eviction / 1000,
                    "next_heartbeat_expected": rfc3339(health.next_heartbeat),
                    "message": health.message,
                }
            )
        )

    async def metrics(self, request: Request) -> Response:
        """GET /metrics: JSON, or text where the client ranks that above JSON."""
        if _prefers_text(request.headers.get("accept", "")):
            return await self.prometheus(request)
        totals = await self._status_service.totals()
        census = self._status_service.agent_counts()
        return json_response(
            orjson.dumps(
                {
                    "total_agents": sum(census.by_status.values()),
                    **{f"{status}_agents": count for status, count in census.by_status.items()},
                    "draining_agents": census.draining,
                    "total_capabilities": census.capabilities,
                    "unique_capability_types": census.capability_types,
                    "heartbeats_processed": totals.get("heartbeats", 0),
                    "registrations_processed": totals.get("registrations", 0),
                    "uptime_seconds": round(self._metrics.uptime_seconds, 3),
                    "timestamp": timestamp(),
                }
            )
        )

    async def prometheus(self, _request: Request) -> Response:
        """GET /metrics/prometheus."""
        return Response(self._metrics.render_prometheus(), media_type=PROMETHEUS_CONTENT_TYPE)


class MeshCollector(Collector):
    """The numbers of the whole mesh, as this replica holds them."""

    def __init__(self, status_service: StatusService) -> None:
        self._status_service = status_service

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges of the mesh."""
        census, health = self._status_service.agent_counts(), self._status_service.health()
        yield _gauge("mcp_registry_agents_total", f"Registered agents{_MESH_WIDE_HELP}", sum(census.by_status.values()))
        by_status = GaugeMetricFamily(
            "mcp_registry_agents_by_status", f"Registered agents by status{_MESH_WIDE_HELP}", labels=("status",)
        )
        for status, count in census.by_status.items():
            by_status.add_metric((status,), count)
        yield by_status
        yield _gauge(
            "mcp_registry_agents_draining",
            f"Registered agents that drain, of any status{_MESH_WIDE_HELP}",
            census.draining,
        )
        yield _gauge(
            "mcp_registry_capabilities_total", f"Capabilities of all agents{_MESH_WIDE_HELP}", census.capabilities
        )
        yield _gauge(
            "mcp_registry_capability_types_total",
            f"Different capability names{_MESH_WIDE_HELP}",
            census.capability_types,
        )
        yield _gauge("mcp_registry_ready", "1 while this replica should get requests", int(health["ready"]))
        yield _gauge("mcp_registry_behind_seconds", "How old this replica's view may be", health["behind_seconds"])


class SweepCollector(Collector):
    """Who sweeps, and what keeps it from moving agents on. A moment that there was none of is 0."""

    def __init__(self, status_service: StatusService) -> None:
        self._status_service = status_service

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges of election, sweep and self-preservation."""
        sweep = self._status_service.sweep_status()
        yield _gauge("mcp_registry_leading", "1 on the replica that sweeps", int(sweep.sweeps_here))
        refused = "Sweeps of this replica that were refused: another led by then"
        yield CounterMetricFamily("mcp_registry_sweeps_refused", refused, value=sweep.refused_sweeps)
        leader = GaugeMetricFamily(
            "mcp_registry_leader_info", f"1 beside the name of the leader{_MESH_WIDE_HELP}", labels=("instance", "host")
        )
        if sweep.leader is not None:
            leader.add_metric((sweep.leader.instance, sweep.leader.host), 1)
        yield leader
        epoch, since = (sweep.leader.epoch, sweep.leader.since) if sweep.leader is not None else (0, 0)
        yield _gauge("mcp_registry_leader_epoch", f"Epoch of the leader{_MESH_WIDE_HELP}", epoch)
        yield _timestamp_gauge("mcp_registry_leader_since", "Since when it leads", since)
        if sweep.probe is None:
            return
        signs, hold = sweep.probe, sweep.probe.self_preservation
        yield _gauge("mcp_registry_overdue_agents", f"Agents past their deadline{_MESH_WIDE_HELP}", signs.overdue)
        yield _timestamp_gauge("mcp_registry_outage_end", "When the last outage ended", signs.outage_end)
        graced = f"Times an agent got time because of an outage{_MESH_WIDE_HELP}"
        yield CounterMetricFamily("mcp_registry_graced", graced, value=signs.grace_granted)
        yield _gauge(
            "mcp_registry_hold", f"1 while a mass silence is held{_MESH_WIDE_HELP}", int(sweep.self_preservation)
        )
        yield _gauge(
            "mcp_registry_held_agents",
            f"Agents a hold keeps{_MESH_WIDE_HELP}",
            signs.overdue if sweep.self_preservation else 0,
        )
        yield _timestamp_gauge("mcp_registry_hold_since", "When the last hold began", hold and hold.since)
        yield _timestamp_gauge(
            "mcp_registry_hold_until", "When the last hold ends or ended", hold and (hold.ended or hold.until)
        )
        yield CounterMetricFamily(
            "mcp_registry_holds", f"Holds there were{_MESH_WIDE_HELP}", value=signs.self_preservation_activations
        )


def _timestamp_gauge(name: str, help_text: str, timestamp_ms: int | None) -> Metric:
    return _gauge(
        f"{name}_timestamp_seconds", f"{help_text}, by Redis' clock{_MESH_WIDE_HELP}", (timestamp_ms or 0) / 1000
    )


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_text, value=value)


def _prefers_text(accept: str) -> bool:
    """Tell whether an Accept header ranks a Prometheus text format above JSON."""
    text = json = 0.0
    for entry in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in entry.split(";"))
        weight = next((_quality(part[2:]) for part in parameters if part.startswith("q=")), 1.0)
        if kind in _TEXT_MEDIA_TYPES:
            text = max(text, weight)
        elif kind in ("application/json", "application/*", "*/*"):
            json = max(json, weight if kind == "application/json" else weight / 1000)
    return text > json


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
