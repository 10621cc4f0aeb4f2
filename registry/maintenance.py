"""What an operator does to a mesh as a whole: back it up, restore it, look through it and mend it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence

from registry.cache.reflector import Feed
from registry.config.settings import Settings
from registry.errors import StartupError
from registry.main import open_server
from registry.model.agent import Held
from registry.model.encoding.backup import Heading, heading
from registry.store.embedded.binary import find_server
from registry.store.embedded.server import running_at
from registry.store.integrity import Diagnosis, Mended
from registry.store.redis.connection import server_at
from registry.store.restore import Restored
from registry.store.store import Store


@contextlib.asynccontextmanager
async def _open_store(settings: Settings) -> AsyncIterator[Store]:
    """Provide the store: Redis, the embedded server of a replica that runs on this machine, or one of our own."""
    async with contextlib.AsyncExitStack() as stack:
        running = None if settings.redis_url is not None else running_at(settings.data_dir)
        if running is not None:
            server = server_at(running)
        elif settings.redis_url is None and find_server() is None:
            raise StartupError("There is no store here: set REDIS_URL to the one the replicas use")
        else:
            server, _ = await stack.enter_async_context(open_server(settings))
        store = Store(server, settings, lambda _script, _seconds: None)
        stack.push_async_callback(store.close)
        yield store


async def take_backup(settings: Settings) -> tuple[Heading, Iterator[Held]]:
    """Return every agent as of one version. Raises StoreUnavailable."""
    async with _open_store(settings) as store:
        feed = Feed(store.changes, settings.watch_history)
        following = asyncio.create_task(feed.run())
        try:
            view = await feed.fresh()
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
    top = heading(settings.mesh, view.history, view.version, int(time.time() * 1000), len(view.records))
    return top, (Held(record.agent, record.heartbeat) for record in view.records.values())


async def restore(settings: Settings, top: Heading, agents: Sequence[Held]) -> tuple[int, Restored]:
    """Put the agents of a backup back under a new history, whose first version is returned.

    It is above the backup's, and above all there are. Who has registered meanwhile is newer, and stays. Doing it twice
    is doing it once. Raises StoreUnavailable.
    """
    async with _open_store(settings) as store:
        begun = await store.backups.restart(top.version)
        return begun, await store.backups.restore(agents)


async def examine(settings: Settings, *, repair: bool) -> tuple[tuple[str, ...], Diagnosis, Mended | None]:
    """Look through the store: what is wrong with the server, with the mesh, and what was mended if `repair`.

    Raises StoreUnavailable.
    """
    async with _open_store(settings) as store:
        warnings = (await store.vitals.examine()).all
        found = await store.checkup.examine()
        if not repair or found.is_sound:
            return warnings, found, None
        mended = await store.checkup.mend(found)
        # The log says nothing of what was mended, so that nobody may go on from before it.
        await store.backups.restart()
        return warnings, found, mended
