"""Waiting until somebody can do what is needed."""

import asyncio
import time
from typing import NoReturn

from mcp_mesh_client.backoff import Backoff
from mcp_mesh_client.errors import NobodyProvides, Refused, RegistryTimeout, RegistryUnavailable
from mcp_mesh_client.filters import Pairs, query_pairs
from mcp_mesh_client.retry import FIRST_PAUSE, answer_of
from mcp_mesh_client.session import Calls
from mcp_mesh_client.transport import Ask
from mcp_mesh_client.types.agents import Agent

_ALIVE = frozenset({"healthy", "degraded"})
# Seconds: one long poll, by how much the registry may draw it out, and the longest pause after a failure.
_POLL, SPREAD, _SOON = 30.0, 17 / 16, 2.0


class Waiting:
    """Waits for living agents that match `filters`, among which is the `capability`."""

    def __init__(self, calls: Calls, capability: str, filters: Pairs) -> None:
        self._calls = calls
        self._capability = capability
        self._filters = filters
        self._backoff = Backoff(FIRST_PAUSE, min(_SOON, calls.conduct.longest_backoff))
        self._version: Pairs = ()
        self._trouble: Exception | None = None

    async def until(self, timeout: float) -> list[Agent]:
        """Return the agents once there is one. Raises NobodyProvides after `timeout` seconds, and Refused."""
        end = time.monotonic() + timeout
        try:
            async with asyncio.timeout(timeout):
                while not (found := await self._look(min(_POLL, max(0.1, end - time.monotonic())))):
                    pass
                return found
        except TimeoutError:
            self._give_up(timeout)

    async def _look(self, longest: float) -> list[Agent]:
        """Return who is there now; where nobody was before, wait for a change."""
        query = (*self._filters, *self._version, *query_pairs({"wait": longest}))
        try:
            answer = answer_of(await self._calls.reply(Ask("GET", "/agents", query, longer=SPREAD * longest), tries=1))
        except (RegistryUnavailable, RegistryTimeout) as failure:
            self._trouble = failure
            await asyncio.sleep(self._backoff.pause())
            return []
        self._trouble = None
        self._backoff.reset()
        if "error" in answer:
            raise Refused(str(answer["message"]), answer)
        self._version = (("resource_version", answer["resource_version"]),)
        return [agent for agent in answer["agents"] if agent["status"] in _ALIVE]

    def _give_up(self, timeout: float) -> NoReturn:
        problem = f"No living agent provides {self._capability!r} after {timeout:g} s"
        raise NobodyProvides(
            problem if self._trouble is None else f"{problem}; the registry: {self._trouble}"
        ) from self._trouble
