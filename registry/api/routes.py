"""The list of routes, and the application they make."""

from dataclasses import dataclass

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from registry import __version__
from registry.api.endpoints.admin import AdminRoutes
from registry.api.endpoints.agents import AgentRoutes
from registry.api.endpoints.dependencies import DependencyRoutes
from registry.api.endpoints.drain import DrainRoutes
from registry.api.endpoints.health import HealthRoutes
from registry.api.endpoints.heartbeat import Heartbeats
from registry.api.endpoints.list_agents import ListRoute
from registry.api.mcp.endpoint import McpRoute
from registry.api.mcp.tools import ToolRoutes
from registry.api.middleware import Gate
from registry.api.openapi import endpoints, openapi
from registry.api.response.responses import answer
from registry.api.router import Paths
from registry.compat.mcpmesh.audit import Auditing
from registry.compat.mcpmesh.audit_endpoint import EventRoutes
from registry.compat.mcpmesh.fast_heartbeat import Keeping
from registry.compat.mcpmesh.heartbeat import FlatHeartbeats
from registry.compat.mcpmesh.jobs import Dispatching
from registry.compat.mcpmesh.jobs_endpoint import DispatchRoutes
from registry.compat.mcpmesh.proxy.route import Proxy
from registry.compat.mcpmesh.schema_catalog import Canonicals
from registry.compat.mcpmesh.schema_catalog_endpoint import SchemaRoutes
from registry.config.settings import Secret
from registry.service.discovery.discovery import Discovery
from registry.service.liveness.agent_health import Liveness
from registry.service.liveness.drain import Draining
from registry.service.liveness.heartbeat import Wiring
from registry.service.registration.registration import Registrations
from registry.service.resolution.explain import Explaining
from registry.service.resolution.selection import Selecting
from registry.service.status import Overview
from registry.service.watch.watch import Watching
from registry.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Services:
    """What the API serves."""

    registrations: Registrations
    discovery: Discovery
    watching: Watching
    liveness: Liveness
    draining: Draining
    wiring: Wiring
    keeping: Keeping
    explaining: Explaining
    selecting: Selecting
    auditing: Auditing
    canonicals: Canonicals
    dispatching: Dispatching
    overview: Overview


def applications(services: Services, proxy: Proxy, metrics: Metrics, token: Secret | None) -> tuple[ASGIApp, ASGIApp]:
    """Return the API, and the small application behind the metrics port, which asks for no token."""
    registrations, discovery, wiring = services.registrations, services.discovery, services.wiring
    flat = FlatHeartbeats(registrations, wiring, services.keeping)
    heartbeats = Heartbeats(wiring, flat)
    listing = ListRoute(discovery, services.watching)
    agents = AgentRoutes(registrations, discovery, services.liveness, wiring, listing)
    dependencies = DependencyRoutes(services.explaining, services.selecting)
    tools = ToolRoutes(agents, discovery, dependencies, heartbeats)
    health = HealthRoutes(services.overview, services.liveness, metrics)
    paths = Paths(
        [
            *agents.routes,
            *DrainRoutes(services.draining).routes,
            *tools.routes,
            Route("/mcp", McpRoute(tools.calls), methods=["POST"]),
            *dependencies.routes,
            *health.routes,
            *heartbeats.routes,
            *flat.routes,
            *_mesh_routes(services, proxy),
            *AdminRoutes(services.overview).routes,
            *_descriptions(),
        ]
    )
    return Gate(paths, metrics, token), Gate(Paths(health.scrape), metrics, None)


def _descriptions() -> list[Route]:
    """Return what tells of the API itself."""
    described = openapi()
    root = orjson.dumps({"service": "mcp-mesh-registry", "version": __version__, "endpoints": endpoints()})

    async def describe(_request: Request) -> Response:
        return answer(described)

    async def greet(_request: Request) -> Response:
        return answer(root)

    return [Route("/openapi.json", describe), Route("/", greet)]


def _mesh_routes(services: Services, proxy: Proxy) -> list[Route]:
    """Return what meshctl asks for besides agents."""
    return [
        *EventRoutes(services.auditing).routes,
        *SchemaRoutes(services.canonicals).routes,
        *DispatchRoutes(services.dispatching).routes,
        *proxy.routes,
    ]
