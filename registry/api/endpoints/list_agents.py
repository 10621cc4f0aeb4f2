"""GET /agents: a list or a page of agents, a long poll, or a watch."""

import random
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from starlette.types import Receive, Scope, Send

from registry.api.endpoints.watch_stream import WatchStream, negotiate_stream_format
from registry.api.request.continue_token import encode_continue_token
from registry.api.request.query_params import header, invalid, resource_version
from registry.api.request.query_parsers import ListAgentsRequest, parse_list_agents
from registry.api.response.client_connection import get_connection
from registry.api.response.compression import compress
from registry.api.response.json_responses import agent_list_parts, version_headers
from registry.errors import VersionTooOld
from registry.service.discovery.discovery_service import LATEST, ClientVersion, Discovery
from registry.service.watch.watch_service import WatchService

_WAIT_JITTER_RATIO = 1 / 16
_MAX_JOINED_BODY_BYTES = 64 * 1024
# An ETag contains a digest of the query, the beginning of the timeline, and the version of the last change.
_ETAG_TIMELINE_CHARS = 8
_ETAG = re.compile(r'(?:W/)?"([0-9a-f]{12})-([0-9a-f]{8})-([0-9]{1,20})"')


class ListAgentsEndpoint:
    """Serves GET /agents as a plain ASGI application, which makes a 304 response cheap."""

    def __init__(self, discovery: Discovery, watch_service: WatchService) -> None:
        self._discovery = discovery
        self._watch_service = watch_service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to GET /agents with a list, with 304, or with a watch stream."""
        request = parse_list_agents(scope["query_string"])
        if request.watch:
            stream = await self._open_stream(scope, request)
            await stream(scope, receive, send)
            return
        if request.wait is not None:
            await self._wait_for_change(request, request.wait)
            request = replace(request, freshness=LATEST)
        client_version = _match_etag(header(scope, b"if-none-match"), request.digest)
        result = await self._discovery.agents(request.query, request.freshness, request.page, client_version)
        headers = {
            "etag": f'W/"{request.digest}-{result.timeline[:_ETAG_TIMELINE_CHARS]}-{result.changed_version}"',
            "vary": "accept-encoding",
        }
        headers |= version_headers(result.version, result.staleness)
        if result.unchanged:
            await _send_parts(send, 304, headers, ())
            return
        token = None
        if result.next_after is not None:
            token = encode_continue_token(request.digest, result.version, result.next_after)
        head, rows, tail = await agent_list_parts(result, continue_token=token, fields=request.fields)
        parts, coding = await compress((head, rows, tail + b"\n"), header(scope, b"accept-encoding") or "")
        if coding is not None:
            headers["content-encoding"] = coding
        headers |= {"content-type": "application/json", "content-length": str(sum(map(len, parts)))}
        await _send_parts(send, 200, headers, parts)

    async def _open_stream(self, scope: Scope, request: ListAgentsRequest) -> WatchStream:
        if scope["method"] == "HEAD":
            raise invalid("watch", "is not supported with HEAD")
        stream_format = negotiate_stream_format(header(scope, b"accept") or "")
        since = request.freshness.version
        last_event_id = header(scope, b"last-event-id") if stream_format == "sse" else None
        if last_event_id is not None:
            since = resource_version({"Last-Event-ID": (last_event_id,)}, "Last-Event-ID")
        connection = get_connection(scope)
        watcher = await self._watch_service.open(
            request.query,
            since,
            initial=request.send_initial and not last_event_id,
            on_stalled=None if connection is None else connection.abort,
        )
        return WatchStream(watcher, stream_format, request.timeout, connection)

    async def _wait_for_change(self, request: ListAgentsRequest, max_seconds: float) -> None:
        """Wait until the list differs from the version that the client has, for at most `max_seconds`.

        As in Consul, a request without a version, or with a version that is no longer in the log, does not wait.
        """
        if not request.freshness.version:
            return
        try:
            watcher = await self._watch_service.open(request.query, request.freshness.version)
        except VersionTooOld:
            return
        # Clients that start to wait at the same time should not all repeat the request at the same time.
        end = time.monotonic() + max_seconds * (1 + random.uniform(0, _WAIT_JITTER_RATIO))  # noqa: S311 - jitter, not security
        watcher.wake_at(end)
        try:
            while not watcher.take() and watcher.end_reason is None and time.monotonic() < end:
                await watcher.wait()
        finally:
            watcher.close()


async def _send_parts(send: Send, status: int, headers: Mapping[str, str], parts: Sequence[bytes]) -> None:
    """Send a short response body in one message and a long one in parts, because joining long parts is slow."""
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    *before, last = parts if sum(map(len, parts)) > _MAX_JOINED_BODY_BYTES else (b"".join(parts),)
    for part in before:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": last})


def _match_etag(if_none_match: str | None, digest: str) -> ClientVersion | None:
    """Return the list version in a client's ETag; None without an ETag, or if it belongs to another query."""
    for tag in (if_none_match or "").split(","):
        parsed = _ETAG.fullmatch(tag.strip())
        if parsed is not None and parsed[1] == digest:
            return ClientVersion(parsed[2], int(parsed[3]))
    return None
