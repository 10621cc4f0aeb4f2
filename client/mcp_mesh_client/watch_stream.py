"""The endless event stream of a watch: connects to a replica, reads, and resumes on another replica."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from mcp_mesh_client.config import ClientConfig
from mcp_mesh_client.errors import InvalidResponse, RegistryTimeout, RegistryUnavailable, RequestRejected, WatchExpired
from mcp_mesh_client.filters import QueryPairs
from mcp_mesh_client.relist import WatchedAgents
from mcp_mesh_client.replica_endpoints import Endpoint, Endpoints
from mcp_mesh_client.retry import (
    FIRST_PAUSE_S,
    UNAVAILABLE_STATUSES,
    Backoff,
    Failure,
    RetryingCaller,
    parse_response,
    unavailable_error,
)
from mcp_mesh_client.transport import HttpTransport, Request
from mcp_mesh_client.types.agents import WatchEvent

_OK, _GONE, _MIN_CLIENT_ERROR, _MIN_SERVER_ERROR = 200, 410, 400, 500
# Shorter than the maximum pause between calls, because a caller waits for events.
_MAX_PAUSE_S = 30.0
# A stream that ends sooner counts as a failure: the registry keeps one open for minutes.
_MIN_STREAM_S = 1.0


class WatchStream:
    """Reads the changes of the agents that match `filters` over successive connections: in order, each change once.

    Without a `from_version` it first reads the current state, returns it as ADDED events if `send_initial`, and stores
    it: if the registry no longer has the changes since the last version, the differences to the new state are returned.
    With a `from_version` there is no stored state to compare with, so WatchExpired is raised.
    """

    def __init__(
        self,
        config: ClientConfig,
        endpoints: Endpoints,
        transport: HttpTransport,
        caller: RetryingCaller,
        filters: QueryPairs,
        from_version: str | None,
        *,
        send_initial: bool,
    ) -> None:
        self._config = config
        self._endpoints = endpoints
        self._transport = transport
        self._caller = caller
        self._filters = filters
        self._resume_version = from_version
        self._watched = WatchedAgents() if from_version is None else None
        self._skip_initial = not send_initial

    async def batches(self) -> AsyncGenerator[list[WatchEvent], None]:
        """Yield batches of events without end; the first is empty if the watch is established without events.

        Raises RequestRejected if the registry rejects the watch, WatchExpired as described above.
        """
        backoff = Backoff(FIRST_PAUSE_S, min(_MAX_PAUSE_S, self._config.max_backoff))
        failures = 0
        while True:
            order = await self._endpoints.order(refresh=failures > 0)
            started_at, wait, established = time.monotonic(), 0.0, False
            try:
                async with contextlib.aclosing(self._read_stream(order[0])) as batches:
                    async for batch in batches:
                        failures, established = 0, True
                        backoff.reset()
                        yield batch
            except WatchExpired:
                if self._watched is None:
                    raise
                self._resume_version = None
            except (RegistryUnavailable, RegistryTimeout) as failure:
                self._endpoints.demote(order[0])
                wait = failure.retry_after or 0.0
                if failures + 1 >= len(order):
                    self._caller.set_state("offline" if failure.response is None else "degraded", failure)
            if established and time.monotonic() - started_at >= _MIN_STREAM_S:
                continue
            failures += 1
            if failures >= len(order):
                await asyncio.sleep(wait + backoff.next_pause())

    async def _read_stream(self, endpoint: Endpoint) -> AsyncGenerator[list[WatchEvent], None]:
        """Read one response stream of a replica to its end."""
        query = (*self._filters, ("watch", "true"))
        reads_state = self._resume_version is None
        query += (("send_initial", "true"),) if reads_state else (("resource_version", str(self._resume_version)),)
        request = Request("GET", "/agents", query, headers={"accept": "application/x-ndjson"})
        async with self._transport.stream(endpoint, request, self._config.timeout, self._config.watch_idle_timeout) as (
            response,
            lines,
        ):
            if response.status in UNAVAILABLE_STATUSES:
                raise unavailable_error(endpoint, response)
            if response.status != _OK:
                raise _error_from(parse_response(response), response.status)
            self._endpoints.prefer(endpoint)
            self._caller.set_state("online")
            if reads_state:
                yield await self._read_initial_state(lines)
            else:
                yield []
            async for line in lines:
                if line:
                    yield [self._record(_parse_event(line))]

    async def _read_initial_state(self, lines: AsyncIterator[bytes]) -> list[WatchEvent]:
        """Read the initial agents of a stream up to the bookmark; return the events for the watcher."""
        agents: list[dict[str, Any]] = []
        async for line in lines:
            if not line:
                continue
            event = _parse_event(line)
            if event["type"] == "BOOKMARK":
                self._resume_version = event["resource_version"]
                events = [] if self._watched is None else self._watched.relist(agents, event)
                skip_initial, self._skip_initial = self._skip_initial, False
                return [event] if skip_initial else [*events, event]
            agents.append(event["object"])
        raise RegistryUnavailable("The watch stream ended before the initial state was complete")

    def _record(self, event: WatchEvent) -> WatchEvent:
        self._resume_version = event["resource_version"]
        if self._watched is not None:
            self._watched.apply(event)
        return event


def _parse_event(line: bytes) -> WatchEvent:
    """Parse one line of a watch stream. Raises the error in an ERROR event."""
    try:
        event: WatchEvent = json.loads(line)
        kind: str = event["type"]
    except (ValueError, KeyError, TypeError):
        raise InvalidResponse(f"Not a registry watch event: {line[:100]!r}") from None
    if kind == "ERROR":
        raise _error_from(event["object"], event["object"].get("code", _GONE))
    return event


def _error_from(response: dict[str, Any], status: int) -> RequestRejected | Failure:
    message = str(response.get("message", status))
    if status == _GONE:
        return WatchExpired(message, response)
    if _MIN_CLIENT_ERROR <= status < _MIN_SERVER_ERROR:
        return RequestRejected(message, response)
    return RegistryUnavailable(message, response=response)
