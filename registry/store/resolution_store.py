"""Stores the recent resolutions of agents' dependencies, and reads the loads that agents report."""

import asyncio
from collections.abc import Sequence
from itertools import chain
from typing import Any

from registry.errors import StoreUnavailable
from registry.store.keys import Keys
from registry.store.redis.batcher import Batcher
from registry.store.redis.errors import raise_for_error, reply_or_error
from registry.store.redis.pipeline import Pipeline
from registry.store.scripts import Command, ScriptCall, chunks

# Large reads are split: a longer command would delay the commands of others.
_MAX_IDS_PER_READ = 1000
MAX_RESOLUTIONS_PER_AGENT = 10
"""How many resolutions of one agent are stored."""
# Measured from the newest resolution of an agent.
_RESOLUTION_TTL_MS = 24 * 3600 * 1000


class ResolutionStore:
    """Stores and reads resolutions and reads loads; calls that arrive together are sent together."""

    def __init__(self, keys: Keys, pipeline: Pipeline) -> None:
        self._keys = keys
        self._pipeline = pipeline
        self._resolution_batcher: Batcher[ScriptCall, Any] = Batcher(self._send_resolutions)
        self._load_batcher: Batcher[Sequence[str], list[float | None]] = Batcher(self._send_loads)

    async def save_resolution(self, agent_id: str, digest: str, entry: bytes) -> None:
        """Store a resolution of an agent's dependencies, as JSON, unless the newest one has the same digest."""
        call = self._pipeline.scripts["save_resolution"].call(
            {"resolutions": self._keys.resolutions(agent_id)},
            {"digest": digest, "entry": entry, "max_entries": MAX_RESOLUTIONS_PER_AGENT, "ttl": _RESOLUTION_TTL_MS},
        )
        await self._resolution_batcher.submit(call)

    async def recent_resolutions(self, agent_id: str, limit: int) -> list[bytes]:
        """Return the latest resolutions of an agent's dependencies, the newest first, as JSON."""
        (reply,) = await self._pipeline.execute([("LRANGE", self._keys.resolutions(agent_id), 0, limit - 1)])
        return [entry.partition(b" ")[2] for entry in raise_for_error(reply)]

    def loads(self, agent_ids: Sequence[str]) -> "asyncio.Future[list[float | None]]":
        """Return the last load that each agent reported, in the order given; None if it reported none."""
        return self._load_batcher.submit(agent_ids)

    async def close(self) -> None:
        """Wait until every accepted read and write has its result."""
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
    """Decode the load that an agent reported; None if it is missing or invalid, as in a damaged record."""
    load = reply_or_error(reply)
    if isinstance(load, StoreUnavailable):
        raise load
    try:
        return float(load)
    except (TypeError, ValueError):
        return None
