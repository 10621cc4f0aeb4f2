"""The composition root: opens the store, builds cache, services and routes, and starts the background loops."""

import asyncio
import contextlib
import gc
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from starlette.types import ASGIApp

from registry.api.routes import Services, build_apps
from registry.api.startup_app import build_startup_app
from registry.cache.reflector import POLL_INTERVAL_S, ChangeSignal, Reflector
from registry.cache.watch_history import WatchHistory
from registry.compat.mcpmesh.list_rows import MeshListRows
from registry.compat.mcpmesh.llm_tools import LlmToolFinder
from registry.compat.mcpmesh.match_policies import llm_policy, match_policies
from registry.compat.mcpmesh.proxy.endpoint import ProxyEndpoint
from registry.compat.mcpmesh.registration import DEFAULT_TIMEOUT, FORMAT_NAME, METADATA_ERROR
from registry.compat.mcpmesh.resolution_audit import audit_facts
from registry.compat.mcpmesh.response_encoding import McpMeshResponseFormat
from registry.compat.mcpmesh.routes import McpMeshApi, build_mcpmesh_api
from registry.compat.mcpmesh.spec_fields import McpMeshSpec, McpMeshSpecOfAnyNamespace
from registry.compat.mcpmesh.upstream_settings import find_ignored_settings
from registry.concurrency.cancel_tasks import cancel_and_wait
from registry.concurrency.loop_lag import TICK_INTERVAL_S as LAG_INTERVAL_S
from registry.concurrency.loop_lag import LoopLag
from registry.concurrency.periodic import every
from registry.config.descriptors import default_connections
from registry.config.exposure import INSECURE_REASONS, find_insecurities
from registry.config.settings import SETTINGS, Settings
from registry.errors import RegistryError, StoreUnavailable
from registry.http_server.connection_table import ConnectionLimits
from registry.http_server.listener import Listener
from registry.model.agent import use_spec_type
from registry.service.discovery.discovery_service import Discovery
from registry.service.discovery.overdue_agents import OverdueAgents
from registry.service.health_report import StatusService, starting_health
from registry.service.liveness.agent_health import AgentHealthService
from registry.service.liveness.drain import DrainService
from registry.service.liveness.heartbeat_service import HeartbeatService
from registry.service.liveness.leader_election import LeaderElection
from registry.service.liveness.store_monitor import StoreMonitor
from registry.service.liveness.sweeper import Sweeper
from registry.service.registration.registration_service import RegistrationService
from registry.service.resolution.agent_load_cache import LoadCache
from registry.service.resolution.cycle_guard import CycleGuard
from registry.service.resolution.explain import ResolutionExplainer
from registry.service.resolution.late_providers import LateProviders
from registry.service.resolution.provider_selection import Selector
from registry.service.resolution.ranking_cache import RankingCache
from registry.service.resolution.resolution_traces import ResolutionTraces
from registry.service.resolution.resolver import DependencyResolver
from registry.service.watch.fanout import WatchFanout
from registry.service.watch.watch_service import WatchService
from registry.store.store import Store, open_redis
from registry.telemetry.collectors import gauge
from registry.telemetry.logs import get_logger
from registry.telemetry.metrics import Metrics

log = get_logger(__name__)

# Receives the URL of a replica, the location of its data, and why it is not ready yet, None once it is.
Announce = Callable[[str, str, str | None], None]

_PORT_SETTING = "--port or REGISTRY_PORT, as in REGISTRY_PORT=8001 make run"
# The metrics port and the admin port serve few clients; their connections are among the reserved descriptors.
_OTHER_PORT_LIMITS = ConnectionLimits(12)
_TICK_INTERVAL_S = 1.0
_READY_POLL_INTERVAL_S = 0.1
# The longest pause after failed sweeps.
_MAX_SWEEP_RETRY_PAUSE_S = 5.0
# Python collects the youngest generation after this many more allocations than deallocations; its default is 700.
_GC_THRESHOLD_OBJECTS = 20_000
# Per shutdown call to Redis. Together with 3 s for requests in flight and the stop of the embedded server, a replica
# stops within 5 s.
_CLOSE_TIMEOUT_S = 0.75


