"""Sends requests with retries: on another replica, then after a pause; only if a repetition is harmless."""

import asyncio
import json
import logging
import random
import time
from collections.abc import Mapping
from typing import Any, Literal

from mcp_mesh_client.config import MAX_BACKOFF_S, ClientConfig
from mcp_mesh_client.errors import InvalidResponse, RegistryTimeout, RegistryUnavailable
from mcp_mesh_client.replica_endpoints import Endpoint, Endpoints
from mcp_mesh_client.transport import HttpTransport, Request, Response

_log = logging.getLogger("mcp_mesh_client")

ConnectionState = Literal["unknown", "online", "degraded", "offline"]
Failure = RegistryUnavailable | RegistryTimeout

FIRST_PAUSE_S = 0.1
_OK, _NOT_MODIFIED, _MIN_CLIENT_ERROR, _MIN_SERVER_ERROR = 200, 304, 400, 500
# Of the replicas that failed in one round.
_MAX_SHOWN_ERRORS = 8
UNAVAILABLE_STATUSES = frozenset({502, 503, 504})


class Backoff:
    """The pauses between retries: exponential backoff with full jitter, in seconds.

    Each pause is random between 0 and a bound that doubles from `first` to `max_pause`, so that clients which failed
    together do not retry together.
    """

    def __init__(self, first: float, max_pause: float) -> None:
        self._first = first
        self._max_pause = max_pause
        self._bound = min(first, max_pause)

    def next_pause(self) -> float:
        """Return the next pause in seconds."""
        bound, self._bound = self._bound, min(2 * self._bound, self._max_pause)
        return random.uniform(0, bound)  # noqa: S311 - not for security

    def reset(self) -> None:
        """Start again with the shortest pauses, because a call succeeded."""
        self._bound = min(self._first, self._max_pause)


