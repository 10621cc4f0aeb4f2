"""The endless part of a watch: connect, follow, and go on elsewhere."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from mcp_mesh_client.backoff import Backoff
from mcp_mesh_client.config import Conduct
from mcp_mesh_client.endpoints import Endpoint, Endpoints
from mcp_mesh_client.errors import Refused, RegistryTimeout, RegistryUnavailable, UnreadableAnswer, WatchExpired
from mcp_mesh_client.filters import Pairs
from mcp_mesh_client.relist import Mirror
from mcp_mesh_client.retry import AWAY, FIRST_PAUSE, Caller, Failure, answer_of, away
from mcp_mesh_client.transport import Ask, Wire
from mcp_mesh_client.types.agents import Event

_OK, _GONE, _CLIENTS_FAULT, _SERVERS_FAULT = 200, 410, 400, 500
# Seconds. A watch looks for the registry more often than a failed call would: somebody waits for it.
_LONGEST_PAUSE = 30.0
# A stream that ends sooner is trouble, for the registry lets one live for minutes.
_TOO_SHORT = 1.0


class Following:
    """Follows the changes of what matches `filters`, over any number of connections, in order, none lost or twice.

    Without a `since` it learns the state first, as ADDED where it is `told`, and mirrors it: where the registry no
    longer knows what came after the last version, the difference to the state then is given instead. From a version
    given by the caller there is nothing to compare with, so that raises WatchExpired.
    """

    def __init__(
        self,
        conduct: Conduct,
        endpoints: Endpoints,
        wire: Wire,
        caller: Caller,
        filters: Pairs,
        since: str | None,
        *,
        told: bool,
    ) -> None:
        self._conduct = conduct
        self._endpoints = endpoints
        self._wire = wire
        self._caller = caller
        self._filters = filters
        self._version = since
        self._mirror = Mirror() if since is None else None
        self._untold = not told

    async def batches(self) -> AsyncGenerator[list[Event], None]:
        """Give what happens, for ever; an empty batch at first says that the watch stands.

        Raises Refused where the registry does not want the watch, WatchExpired as said above.
        """
        backoff = Backoff(FIRST_PAUSE, min(_LONGEST_PAUSE, self._conduct.longest_backoff))
        failures = 0
        while True:
            order = await self._endpoints.order(anew=failures > 0)
            began, wait, stood = time.monotonic(), 0.0, False
            try:
                async with contextlib.aclosing(self._connection(order[0])) as batches:
                    async for batch in batches:
                        failures, stood = 0, True
                        backoff.reset()
                        yield batch
            except WatchExpired:
                if self._mirror is None:
                    raise
                self._version = None
            except (RegistryUnavailable, RegistryTimeout) as failure:
                self._endpoints.failed(order[0])
                wait = failure.retry_after or 0.0
                if failures + 1 >= len(order):
                    self._caller.note("offline" if failure.answer is None else "degraded", failure)
            if stood and time.monotonic() - began >= _TOO_SHORT:
                continue
            failures += 1
            if failures >= len(order):
                await asyncio.sleep(wait + backoff.pause())

    async def _connection(self, endpoint: Endpoint) -> AsyncGenerator[list[Event], None]:
        """Follow one stream to its end."""
        query = (*self._filters, ("watch", "true"))
        learning = self._version is None
        query += (("send_initial", "true"),) if learning else (("resource_version", str(self._version)),)
        ask = Ask("GET", "/agents", query, headers={"accept": "application/x-ndjson"})
        conduct = self._conduct
        async with self._wire.stream(endpoint, ask, conduct.timeout, conduct.silence) as (reply, lines):
            if reply.status in AWAY:
                raise away(endpoint, reply)
            if reply.status != _OK:
                raise _refusal(answer_of(reply), reply.status)
            self._endpoints.answered(endpoint)
            self._caller.note("online")
            if learning:
                yield await self._learn(lines)
            else:
                yield []
            async for line in lines:
                if line:
                    yield [self._take(_event(line))]

    async def _learn(self, lines: AsyncIterator[bytes]) -> list[Event]:
        """Read the state up to its bookmark; return what is to be told of it."""
        agents: list[dict[str, Any]] = []
        async for line in lines:
            if not line:
                continue
            event = _event(line)
            if event["type"] == "BOOKMARK":
                self._version = event["resource_version"]
                events = [] if self._mirror is None else self._mirror.replace(agents, event)
                untold, self._untold = self._untold, False
                return [event] if untold else [*events, event]
            agents.append(event["object"])
        raise RegistryUnavailable("The stream ended before it had told the state")

    def _take(self, event: Event) -> Event:
        self._version = event["resource_version"]
        if self._mirror is not None:
            self._mirror.apply(event)
        return event


def _event(line: bytes) -> Event:
    """Read a line. Raises what an ERROR says."""
    try:
        event: Event = json.loads(line)
        kind: str = event["type"]
    except (ValueError, KeyError, TypeError):
        raise UnreadableAnswer(f"This is no event of a registry: {line[:100]!r}") from None
    if kind == "ERROR":
        raise _refusal(event["object"], event["object"].get("code", _GONE))
    return event


def _refusal(answer: dict[str, Any], status: int) -> Refused | Failure:
    message = str(answer.get("message", status))
    if status == _GONE:
        return WatchExpired(message, answer)
    if _CLIENTS_FAULT <= status < _SERVERS_FAULT:
        return Refused(message, answer)
    return RegistryUnavailable(message, answer=answer)
