"""The schemas of what mesh clients' tools take and give, each once however many have it."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import orjson

from registry.cache.view import View
from registry.concurrency.cooperative import in_turns
from registry.model.agent import Agent
from registry.service.discovery.discovery import NEWEST, Discovery

# What a spec with a schema in it has in it.
_MARK: Final = b'SchemaCanonical"'
_PLACES: Final = (("inputSchemaHash", "inputSchemaCanonical"), ("outputSchemaHash", "outputSchemaCanonical"))


@dataclass(frozen=True, slots=True)
class Canonical:
    """A schema in canonical form, from whose runtime it came first, and when, in Redis-server milliseconds."""

    hash: str
    schema: Any
    runtime: str
    created: int


class Canonicals:
    """Gathers schemas from the agents that are registered; all who ask while nothing changes share one walk."""

    def __init__(self, discovery: Discovery) -> None:
        self._discovery = discovery
        self._turn = asyncio.Lock()
        self._view: View | None = None
        self._version = -1
        self._found: dict[str, Canonical] = {}

    async def newest(self, limit: int) -> Sequence[Canonical]:
        """Return at most so many, those that came last first."""
        found = await self._all()
        return sorted(found.values(), key=lambda each: (-each.created, each.hash))[:limit]

    async def get(self, schema_hash: str) -> Canonical | None:
        """Return the one with this hash; None where no agent has it."""
        return (await self._all()).get(schema_hash)

    async def _all(self) -> dict[str, Canonical]:
        view, _ = await self._discovery.view(NEWEST)
        async with self._turn:
            if self._view is not view or self._version < view.version:
                version = view.version
                self._found = await _gather(view)
                self._view, self._version = view, version
            return self._found


async def _gather(view: View) -> dict[str, Canonical]:
    found: dict[str, Canonical] = {}
    flat = [record.agent for record in view.records.values() if record.agent.profile.flat is not None]
    async for agent in in_turns(sorted(flat, key=lambda each: (each.created, each.id))):
        for canonical in _of(agent) if _MARK in agent.spec else ():
            found.setdefault(canonical.hash, canonical)
    return found


def _of(agent: Agent) -> Iterator[Canonical]:
    spec = orjson.loads(agent.spec)
    for tool in chain(spec["capabilities"], spec["flat"].get("routes", ())):
        for hashed, schema in _PLACES:
            # They are as they were sent, which nobody has checked.
            if isinstance(tool.get(hashed), str) and tool[hashed] and isinstance(tool.get(schema), dict):
                runtime = spec.get("runtime", "python")
                yield Canonical(tool[hashed], tool[schema], runtime, agent.created)
