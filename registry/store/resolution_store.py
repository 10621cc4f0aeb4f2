"""What wiring needs of the store: the loads agents told, and how their dependencies were resolved lately."""

import asyncio
from collections.abc import Sequence
from itertools import chain
from typing import Any

from registry.errors import StoreUnavailable
from registry.store.keys import Keys
from registry.store.redis.batcher import Batch
from registry.store.redis.pipeline import Link, checked, judged
from registry.store.scripts import Call, Command, load_scripts

# A slice of a large read: big enough to be quick, small enough that nobody behind it waits.
_SLICE = 1000
TRACES = 10
"""How many resolutions of an agent's dependencies are kept."""
# For how long they are after the last, in milliseconds.
_TRACE_LIFE = 24 * 3600 * 1000


class Wires:
    """Reads and keeps over a link of its own; what arrives together leaves together."""

    def __init__(self, keys: Keys, link: Link, *, shebang: bool = True) -> None:
        self._keys = keys
        self._link = link
        self._trace = load_scripts(shebang=shebang)["trace"]
        self._traces: Batch[Call, Any] = Batch(self._send_traces)
        self._loads: Batch[Sequence[str], list[float | None]] = Batch(self._send_loads)

    async def keep_trace(self, agent_id: str, digest: str, entry: bytes) -> None:
        """Keep how an agent's dependencies were resolved, as JSON, unless the newest entry has the same digest."""
        call = self._trace.call(
            {"trace": self._keys.trace(agent_id)},
            {"digest": digest, "entry": entry, "keep": TRACES, "life": _TRACE_LIFE},
        )
        await self._traces.submit(call)

    async def traces(self, agent_id: str, most: int) -> list[bytes]:
        """Return how an agent's dependencies were resolved lately, the newest first, at most so many, as JSON."""
        (reply,) = await self._link.exchange([("LRANGE", self._keys.trace(agent_id), 0, most - 1)])
        return [entry.partition(b" ")[2] for entry in checked(reply)]

    def loads(self, agent_ids: Sequence[str]) -> "asyncio.Future[list[float | None]]":
        """Return the load each agent told last, in the order asked; None where it told none."""
        return self._loads.submit(agent_ids)

    async def close(self) -> None:
        """Finish what was accepted."""
        await self._traces.close()
        await self._loads.close()

    async def _send_traces(self, calls: Sequence[Call]) -> list[Any]:
        return [judged(reply) for reply in await self._link.run(calls)]

    async def _send_loads(self, asked: Sequence[Sequence[str]]) -> list[list[float | None] | Exception]:
        ids = list(chain.from_iterable(asked))
        replies = []
        for at in range(0, len(ids), _SLICE):
            commands: list[Command] = [("HGET", self._keys.agent(each), "load") for each in ids[at : at + _SLICE]]
            replies += await self._link.exchange(commands)
        loads = (_load(reply) for reply in replies)
        return [[next(loads) for _ in ids] for ids in asked]


def _load(reply: Any) -> float | None:
    """Return a load; what is none, as in a damaged record, was never told."""
    told = judged(reply)
    if isinstance(told, StoreUnavailable):
        raise told
    try:
        return float(told)
    except (TypeError, ValueError):
        return None
