"""What an operator does to a mesh as a whole: back it up, restore it, look through it and mend it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence

from registry.cache.change_signal import ChangeSignal
from registry.cache.reflector import Reflector
from registry.cache.watch_history import WatchHistory
from registry.config.settings import Settings
from registry.errors import StartupError
from registry.main import open_redis
from registry.model.agent import StoredAgent
from registry.model.encoding.backup import BackupHeader, make_header
from registry.store.embedded.binary import find_server_binary
from registry.store.embedded.server import running_server_url
from registry.store.integrity import IntegrityReport, RepairResult
from registry.store.redis.connection import endpoint_from_url
from registry.store.restore import RestoreResult
from registry.store.store import Store


@contextlib.asynccontextmanager
async def _open_store(settings: Settings) -> AsyncIterator[Store]:
    """Provide the store: Redis, the embedded server of a replica that runs on this machine, or one of our own."""
    async with contextlib.AsyncExitStack() as stack:
        running = None if settings.redis_url is not None else running_server_url(settings.data_dir)
        if running is not None:
            server = endpoint_from_url(running)
        elif settings.redis_url is None and find_server_binary() is None:
            raise StartupError("There is no store here: set REDIS_URL to the one the replicas use")
        else:
            server, _ = await stack.enter_async_context(open_redis(settings))
        store = Store(server, settings, lambda _script, _seconds: None)
        stack.push_async_callback(store.close)
        yield store


async def take_backup(settings: Settings) -> tuple[BackupHeader, Iterator[StoredAgent]]:
    """Return every agent as of one version. Raises StoreUnavailable."""
    async with _open_store(settings) as store:
        history = WatchHistory(
            store.change_log, settings.watch_history, on_entry=lambda _entry: None, on_gap=lambda: None
        )
        feed = Reflector(store.change_log, history, ChangeSignal(), on_unannounced=lambda: None)
        following = asyncio.create_task(feed.run())
        try:
            view = await feed.wait_fresh()
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
    top = make_header(settings.mesh, view.timeline, view.version, int(time.time() * 1000), len(view.records))
    return top, (StoredAgent(record.agent, record.heartbeat) for record in view.records.values())


async def restore(settings: Settings, header: BackupHeader, agents: Sequence[StoredAgent]) -> tuple[int, RestoreResult]:
    """Put the agents of a backup back under a new history, whose first version is returned.

    It is above the backup's, and above all there are. Who has registered meanwhile is newer, and stays. Doing it twice
    is doing it once. Raises StoreUnavailable.
    """
    async with _open_store(settings) as store:
        begun = await store.restorer.begin_timeline(header.version)
        return begun, await store.restorer.restore(agents)


async def check_integrity(
    settings: Settings, *, repair: bool
) -> tuple[tuple[str, ...], IntegrityReport, RepairResult | None]:
    """Look through the store: what is wrong with the server, with the mesh, and what was mended if `repair`.

    Raises StoreUnavailable.
    """
    async with _open_store(settings) as store:
        warnings = (await store.server_health.check_config()).messages
        found = await store.integrity.find_problems()
        if not repair or found.is_consistent:
            return warnings, found, None
        mended = await store.integrity.repair(found)
        # The log says nothing of what was mended, so that nobody may go on from before it.
        await store.restorer.begin_timeline()
        return warnings, found, mended