class RetryingCaller:
    """Sends requests with retries, and records the state of the registry.

    `state` is `online` after a response, `degraded` if a replica could not handle a call, `offline` if no replica could
    be reached, `unknown` before the first call.
    """

    def __init__(self, config: ClientConfig, endpoints: Endpoints, transport: HttpTransport) -> None:
        self.state: ConnectionState = "unknown"
        self._config = config
        self._endpoints = endpoints
        self._transport = transport

    async def call(
        self, request: Request, *, max_rounds: int | None = None, timeout: float | None = None, fail_fast: bool = False
    ) -> Response:
        """Send one request and return its response, of any status but 502, 503 and 504.

        Each round tries all replicas. Rounds follow after growing pauses, until `max_rounds` rounds or `timeout`
        seconds are over. A `fail_fast` call ends as soon as a replica responds that it cannot handle it. A call that is
        not repeatable is sent again only if it is known that it was not applied.

        Raises the last error, RegistryUnavailable or RegistryTimeout; its `outcome` covers all attempts.
        """
        config = self._config
        deadline = time.monotonic() + (config.timeout if timeout is None else timeout) + request.extra_timeout
        backoff = Backoff(FIRST_PAUSE_S, config.max_backoff)
        rounds_left = config.max_rounds if max_rounds is None else max_rounds
        may_be_applied = refresh = False
        while True:
            failure = await self._try_all_replicas(request, deadline, refresh=refresh)
            if isinstance(failure, Response):
                if not request.accepts_stale:
                    self.set_state("online")
                return failure
            may_be_applied |= failure.outcome == "unknown"
            rounds_left, refresh = rounds_left - 1, True
            pause = (failure.retry_after or 0.0) + backoff.next_pause()
            is_last = (
                rounds_left <= 0 or (fail_fast and failure.response is not None) or time.monotonic() + pause >= deadline
            )
            if is_last or (may_be_applied and not request.repeatable):
                failure.outcome = "unknown" if may_be_applied else "not_sent"
                self.set_state("offline" if failure.response is None else "degraded", failure)
                raise failure
            await asyncio.sleep(pause)

    async def _try_all_replicas(self, request: Request, deadline: float, *, refresh: bool) -> Response | Failure:
        """Send a request to one replica after the other; return the first response, or an error with all messages."""
        failure: Failure | None = None
        messages: list[str] = []
        may_be_applied = False
        for endpoint in await self._endpoints.order(refresh=refresh):
            if (remaining := deadline - time.monotonic()) <= 0 or (may_be_applied and not request.repeatable):
                break
            try:
                return await self._try_replica(endpoint, request, remaining)
            except (RegistryUnavailable, RegistryTimeout) as error:
                self._endpoints.demote(endpoint)
                may_be_applied |= error.outcome == "unknown"
                messages.append(str(error))
                # The response of a replica is more useful than a connection error.
                if failure is None or failure.response is None or error.response is not None:
                    failure = error
        failure = failure or RegistryTimeout("The timeout expired before a replica was tried")
        if len(messages) > 1:
            rest = f"; and {len(messages) - _MAX_SHOWN_ERRORS} more" if len(messages) > _MAX_SHOWN_ERRORS else ""
            failure.args = (f"{'; '.join(messages[:_MAX_SHOWN_ERRORS])}{rest}",)
        failure.outcome = "unknown" if may_be_applied else failure.outcome
        return failure

    async def _try_replica(self, endpoint: Endpoint, request: Request, remaining: float) -> Response:
        read_timeout = min(remaining, self._config.attempt_timeout + request.extra_timeout)
        response = await self._transport.send(endpoint, request, remaining, read_timeout)
        if response.status in UNAVAILABLE_STATUSES:
            raise unavailable_error(endpoint, response)
        self._endpoints.prefer(endpoint)
        return response

    def set_state(self, state: ConnectionState, failure: Failure | None = None) -> None:
        """Record the state of the registry, and log each change once."""
        before, self.state = self.state, state
        if state == "online" and before in ("degraded", "offline"):
            _log.info("registry_reachable")
        elif state not in ("online", before):
            _log.warning(
                "registry_unavailable error=%s" if state == "offline" else "registry_degraded error=%s", failure
            )


def parse_response(response: Response) -> dict[str, Any]:
    """Decode the body of a response or an error response. Raises InvalidResponse for any other body."""
    if response.status == _OK or response.status >= _MIN_CLIENT_ERROR:
        try:
            document = json.loads(response.body)
        except ValueError:
            document = None
        if isinstance(document, dict) and (response.status == _OK or document.get("status") == "error"):
            return document
    raise InvalidResponse(
        f"Not a registry response: status {response.status}, {response.body[:100]!r}; check the URL",
        outcome="not_sent" if _MIN_CLIENT_ERROR <= response.status < _MIN_SERVER_ERROR else "unknown",
    )


def unavailable_error(endpoint: Endpoint, response: Response) -> RegistryUnavailable:
    """Return the error for a response with status 502, 503 or 504."""
    body = _unavailable_body(response)
    message = "" if body is None else f": {body.get('message', body['status'])}"
    not_applied = body is not None and response.status == 503 and body.get("outcome") != "unknown"  # noqa: PLR2004
    return RegistryUnavailable(
        f"{endpoint.url}{response.route}: {response.status}{message}",
        outcome="not_sent" if not_applied else "unknown",
        response=body,
        retry_after=_retry_after_s(response.headers),
    )


def _unavailable_body(response: Response) -> dict[str, Any] | None:
    """Decode the body of an error response if a replica sent it; None if a load balancer sent it."""
    try:
        document = json.loads(response.body)
    except ValueError:
        return None
    return document if isinstance(document, dict) and document.get("status") in ("error", "not_ready") else None


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds in the header Retry-After, if it is a number."""
    text = headers.get("retry-after", "")
    return min(float(text), MAX_BACKOFF_S) if text.isascii() and text.isdigit() else None
