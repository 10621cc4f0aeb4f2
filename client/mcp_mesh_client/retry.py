"""One call, carried through: elsewhere if a replica fails, after a pause if all do, never twice where it must not."""

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from typing import Any, Literal

from mcp_mesh_client.backoff import Backoff
from mcp_mesh_client.config import LONGEST_BACKOFF, Conduct
from mcp_mesh_client.endpoints import Endpoint, Endpoints
from mcp_mesh_client.errors import RegistryTimeout, RegistryUnavailable, UnreadableAnswer
from mcp_mesh_client.transport import Ask, Reply, Wire

log = logging.getLogger("mcp_mesh_client")

State = Literal["unknown", "online", "degraded", "offline"]
Failure = RegistryUnavailable | RegistryTimeout

FIRST_PAUSE = 0.1
_OK, _NOT_MODIFIED, _CLIENTS_FAULT, _SERVERS_FAULT = 200, 304, 400, 500
AWAY = frozenset({502, 503, 504})


class Caller:
    """Makes calls, and knows how the registry was when it was last asked.

    `state` is `online` when it answered, `degraded` when it could not do what was asked, `offline` when no replica
    could be reached, `unknown` before the first call.
    """

    def __init__(self, conduct: Conduct, endpoints: Endpoints, wire: Wire) -> None:
        self.state: State = "unknown"
        self._conduct = conduct
        self._endpoints = endpoints
        self._wire = wire

    async def call(
        self, ask: Ask, *, tries: int | None = None, within: float | None = None, eager: bool = False
    ) -> Reply:
        """Make one call, of any status but 502, 503 and 504.

        All replicas are asked in turn, then again after a pause that grows, until `tries` rounds or `within` so many
        seconds are over; an `eager` call is over once a replica says that it cannot do it now. What may not be done
        twice is sent again only where it is known not to have been carried out.

        Raises what went wrong last, RegistryUnavailable or RegistryTimeout; its `outcome` speaks for all tries.
        """
        conduct = self._conduct
        end = time.monotonic() + (conduct.timeout if within is None else within) + ask.longer
        backoff = Backoff(FIRST_PAUSE, conduct.longest_backoff)
        left = conduct.tries if tries is None else tries
        maybe_done = again = False
        while True:
            failure = await self._round(ask, end, anew=again)
            if isinstance(failure, Reply):
                if not ask.from_memory:
                    self.note("online")
                return failure
            maybe_done |= failure.outcome == "unknown"
            left, again = left - 1, True
            pause = (failure.retry_after or 0.0) + backoff.pause()
            over = left <= 0 or (eager and failure.answer is not None) or time.monotonic() + pause >= end
            if over or (maybe_done and not ask.repeatable):
                failure.outcome = "unknown" if maybe_done else "not_sent"
                self.note("offline" if failure.answer is None else "degraded", failure)
                raise failure
            await asyncio.sleep(pause)

    async def _round(self, ask: Ask, end: float, *, anew: bool) -> Reply | Failure:
        """Ask all replicas in turn; return the first answer, or the last failure."""
        failure: Failure | None = None
        maybe_done = False
        for endpoint in await self._endpoints.order(anew=anew):
            if (left := end - time.monotonic()) <= 0 or (maybe_done and not ask.repeatable):
                break
            try:
                return await self._once(endpoint, ask, left)
            except (RegistryUnavailable, RegistryTimeout) as error:
                self._endpoints.failed(endpoint)
                maybe_done |= error.outcome == "unknown"
                # A replica that speaks says more than one that is gone.
                if failure is None or failure.answer is None or error.answer is not None:
                    failure = error
        failure = failure or RegistryTimeout("No time was left to ask")
        failure.outcome = "unknown" if maybe_done else failure.outcome
        return failure

    async def _once(self, endpoint: Endpoint, ask: Ask, left: float) -> Reply:
        silence = min(left, self._conduct.try_timeout + ask.longer)
        reply = await self._wire.exchange(endpoint, ask, left, silence)
        if reply.status in AWAY:
            raise away(endpoint, reply)
        self._endpoints.answered(endpoint)
        return reply

    def note(self, state: State, failure: Failure | None = None) -> None:
        """Keep how the registry is, and tell the log once when that changes."""
        before, self.state = self.state, state
        if state == "online" and before in ("degraded", "offline"):
            log.info("The registry answers again")
        elif state not in ("online", before):
            log.warning("The registry is %s: %s", "unavailable" if state == "offline" else state, failure)


def answer_of(reply: Reply) -> dict[str, Any]:
    """Return the body of an answer or of a refusal. Raises UnreadableAnswer where it is not the registry's."""
    if reply.status == _OK or reply.status >= _CLIENTS_FAULT:
        try:
            read = json.loads(reply.body)
        except ValueError:
            read = None
        if isinstance(read, dict) and (reply.status == _OK or read.get("status") == "error"):
            return read
    raise UnreadableAnswer(
        f"This is no answer of a registry: status {reply.status}, {reply.body[:100]!r}; is the URL right?",
        outcome="not_sent" if _CLIENTS_FAULT <= reply.status < _SERVERS_FAULT else "unknown",
    )


def away(endpoint: Endpoint, reply: Reply) -> RegistryUnavailable:
    """Return what a 502, 503 or 504 means."""
    answer = _said(reply)
    said = "" if answer is None else f": {answer.get('message', answer['status'])}"
    known = answer is not None and reply.status == 503 and answer.get("outcome") != "unknown"  # noqa: PLR2004
    return RegistryUnavailable(
        f"{endpoint.url}: {reply.status}{said}",
        outcome="not_sent" if known else "unknown",
        answer=answer,
        retry_after=_seconds(reply.headers),
    )


def _said(reply: Reply) -> dict[str, Any] | None:
    """Return what a replica says that cannot do it now; None for what a balancer says in its place."""
    try:
        read = json.loads(reply.body)
    except ValueError:
        return None
    return read if isinstance(read, dict) and read.get("status") in ("error", "not_ready") else None


def _seconds(headers: Mapping[str, str]) -> float | None:
    """Read Retry-After, where it is a number."""
    text = headers.get("retry-after", "")
    return min(float(text), LONGEST_BACKOFF) if text.isascii() and text.isdigit() else None
