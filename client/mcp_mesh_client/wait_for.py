"""`wait_for`: waits with long polls until a healthy or degraded agent provides a capability."""

import asyncio
import time
from typing import NoReturn

from mcp_mesh_client.errors import CapabilityTimeout, RegistryTimeout, RegistryUnavailable, RequestRejected
from mcp_mesh_client.filters import QueryPairs, query_pairs
from mcp_mesh_client.retry import FIRST_PAUSE_S, Backoff, parse_response
from mcp_mesh_client.shared_client_state import ClientSession
from mcp_mesh_client.transport import Request
from mcp_mesh_client.types.agents import Agent

_LIVE_STATUSES = frozenset({"healthy", "degraded"})
# The registry extends a long poll by up to this factor, which spreads the polls of many clients.
_LONG_POLL_S, MAX_WAIT_FACTOR, _MAX_PAUSE_S = 30.0, 17 / 16, 2.0


class CapabilityWaiter:
    """Waits for healthy or degraded agents that match `filters`, which contain the `capability`."""

    def __init__(self, session: ClientSession, capability: str, filters: QueryPairs) -> None:
        self._session = session
        self._capability = capability
        self._filters = filters
        self._backoff = Backoff(FIRST_PAUSE_S, min(_MAX_PAUSE_S, session.config.max_backoff))
        self._version: QueryPairs = ()
        self._last_error: Exception | None = None

    async def wait(self, timeout: float) -> list[Agent]:
        """Return the matching agents as soon as there is one.

        Raises CapabilityTimeout after `timeout` seconds, and RequestRejected for invalid filters.
        """
        deadline = time.monotonic() + timeout
        try:
            async with asyncio.timeout(timeout):
                while not (found := await self._poll(min(_LONG_POLL_S, max(0.1, deadline - time.monotonic())))):
                    pass
                return found
        except TimeoutError:
            self._raise_timeout(timeout)

    async def _poll(self, wait_s: float) -> list[Agent]:
        """Return the matching agents; if the last poll found none, wait for a change of the agents first."""
        query = (*self._filters, *self._version, *query_pairs({"wait": wait_s}))
        try:
            response = parse_response(
                await self._session.send_raw(
                    Request("GET", "/agents", query, extra_timeout=MAX_WAIT_FACTOR * wait_s), max_rounds=1
                )
            )
        except (RegistryUnavailable, RegistryTimeout) as failure:
            self._last_error = failure
            await asyncio.sleep(self._backoff.next_pause())
            return []
        self._last_error = None
        self._backoff.reset()
        if "error" in response:
            raise RequestRejected(str(response["message"]), response)
        self._version = (("resource_version", response["resource_version"]),)
        return [agent for agent in response["agents"] if agent["status"] in _LIVE_STATUSES]

    def _raise_timeout(self, timeout: float) -> NoReturn:
        problem = f"No live agent provides {self._capability!r} after {timeout:g} s"
        raise CapabilityTimeout(
            problem if self._last_error is None else f"{problem}; last registry error: {self._last_error}"
        ) from self._last_error
