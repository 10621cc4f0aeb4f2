"""Endpoints for the state of this replica, its metrics, and the health of one agent."""

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry import __version__
from registry.api.response.json_responses import json_response, timestamp
from registry.model.encoding.agent_json import rfc3339
from registry.service.health_report import StatusService, public_health
from registry.service.liveness.agent_health import AgentHealthService
from registry.telemetry.metrics import PROMETHEUS_CONTENT_TYPE, Metrics

# The format of metrics depends on the Accept header.
_VARY = {"vary": "accept"}
_TEXT_MEDIA_TYPES = ("text/plain", "application/openmetrics-text")


class HealthRoutes:
    """The HTTP routes for liveness, readiness, metrics and the health of one agent."""

    def __init__(self, status_service: StatusService, agent_health: AgentHealthService, metrics: Metrics) -> None:
        self._status_service = status_service
        self._agent_health = agent_health
        self._metrics = metrics
        self.metrics_routes = [
            Route("/metrics", self.prometheus),
            Route("/metrics/prometheus", self.prometheus),
            Route("/health", self.public_health),
            Route("/ready", self.ready),
        ]
        self.routes = [
            Route("/health", self.health),
            Route("/health/{agent_id}", self.agent_health),
            Route("/ready", self.ready),
            Route("/metrics", self.metrics),
            Route("/metrics/prometheus", self.prometheus),
        ]

    async def health(self, request: Request) -> Response:
        """GET /health: the state of this replica; 200 while the process runs."""
        if not request.scope["authorized"]:
            return await self.public_health(request)
        return health_response(self._status_service.health(), self._metrics)

    async def public_health(self, _request: Request) -> Response:
        """GET /health without a credential: whether this replica works, and no details."""
        return json_response(public_health(self._status_service.health()))

    async def ready(self, _request: Request) -> Response:
        """GET /ready: 200 while this replica accepts requests, otherwise 503."""
        return readiness_response(ready=self._status_service.ready)

    async def agent_health(self, request: Request) -> Response:
        """GET /health/{id}: the health of one agent."""
        health = await self._agent_health.health(request.path_params["agent_id"])
        agent = health.agent
        return json_response(
            {
                "agent_id": agent.id,
                "status": agent.status,
                "last_heartbeat": None if health.last_heartbeat is None else rfc3339(health.last_heartbeat),
                "time_since_heartbeat": None if health.elapsed_ms is None else health.elapsed_ms / 1000,
                "is_expired": agent.status == "expired",
                "timeout_threshold": agent.timeout / 1000,
                "eviction_threshold": agent.eviction / 1000,
                "next_heartbeat_expected": rfc3339(health.next_heartbeat),
                "message": health.message,
            }
        )

    async def metrics(self, request: Request) -> Response:
        """GET /metrics: JSON, or Prometheus text if the client prefers text."""
        if _prefers_text(request.headers.get("accept", "")):
            return await self.prometheus(request)
        totals = await self._status_service.totals()
        numbers = self._status_service.mesh_numbers()
        return json_response(
            {
                "total_agents": sum(numbers.agents_by_status.values()),
                **{f"{status}_agents": count for status, count in numbers.agents_by_status.items()},
                "draining_agents": numbers.draining,
                "total_capabilities": numbers.capabilities,
                "unique_capability_types": numbers.capability_types,
                "heartbeats_processed": totals.get("heartbeats", 0),
                "registrations_processed": totals.get("registrations", 0),
                "uptime_seconds": round(self._metrics.uptime_seconds, 3),
                "timestamp": timestamp(),
            },
            headers=_VARY,
        )

    async def prometheus(self, _request: Request) -> Response:
        """GET /metrics/prometheus: metrics as Prometheus text."""
        return Response(self._metrics.render_prometheus(), headers=_VARY, media_type=PROMETHEUS_CONTENT_TYPE)


def health_response(health: Mapping[str, Any], metrics: Metrics) -> Response:
    """Return the response of GET /health: the state of a replica, with the fields about its process."""
    process = {
        "service": "mcp-mesh-registry",
        "version": __version__,
        "uptime_seconds": int(metrics.uptime_seconds),
        "timestamp": timestamp(),
    }
    return json_response({**health, **process})


def readiness_response(*, ready: bool) -> Response:
    """Return the response of GET /ready."""
    if ready:
        return json_response({"status": "ready"})
    return json_response({"status": "not_ready"}, status=503, headers={"retry-after": "1"})


def _prefers_text(accept: str) -> bool:
    """Return whether an Accept header prefers the Prometheus text format to JSON."""
    text_quality = json_quality = 0.0
    for entry in accept.split(","):
        media_type, *parameters = (part.strip().lower() for part in entry.split(";"))
        quality = next((_quality(part[2:]) for part in parameters if part.startswith("q=")), 1.0)
        if media_type in _TEXT_MEDIA_TYPES:
            text_quality = max(text_quality, quality)
        elif media_type in ("application/json", "application/*", "*/*"):
            json_quality = max(json_quality, quality if media_type == "application/json" else quality / 1000)
    return text_quality > json_quality


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