@dataclass(frozen=True, slots=True)
class Registry:
    """A running registry; `data_location` is the masked Redis URL, the data directory, or `in memory only`."""

    api_app: ASGIApp
    metrics_app: ASGIApp
    admin_app: ASGIApp
    status: StatusService
    reflector: Reflector
    watch_service: WatchService
    sweeper: Sweeper
    proxy: ProxyEndpoint
    data_location: str

    def close_streams(self) -> None:
        """Close watches and proxied calls at shutdown, because the server would not wait until they end."""
        self.watch_service.close()
        self.proxy.close()


@contextlib.asynccontextmanager
async def open_registry(
    settings: Settings, warnings: tuple[str, ...] = (), metrics: Metrics | None = None
) -> AsyncIterator[Registry]:
    """Provide a running registry; at exit stop the loops, resign as leader and complete accepted writes."""
    use_spec_type(McpMeshSpec if settings.isolate_namespaces else McpMeshSpecOfAnyNamespace)
    metrics = metrics or Metrics()
    async with open_redis(settings) as (endpoint, data_location), contextlib.AsyncExitStack() as stack:
        loop_lag = LoopLag()
        store = Store(endpoint, settings, metrics.observe_script, loop_lag.total_s)
        stack.push_async_callback(_close_within, store.close)
        change_signal = ChangeSignal()
        notifier = store.make_change_notifier(change_signal.notify)
        fanout = WatchFanout()
        history = _make_watch_history(store, settings, fanout)
        reflector = Reflector(store.change_log, history, change_signal, on_unannounced=notifier.fall_back)
        election = LeaderElection(store.leadership, settings)
        sweeper = Sweeper(election, store.sweeps, on_swept=lambda result: metrics.count_swept_agents(result._asdict()))
        monitor = StoreMonitor(
            store.server_health,
            settings,
            smallest_timeout=reflector.smallest_timeout,
            on_clock_rollback=reflector.clamp_heartbeats,
        )
        parts = reflector, notifier, election, sweeper, monitor, store.server_health
        status = StatusService(
            *parts, instance=settings.instance_id, warnings=warnings, longest_loop_lag=loop_lag.longest_s
        )
        await monitor.require_supported_store()
        stack.push_async_callback(_close_within, sweeper.resign)
        watch_service = WatchService(reflector, history, fanout)
        metrics.register(status.metrics)
        metrics.register(lambda: iter([gauge("watchers", "Open watches on this replica", len(watch_service.watchers))]))
        services, mcpmesh = _build_services(reflector, store, watch_service, status, settings, metrics, monitor)
        stack.push_async_callback(mcpmesh.upstream.close)
        apps = build_apps(services, metrics, settings, mcpmesh.extension)
        sweep_interval, max_sweep_pause = _sweep_intervals(settings)
        # Of each loop: interval, name, body, and maximum pause after failures (None: the default of `every`).
        schedule: list[tuple[float, str, Callable[[], Awaitable[None]], float | None]] = [
            (POLL_INTERVAL_S, "reflector", reflector.run, None),
            (POLL_INTERVAL_S, "change_notifier", notifier.run, None),
            (LAG_INTERVAL_S, "loop_lag", loop_lag.tick, None),
            (_TICK_INTERVAL_S, "store_probe", monitor.tick, _TICK_INTERVAL_S),
            (_TICK_INTERVAL_S, "watches", watch_service.tick, None),
            (sweep_interval, "sweep", sweeper.tick, max_sweep_pause),
            (_TICK_INTERVAL_S, "store_check", monitor.check_config, None),
            (_TICK_INTERVAL_S, "redis_address", endpoint.check_primary, _TICK_INTERVAL_S),
        ]
        loops = [
            asyncio.create_task(every(interval, name, body, max_pause=pause, on_error=metrics.count_loop_failure))
            for interval, name, body, pause in schedule
        ]
        stack.push_async_callback(cancel_and_wait, *loops)
        yield Registry(*apps, status, reflector, watch_service, sweeper, mcpmesh.proxy, data_location)


def _make_watch_history(store: Store, settings: Settings, fanout: WatchFanout) -> WatchHistory:
    return WatchHistory(
        store.change_log,
        settings.watch_history,
        on_entry=fanout.publish,
        on_gap=fanout.end_with_log_gap,
        max_bytes=settings.watch_history_bytes,
    )


