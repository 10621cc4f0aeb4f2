"""The extension of the HTTP API for mcp-mesh."""

from dataclasses import dataclass

from registry.api.routes import ApiExtension
from registry.cache.reflector import Reflector
from registry.compat.mcpmesh.a2a import A2aRoutes
from registry.compat.mcpmesh.events import EventRoutes
from registry.compat.mcpmesh.fast_heartbeat import FastHeartbeats
from registry.compat.mcpmesh.heartbeat import FastHeartbeatEndpoint, McpMeshHeartbeatFormat
from registry.compat.mcpmesh.job_dispatch import JobDispatch, JobRoutes
from registry.compat.mcpmesh.lifecycle_events import LifecycleEvents
from registry.compat.mcpmesh.openapi import MCPMESH_PATHS
from registry.compat.mcpmesh.proxy.address_policy import AddressPolicy
from registry.compat.mcpmesh.proxy.allowed_targets import ProxyTargets
from registry.compat.mcpmesh.proxy.endpoint import ProxyEndpoint
from registry.compat.mcpmesh.proxy.headers import HeaderPolicy
from registry.compat.mcpmesh.proxy.upstream import UpstreamClient
from registry.compat.mcpmesh.resolution_audit import ResolutionAudit
from registry.compat.mcpmesh.schema_catalog import SchemaCatalog, SchemaCatalogRoutes
from registry.config.settings import Settings
from registry.config.value_types import is_loopback
from registry.service.discovery.discovery_service import Discovery
from registry.service.registration.registration_service import RegistrationService
from registry.service.resolution.resolver import DependencyResolver
from registry.store.keys import Keys
from registry.store.store import Store


@dataclass(frozen=True, slots=True)
class McpMeshApi:
    """The HTTP API extension for mcp-mesh, and the parts of it that must be closed at shutdown."""

    extension: ApiExtension
    proxy: ProxyEndpoint
    upstream: UpstreamClient


def build_mcpmesh_api(
    reflector: Reflector,
    store: Store,
    discovery: Discovery,
    resolver: DependencyResolver,
    registrations: RegistrationService,
    settings: Settings,
) -> McpMeshApi:
    """Create the HTTP API extension for mcp-mesh from the services of a registry."""
    listens_on_loopback = is_loopback(settings.host)
    upstream = UpstreamClient(
        AddressPolicy(
            allow_loopback=listens_on_loopback,
            networks=settings.proxy_networks,
            own_ports=(settings.port, settings.metrics_port, settings.admin_port),
            redis_nodes=store.redis_nodes,
        )
    )
    # The proxy does not forward the registry's own token to agents.
    blocked = (b"authorization",) if settings.auth_token is not None else ()
    policy = HeaderPolicy(settings.propagate_headers, blocked)
    is_enabled = listens_on_loopback if settings.proxy is None else settings.proxy
    proxy = ProxyEndpoint(ProxyTargets(discovery), upstream if is_enabled else None, policy)
    keys, pipeline = Keys(settings.mesh), store.open_pipeline()
    audit = ResolutionAudit(discovery, resolver, store.resolution_store)
    routes = (
        *FastHeartbeatEndpoint(FastHeartbeats(reflector, store.agents, resolver)).routes,
        *EventRoutes(audit, LifecycleEvents(keys, pipeline)).routes,
        *A2aRoutes(discovery).routes,
        *SchemaCatalogRoutes(SchemaCatalog(discovery)).routes,
        *JobRoutes(JobDispatch(keys, pipeline, settings.write_acks)).routes,
        *proxy.routes,
    )
    formats = (McpMeshHeartbeatFormat(registrations, reflector),)
    return McpMeshApi(ApiExtension(formats, routes, MCPMESH_PATHS), proxy, upstream)
