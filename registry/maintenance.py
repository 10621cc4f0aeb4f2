"""Operations on a whole mesh, for operators: backup, restore, integrity check and repair."""

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from registry.cache.reflector import ChangeSignal, LogGap, Reflector
from registry.cache.view import View
from registry.cache.watch_history import WatchHistory
from registry.config.settings import Settings, user_data_dir
from registry.errors import StartupError, StoreUnavailable
from registry.model.agent import StoredAgent
from registry.model.encoding.backup import BackupHeader, make_header
from registry.store.embedded.append_only_file import DamagedFileError, FileRepair
from registry.store.embedded.binary import find_server_binary
from registry.store.embedded.server import EmbeddedServer, running_server_url
from registry.store.integrity_check import IntegrityReport, RepairResult
from registry.store.redis.connection import endpoint_from_url
from registry.store.redis.errors import access_error
from registry.store.restore import RestoreResult
from registry.store.store import Store, open_redis

# Attempts to read all agents before the change log is trimmed.
_MAX_FILLS = 5


@contextlib.asynccontextmanager
async def _open_store(settings: Settings) -> AsyncIterator[Store]:
    """Open the Redis to maintain: at REDIS_URL, the embedded one of a running replica, or a new embedded one."""
    async with contextlib.AsyncExitStack() as stack:
        running_url = (
            None if settings.redis_url is not None else running_server_url(settings.data_dir or user_data_dir())
        )
        if running_url is not None:
            endpoint = endpoint_from_url(running_url)
        elif settings.redis_url is None and find_server_binary() is None:
            raise StartupError("No store found: set REDIS_URL to the Redis that the replicas use")
        else:
            endpoint, _ = await stack.enter_async_context(open_redis(settings))
        store = Store(endpoint, settings, lambda _script, _seconds: None)
        stack.push_async_callback(store.close)
        yield store


async def take_backup(
    settings: Settings, on_progress: Callable[[int], None]
) -> tuple[BackupHeader, Iterator[StoredAgent]]:
    """Return the header of a backup and all agents at its version; `on_progress` receives the number of agents read.

    Raises StoreUnavailable, also if the mesh changes so fast that the log is trimmed during each of some attempts.
    """
    async with _open_store(settings) as store:
        history = WatchHistory(
            store.change_log, settings.watch_history, on_entry=lambda _entry: None, on_gap=lambda: None
        )
        reflector = Reflector(store.change_log, history, ChangeSignal(), on_unannounced=lambda: None)
        view = await _fill(reflector, on_progress)
    header = make_header(settings.mesh, view.timeline, view.version, int(time.time() * 1000), len(view.records))
    return header, (StoredAgent(record.agent, record.heartbeat) for record in view.records.values())


async def _fill(reflector: Reflector, on_progress: Callable[[int], None]) -> View:
    for _ in range(_MAX_FILLS):
        with contextlib.suppress(LogGap):
            return await reflector.fill(on_progress)
    raise StoreUnavailable(
        "The change log was trimmed while all agents were read; raise REGISTRY_WATCH_HISTORY on all replicas"
    )


async def restore(settings: Settings, header: BackupHeader, agents: Sequence[StoredAgent]) -> tuple[int, RestoreResult]:
    """Add the missing agents of a backup and begin a new timeline; return its first version and the counts of agents.

    The version is above that of the backup and of the store. Agents that exist are newer, and are not overwritten. It
    can be repeated after an error. Raises StoreUnavailable.
    """
    async with _open_store(settings) as store:
        first_version = await store.restorer.begin_timeline(header.version)
        return first_version, await store.restorer.restore(agents)


async def repair_embedded_file(settings: Settings) -> FileRepair | None:
    """Repair the append-only file if the embedded server rejects it; return None if there is nothing to repair.

    Raises StartupError if it cannot be repaired.
    """
    binary = find_server_binary()
    if settings.redis_url is not None or binary is None:
        return None
    data_dir = settings.data_dir or user_data_dir()
    if running_server_url(data_dir) is not None:
        return None
    embedded = EmbeddedServer(data_dir, binary)
    try:
        await embedded.start()
    except DamagedFileError:
        return await embedded.repair()
    await embedded.stop()
    return None


async def check_integrity(
    settings: Settings, *, repair: bool
) -> tuple[tuple[str, ...], IntegrityReport, RepairResult | None]:
    """Check the configuration of Redis and all keys of the mesh, and repair the keys on request.

    Returns warnings about the configuration, problems of the mesh, and repairs or None. Raises StoreUnavailable.
    """
    async with _open_store(settings) as store:
        warnings = (await store.server_health.check_config()).messages
        refused = store.server_health.refused_commands
        if refused:
            raise access_error(refused)
        report = await store.integrity.find_problems()
        if not repair or report.is_consistent:
            return warnings, report, None
        repaired = await store.integrity.repair(report)
        # Repairs write no log entries: a reader that continued the old timeline would miss them.
        await store.restorer.begin_timeline()
        return warnings, report, repaired
