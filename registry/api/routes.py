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
from registry.api.endpoints.heartbeat import HeartbeatEndpoint
from registry.api.endpoints.list_agents import ListAgentsEndpoint
from registry.api.mcp.endpoint import McpEndpoint
from registry.api.mcp.tools import ToolRoutes
from registry.api.middleware import RegistryMiddleware
from registry.api.openapi import list_endpoints, openapi_document
from registry.api.response.responses import json_response
from registry.api.router import FastRouter
from registry.compat.mcpmesh.audit import AuditRoutes, ResolutionAudit
from registry.compat.mcpmesh.fast_heartbeat import FastHeartbeats
from registry.compat.mcpmesh.heartbeat import HeartbeatRoutes
from registry.compat.mcpmesh.jobs import JobDispatch, JobRoutes
from registry.compat.mcpmesh.proxy.route import ProxyEndpoint
from registry.compat.mcpmesh.schema_catalog import SchemaCatalog, SchemaCatalogRoutes
from registry.config.types import Secret
from registry.service.discovery.discovery import Discovery
from registry.service.liveness.agent_health import AgentHealthService
from registry.service.liveness.drain import DrainService
from registry.service.liveness.heartbeat import HeartbeatService
from registry.service.registration.registration import RegistrationService
from registry.service.resolution.explain import ResolutionExplainer
from registry.service.resolution.selection import Selector
from registry.service.status import StatusService
from registry.service.watch.watch import WatchService
from registry.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Services:
    """What the API serves."""

    registrations: RegistrationService
    discovery: Discovery
    watch: WatchService
    agent_health: AgentHealthService
    drain: DrainService
    heartbeats: HeartbeatService
    fast_heartbeats: FastHeartbeats
    explainer: ResolutionExplainer
    selector: Selector
    audit: ResolutionAudit
    schema_catalog: SchemaCatalog
    jobs: JobDispatch
    status: StatusService


def build_apps(
    services: Services, proxy: ProxyEndpoint, metrics: Metrics, token: Secret | None
) -> tuple[ASGIApp, ASGIApp]:
    """Return the API, and the small application behind the metrics port, which asks for no token."""
    registrations, discovery, wiring = services.registrations, services.discovery, services.heartbeats
    flat = HeartbeatRoutes(registrations, services.fast_heartbeats)
    heartbeats = HeartbeatEndpoint(wiring, flat)
    listing = ListAgentsEndpoint(discovery, services.watch)
    agents = AgentRoutes(registrations, discovery, wiring, listing)
    dependencies = DependencyRoutes(services.explainer, services.selector)
    tools = ToolRoutes(registrations, discovery, dependencies, heartbeats)
    health = HealthRoutes(services.status, services.agent_health, metrics)
    paths = FastRouter(
        [
            *agents.routes,
            *DrainRoutes(services.drain).routes,
            *tools.routes,
            Route("/mcp", McpEndpoint(tools.handlers), methods=["POST"]),
            *dependencies.routes,
            *health.routes,
            *heartbeats.routes,
            *flat.routes,
            *_mcpmesh_routes(services, proxy),
            *AdminRoutes(services.status).routes,
            *_api_description_routes(),
        ]
    )
    return RegistryMiddleware(paths, metrics, token), RegistryMiddleware(
        FastRouter(health.metrics_routes), metrics, None
    )


def _api_description_routes() -> list[Route]:
    """Return what tells of the API itself."""
    described = openapi_document()
    root = orjson.dumps({"service": "mcp-mesh-registry", "version": __version__, "endpoints": list_endpoints()})

    async def describe(_request: Request) -> Response:
        return json_response(described)

    async def greet(_request: Request) -> Response:
        return json_response(root)

    return [Route("/openapi.json", describe), Route("/", greet)]


def _mcpmesh_routes(services: Services, proxy: ProxyEndpoint) -> list[Route]:
    """Return what meshctl asks for besides agents."""
    return [
        *AuditRoutes(services.audit).routes,
        *SchemaCatalogRoutes(services.schema_catalog).routes,
        *JobRoutes(services.jobs).routes,
        *proxy.routes,
    ]