def _sweep_intervals(settings: Settings) -> tuple[float, float]:
    """Return the seconds between two sweeps, and the longest pause after failed sweeps."""
    interval = settings.health_check_interval.total_seconds()
    period = min(_TICK_INTERVAL_S, interval)
    return period, max(period, min(_MAX_SWEEP_RETRY_PAUSE_S, interval))


def _build_services(
    reflector: Reflector,
    store: Store,
    watch_service: WatchService,
    status: StatusService,
    settings: Settings,
    metrics: Metrics,
    monitor: StoreMonitor,
) -> tuple[Services, McpMeshApi]:
    """Build the services of the API and the mcp-mesh extension; all services that rank providers share one cache."""
    policies = match_policies(isolate_namespaces=settings.isolate_namespaces)
    late_providers = LateProviders(store.agents, lambda: monitor.last_probe)
    loads = LoadCache(store.resolution_store)
    rankings = RankingCache(policies, late_providers.late)
    llm_tools = LlmToolFinder(rankings, llm_policy(policies))
    formats = {FORMAT_NAME: McpMeshResponseFormat(llm_tools)}
    resolutions = DependencyResolver(rankings, loads, late_providers, formats)
    rows = MeshListRows(resolutions, rankings, llm_tools)
    discovery = Discovery(reflector, store.agents, rows, OverdueAgents(store.agents, lambda: monitor.last_probe))
    traces = ResolutionTraces(reflector, store.agents, store.resolution_store, resolutions, audit_facts)
    registrations = RegistrationService(
        store.agents,
        CycleGuard(reflector, store.agents),
        traces,
        settings,
        {FORMAT_NAME: DEFAULT_TIMEOUT},
        metrics.count_identity_conflict,
    )
    services = Services(
        registrations=registrations,
        discovery=discovery,
        watch=watch_service,
        agent_health=AgentHealthService(discovery, settings.retention),
        drain=DrainService(store.agents, discovery),
        heartbeats=HeartbeatService(
            reflector, store.agents, registrations, resolutions, traces, {FORMAT_NAME: METADATA_ERROR}
        ),
        explainer=ResolutionExplainer(discovery, resolutions, store.resolution_store),
        selector=Selector(discovery, rankings, loads, late_providers),
        status=status,
    )
    return services, build_mcpmesh_api(reflector, store, discovery, resolutions, registrations, settings)


