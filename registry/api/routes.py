"""The composition of the HTTP API: its routes, and the applications of the ports of a replica."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

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
from registry.api.endpoints.heartbeat import HeartbeatEndpoint, HeartbeatFormat
from registry.api.endpoints.list_agents import ListAgentsEndpoint
from registry.api.mcp.endpoint import McpEndpoint
from registry.api.mcp.tools import ToolRoutes
from registry.api.middleware import RegistryMiddleware
from registry.api.openapi import api_paths, list_endpoints, openapi_document
from registry.api.request_checks import RequestChecks
from registry.api.response.json_responses import json_response
from registry.api.router import FastRouter
from registry.config.settings import Settings
from registry.service.discovery.discovery_service import Discovery
from registry.service.health_report import StatusService
from registry.service.liveness.agent_health import AgentHealthService
from registry.service.liveness.drain import DrainService
from registry.service.liveness.heartbeat_service import HeartbeatService
from registry.service.registration.registration_service import RegistrationService
from registry.service.resolution.explain import ResolutionExplainer
from registry.service.resolution.provider_selection import Selector
from registry.service.watch.watch_service import WatchService
from registry.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Services:
    """The services that the endpoints call."""

    registrations: RegistrationService
    discovery: Discovery
    watch: WatchService
    agent_health: AgentHealthService
    drain: DrainService
    heartbeats: HeartbeatService
    explainer: ResolutionExplainer
    selector: Selector
    status: StatusService


@dataclass(frozen=True, slots=True)
class ApiExtension:
    """Heartbeat formats, routes and OpenAPI paths that another product adds to the API."""

    heartbeat_formats: Sequence[HeartbeatFormat] = ()
    routes: Sequence[Route] = ()
    openapi_paths: Mapping[str, Any] = field(default_factory=dict)


_NO_EXTENSION = ApiExtension()
# Callers without a credential where one is required get only this at `/`.
_SERVICE_NAME = {"service": "mcp-mesh-registry"}
_ADMIN_PREFIX: Final = "/admin/"
# Paths of the admin port that the API port has, too: checks of a load balancer, and the description of the port.
_SHARED_PATHS: Final = frozenset({"/health", "/ready", "/openapi.json", "/"})


class Apps(NamedTuple):
    """The application of each port of a replica; that of the metrics port requires no token."""

    api: ASGIApp
    metrics: ASGIApp
    admin: ASGIApp


def build_apps(
    services: Services, metrics: Metrics, settings: Settings, extension: ApiExtension = _NO_EXTENSION
) -> Apps:
    """Return the applications of all ports; the API port serves /admin unless it has a port of its own."""
    separate_admin = settings.admin_port is not None
    heartbeats = HeartbeatEndpoint(services.heartbeats, extension.heartbeat_formats)
    listing = ListAgentsEndpoint(services.discovery, services.watch)
    agents = AgentRoutes(services.registrations, services.discovery, services.heartbeats, listing)
    dependencies = DependencyRoutes(services.explainer, services.selector)
    tools = ToolRoutes(services.registrations, services.discovery, services.selector, heartbeats.heartbeat)
    health = HealthRoutes(services.status, services.agent_health, metrics)
    routes = [
        *agents.routes,
        *DrainRoutes(services.drain).routes,
        *tools.routes,
        Route("/mcp", McpEndpoint(tools.handlers), methods=["POST"]),
        *dependencies.routes,
        *health.routes,
        *heartbeats.routes,
        *extension.routes,
        *AdminRoutes(services.status).routes,
    ]
    paths = api_paths(extension.openapi_paths)

    def build_app(is_served: Callable[[str], bool]) -> ASGIApp:
        described = _description_routes({path: each for path, each in paths.items() if is_served(path)})
        router = FastRouter([*(route for route in routes if is_served(route.path)), *described])
        return RegistryMiddleware(router, metrics, settings.auth_token, RequestChecks(settings))

    return Apps(
        api=build_app(lambda path: not (separate_admin and path.startswith(_ADMIN_PREFIX))),
        metrics=RegistryMiddleware(
            FastRouter(health.metrics_routes), metrics, None, RequestChecks(settings, any_host=True)
        ),
        admin=build_app(lambda path: path.startswith(_ADMIN_PREFIX) or path in _SHARED_PATHS),
    )


def _description_routes(paths: Mapping[str, Any]) -> list[Route]:
    """Return the routes that describe the paths of a port: the OpenAPI document, and the list of endpoints."""
    document = openapi_document(paths)
    endpoints = list_endpoints(paths)
    root = orjson.dumps(_SERVICE_NAME | {"version": __version__, "endpoints": endpoints})

    async def show_document(_request: Request) -> Response:
        return json_response(document)

    async def show_root(request: Request) -> Response:
        return json_response(root if request.scope["authorized"] else _SERVICE_NAME)

    return [Route("/openapi.json", show_document), Route("/", show_root)]
