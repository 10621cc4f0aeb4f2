"""What wiring needs of the store: the loads agents told, and how their dependencies were resolved lately."""

import asyncio
from collections.abc import Sequence
from itertools import chain
from typing import Any

from registry.errors import StoreUnavailable
from registry.store.chunks import chunks
from registry.store.keys import Keys
from registry.store.redis.batcher import Batcher
from registry.store.redis.errors import raise_for_error, reply_or_error
from registry.store.redis.pipeline import Pipeline
from registry.store.scripts import Command, ScriptCall, load_scripts

# A slice of a large read: big enough to be quick, small enough that nobody behind it waits.
_MAX_IDS_PER_READ = 1000
MAX_RESOLUTIONS_PER_AGENT = 10
"""How many resolutions of an agent's dependencies are kept."""
# For how long they are after the last, in milliseconds.
_RESOLUTION_TTL_MS = 24 * 3600 * 1000


class ResolutionStore:
    """Reads and keeps over a link of its own; what arrives together leaves together."""

    def __init__(self, keys: Keys, pipeline: Pipeline, *, shebang: bool = True) -> None:
        self._keys = keys
        self._pipeline = pipeline
        self._save_resolution = load_scripts(shebang=shebang)["save_resolution"]
        self._resolution_batcher: Batcher[ScriptCall, Any] = Batcher(self._send_resolutions)
        self._load_batcher: Batcher[Sequence[str], list[float | None]] = Batcher(self._send_loads)

    async def save_resolution(self, agent_id: str, digest: str, entry: bytes) -> None:
        """Keep how an agent's dependencies were resolved, as JSON, unless the newest entry has the same digest."""
        call = self._save_resolution.call(
            {"resolutions": self._keys.resolutions(agent_id)},
            {"digest": digest, "entry": entry, "max_entries": MAX_RESOLUTIONS_PER_AGENT, "ttl": _RESOLUTION_TTL_MS},
        )
        await self._resolution_batcher.submit(call)

    async def recent_resolutions(self, agent_id: str, limit: int) -> list[bytes]:
        """Return how an agent's dependencies were resolved lately, the newest first, at most so many, as JSON."""
        (reply,) = await self._pipeline.execute([("LRANGE", self._keys.resolutions(agent_id), 0, limit - 1)])
        return [entry.partition(b" ")[2] for entry in raise_for_error(reply)]

    def loads(self, agent_ids: Sequence[str]) -> "asyncio.Future[list[float | None]]":
        """Return the load each agent told last, in the order asked; None where it told none."""
        return self._load_batcher.submit(agent_ids)

    async def close(self) -> None:
        """Finish what was accepted."""
        await self._resolution_batcher.close()
        await self._load_batcher.close()

    async def _send_resolutions(self, calls: Sequence[ScriptCall]) -> list[Any]:
        return [reply_or_error(reply) for reply in await self._pipeline.call_scripts(calls)]

    async def _send_loads(self, queries: Sequence[Sequence[str]]) -> list[list[float | None] | Exception]:
        ids = list(chain.from_iterable(queries))
        replies = []
        for part in chunks(ids, _MAX_IDS_PER_READ):
            commands: list[Command] = [("HGET", self._keys.agent(agent_id), "load") for agent_id in part]
            replies += await self._pipeline.execute(commands)
        loads = (_decode_load(reply) for reply in replies)
        return [[next(loads) for _ in ids] for ids in queries]


def _decode_load(reply: Any) -> float | None:
    """Return a load; what is none, as in a damaged record, was never told."""
    told = reply_or_error(reply)
    if isinstance(told, StoreUnavailable):
        raise told
    try:
        return float(told)
    except (TypeError, ValueError):
        return None