def find_setting_warnings(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return warnings about settings of other products that this registry ignores."""
    return tuple(find_ignored_settings(environ))


async def serve(settings: Settings, warnings: tuple[str, ...], announce: Announce) -> None:
    """Run one replica until SIGTERM, SIGINT or SIGHUP; `announce` receives the URL and the state of the start.

    After the signal it waits for the shutdown delay, then stops within five seconds. Raises StartupError.
    """
    stop = asyncio.Event()
    _handle_stop_signals(stop.set)
    async with contextlib.AsyncExitStack() as stack:
        # Listen before opening the store: a port in use is reported at once, and a large store may load for minutes.
        metrics = Metrics()
        listeners = _listen(settings, stack, metrics)
        # The actual ports: 0 stands for any free port.
        actual_ports: Any = {name: listener.port for name, listener in listeners.items()}
        settings = replace(settings, **actual_ports)
        warnings += _report_insecurities(settings, metrics)
        health = starting_health(settings.instance_id, warnings, leader_election=settings.leader_election)
        running = [
            each.start(build_startup_app(health, metrics, settings, public=name == "metrics_port"))
            for name, each in listeners.items()
        ]
        stop_signal = asyncio.create_task(stop.wait())
        opening = asyncio.create_task(stack.enter_async_context(open_registry(settings, warnings, metrics)))
        await asyncio.wait([stop_signal, opening, *running], return_when=asyncio.FIRST_COMPLETED)
        if opening.done():
            try:
                registry = opening.result()
            except BaseException:
                await _stop_all(listeners)
                raise
            apps = {"port": registry.api_app, "metrics_port": registry.metrics_app, "admin_port": registry.admin_app}
            for name, listener in listeners.items():
                listener.replace_app(apps[name])
                if name != "port":
                    log.info("port_opened", setting=SETTINGS[name].env, url=listener.url)
            api_listener = listeners["port"]
            announcing = asyncio.create_task(_announce_when_ready(registry, api_listener.url, announce))
            await asyncio.wait([stop_signal, *running], return_when=asyncio.FIRST_COMPLETED)
            await cancel_and_wait(announcing)
            registry.status.shutting_down = True
            # Resign first: the next leader can take over before load balancers and requests in flight are finished.
            resigning = asyncio.create_task(_close_within(registry.sweeper.resign))
            await _wait_for_balancers(settings.shutdown_delay.total_seconds(), stop, api_listener)
            registry.close_streams()
            log.info("shutdown_started")
            await asyncio.gather(resigning, _stop_all(listeners))
        else:
            await _stop_all(listeners)
        await cancel_and_wait(opening)
        await cancel_and_wait(stop_signal)
    log.info("shutdown_completed")


def _report_insecurities(settings: Settings, metrics: Metrics) -> tuple[str, ...]:
    """Log why strangers may use this replica, set the metric, and return the warnings for `/health`."""
    insecurities = find_insecurities(settings)
    metrics.set_insecure({reason: reason in insecurities for reason in INSECURE_REASONS})
    for reason, warning in insecurities.items():
        log.error("insecure_registry", reason=reason, warning=warning)
    return tuple(insecurities.values())


def _listen(settings: Settings, stack: contextlib.AsyncExitStack, metrics: Metrics) -> dict[str, Listener]:
    """Open the ports of a replica; return their listeners by the names of their settings. Raises StartupError."""
    ports = {name: getattr(settings, name) for name in ("port", "metrics_port", "admin_port")}
    options = {name: SETTINGS[name].env for name in ports} | {"port": _PORT_SETTING}
    limits = dict.fromkeys(ports, _OTHER_PORT_LIMITS) | {
        "port": ConnectionLimits(settings.connections or default_connections(), settings.connections_per_address)
    }
    return {
        name: stack.enter_context(
            Listener(settings.host, port, options[name], limits[name], metrics.count_refused_connection)
        )
        for name, port in ports.items()
        if port is not None
    }


def _handle_stop_signals(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    # Windows has no SIGHUP, and its event loop handles no signals.
    for number in (getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)):
        try:
            loop.add_signal_handler(number, stop)
        except NotImplementedError:
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))


async def _stop_all(listeners: Mapping[str, Listener]) -> None:
    await asyncio.gather(*(listener.stop() for listener in listeners.values()))


async def _announce_when_ready(registry: Registry, url: str, announce: Announce) -> None:
    """Announce that the replica serves requests, and before that, that it waits for Redis if this takes long."""
    problem = ""
    try:
        await registry.reflector.wait_fresh()
    except RegistryError as error:  # the API returns 503 until Redis is reachable
        problem = str(error.__cause__ or error)
    if not registry.status.ready:
        announce(url, registry.data_location, problem or f"it refuses {', '.join(registry.status.refused_commands)}")
        while not registry.status.ready:  # noqa: ASYNC110 - computed from several parts, none of which has an event
            await asyncio.sleep(_READY_POLL_INTERVAL_S)
    _tune_gc()
    announce(url, registry.data_location, None)


async def _wait_for_balancers(seconds: float, second_signal: asyncio.Event, listener: Listener) -> None:
    """Serve requests but report not ready, until load balancers remove this replica or a second signal arrives."""
    if not seconds:
        return
    second_signal.clear()
    listener.disable_keep_alive()
    log.info("readiness_withdrawn", delay_s=seconds)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await second_signal.wait()


def _tune_gc() -> None:
    """Exclude the filled cache from garbage collection, because the pauses would grow with the number of agents.

    Dropped cache entries are freed by their reference count; reference cycles come almost only from exceptions.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD_OBJECTS, 20, 100)


async def _close_within(close: Callable[[], Awaitable[None]]) -> None:
    """Run one step of the shutdown with a short timeout; leadership that cannot be resigned expires after its lease."""
    try:
        async with asyncio.timeout(_CLOSE_TIMEOUT_S):
            await close()
    except (StoreUnavailable, TimeoutError) as error:
        log.warning("shutdown_call_failed", call=getattr(close, "__qualname__", repr(close)), error=str(error))
