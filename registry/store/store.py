"""The store of one mesh: all operations that the registry runs on Redis."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable

from registry.concurrency.cancel_tasks import cancel_and_wait
from registry.config.redis_url import HostPort
from registry.config.settings import Settings, user_data_dir
from registry.config.value_types import mask_url
from registry.errors import StartupError
from registry.store.agents import Agents
from registry.store.change_log import ChangeLog
from registry.store.change_notifier import ChangeNotifier
from registry.store.embedded.binary import find_server_binary, installation_advice
from registry.store.embedded.server import EmbeddedServer
from registry.store.integrity_check import IntegrityCheck
from registry.store.keys import Keys
from registry.store.leader_lock import Leadership
from registry.store.record_codec import encode_log_limits
from registry.store.redis.access_guard import AccessGuard
from registry.store.redis.connection import RedisEndpoint, endpoint_from_url, in_memory_endpoint
from registry.store.redis.pipeline import Pipeline
from registry.store.redis_health import ServerHealth
from registry.store.resolution_store import ResolutionStore
from registry.store.restore import Restorer
from registry.store.seen_version import SeenVersion
from registry.store.sweeps import Sweeps
from registry.telemetry.logs import get_logger

log = get_logger(__name__)


@contextlib.asynccontextmanager
async def open_redis(settings: Settings) -> AsyncIterator[tuple[RedisEndpoint, str]]:
    """Provide a Redis to connect to and the location of its data; start the embedded server if no URL is set."""
    if settings.redis_url is not None:
        endpoint = endpoint_from_url(settings.redis_url, mesh=settings.mesh, password_file=settings.redis_password_file)
        yield endpoint, mask_url(settings.redis_url)
        return
    binary = find_server_binary()
    if binary is None:
        log.warning("store_in_memory_only", advice=f"{installation_advice()}; all data is lost at exit")
        try:
            endpoint = in_memory_endpoint()
        except ModuleNotFoundError as error:
            raise StartupError(f"The module {error.name} is not installed. {installation_advice()}") from error
        yield endpoint, "in memory only"
        return
    embedded = EmbeddedServer(settings.data_dir or user_data_dir(), binary)
    await embedded.start()
    supervisor = asyncio.create_task(embedded.supervise())
    try:
        yield endpoint_from_url(embedded.url), str(embedded.data_dir)
    finally:
        await cancel_and_wait(supervisor)
        await embedded.stop()


class Store:
    """All operations on one mesh; connections open at first use.

    `observe` gets each script call's name and seconds. `loop_lag` returns the seconds by which the event loop has been
    late so far.
    """

    def __init__(
        self,
        endpoint: RedisEndpoint,
        settings: Settings,
        observe: Callable[[str, float], None],
        loop_lag: Callable[[], float] = lambda: 0.0,
    ) -> None:
        keys = Keys(settings.mesh)
        self._pipelines: list[Pipeline] = []
        self._keys = keys
        self._endpoint = endpoint
        self._observe = observe
        self._guard = AccessGuard()
        seen = SeenVersion()
        self.agents = Agents(
            keys,
            encode_log_limits(settings.watch_history, settings.watch_history_bytes),
            seen,
            heartbeats=self.open_pipeline(),
            writes=self.open_pipeline(),
            reads=self.open_pipeline(),
            acks=settings.write_acks,
        )
        self.resolution_store = ResolutionStore(keys, self.open_pipeline())
        self.change_log = ChangeLog(keys, settings.watch_history, seen, self.open_pipeline())
        housekeeping = self.open_pipeline()
        self.sweeps = Sweeps(keys, settings, seen, housekeeping)
        self.restorer = Restorer(keys, settings, seen, housekeeping)
        self.integrity = IntegrityCheck(keys, housekeeping)
        self.server_health = ServerHealth(keys, housekeeping, acks=settings.write_acks, loop_lag=loop_lag)
        self.leadership = Leadership(
            keys, housekeeping, instance=settings.instance_id, host=socket.gethostname(), pid=os.getpid()
        )

    def redis_nodes(self) -> tuple[HostPort, ...]:
        """Return the known nodes of Redis: server, Sentinels or cluster nodes of the URL, and the current primary."""
        return self._endpoint.nodes

    def open_pipeline(self) -> Pipeline:
        """Return a new connection pipeline, which `close` closes."""
        pipeline = Pipeline(
            self._endpoint.connect, shebang=self._endpoint.shebang, observe=self._observe, guard=self._guard
        )
        self._pipelines.append(pipeline)
        return pipeline

    def make_change_notifier(self, on_change: Callable[[], None]) -> ChangeNotifier:
        """Return a notifier that calls `on_change` for each new entry of the change log."""
        return ChangeNotifier(self._keys, self._endpoint.connect, on_change)

    async def close(self) -> None:
        """Wait for accepted calls, then close every connection; if cancelled, close them immediately."""
        try:
            await self.agents.close()
            await self.resolution_store.close()
        finally:
            for pipeline in self._pipelines:
                await pipeline.close()
