"""GET /agents: a list, a page of it, nothing new, what comes, or the list once it has changed."""

import random
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from starlette.types import Receive, Scope, Send

from registry.api.endpoints.watch_stream import WatchStream, negotiate_stream_format
from registry.api.request.queries import ListAgentsRequest, encode_continue_token, parse_list_agents
from registry.api.request.query_params import header, invalid, resource_version
from registry.api.response.compression import compress
from registry.api.response.connection import get_connection
from registry.api.response.responses import agent_list_parts, version_headers
from registry.errors import VersionTooOld
from registry.service.discovery.discovery import LATEST, ClientVersion, Discovery
from registry.service.watch.watch import WatchService

_WAIT_JITTER_RATIO = 1 / 16
_MAX_JOINED_BODY_BYTES = 64 * 1024
# How much of the history's id an ETag carries.
_ETAG_TIMELINE_CHARS = 8
_ETAG = re.compile(r'(?:W/)?"([0-9a-f]{12})-([0-9a-f]{8})-([0-9]{1,20})"')


class ListAgentsEndpoint:
    """Serves GET /agents in all its forms, as plain ASGI: where nothing is new, the answer costs little else."""

    def __init__(self, discovery: Discovery, watch_service: WatchService) -> None:
        self._discovery = discovery
        self._watch_service = watch_service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with a list, 304, or a stream."""
        asked = parse_list_agents(scope["query_string"])
        if asked.watch:
            stream = await self._open_stream(scope, asked)
            await stream(scope, receive, send)
            return
        if asked.wait is not None:
            await self._wait_for_change(asked, asked.wait)
            asked = replace(asked, freshness=LATEST)
        tag, accept = header(scope, b"if-none-match"), header(scope, b"accept-encoding")
        found = await self._discovery.agents(asked.query, asked.freshness, asked.page, _match_etag(tag, asked.digest))
        headers = {
            "etag": f'W/"{asked.digest}-{found.timeline[:_ETAG_TIMELINE_CHARS]}-{found.changed_version}"',
            "vary": "accept-encoding",
        }
        headers |= version_headers(found.version, found.staleness)
        if found.unchanged:
            await _send_parts(send, 304, headers, ())
            return
        more = (
            None if found.next_after is None else encode_continue_token(asked.digest, found.version, found.next_after)
        )
        parts, coding = await compress(agent_list_parts(found, continue_token=more, fields=asked.fields), accept or "")
        if coding is not None:
            headers["content-encoding"] = coding
        headers |= {"content-type": "application/json", "content-length": str(sum(map(len, parts)))}
        await _send_parts(send, 200, headers, parts)

    async def _open_stream(self, scope: Scope, request: ListAgentsRequest) -> WatchStream:
        if scope["method"] == "HEAD":
            raise invalid("watch", "is not supported with HEAD")
        form = negotiate_stream_format(header(scope, b"accept") or "")
        since = request.freshness.version
        resumed = header(scope, b"last-event-id") if form == "sse" else None
        if resumed is not None:
            since = resource_version({"Last-Event-ID": (resumed,)}, "Last-Event-ID")
        connection = get_connection(scope)
        watcher = await self._watch_service.open(
            request.query,
            since,
            initial=request.send_initial and not resumed,
            on_stalled=None if connection is None else connection.abort,
        )
        return WatchStream(watcher, form, request.timeout, connection)

    async def _wait_for_change(self, request: ListAgentsRequest, max_seconds: float) -> None:
        """Wait until the answer is another than it was at the version asked for, at most so many seconds.

        As Consul has it: without a version, or with one that is not in the log any more, there is nothing to wait for.
        """
        if not request.freshness.version:
            return
        try:
            watcher = await self._watch_service.open(request.query, request.freshness.version)
        except VersionTooOld:
            return
        # Those who began to wait together should not all come back together.
        end = time.monotonic() + max_seconds * (1 + random.uniform(0, _WAIT_JITTER_RATIO))  # noqa: S311 - spreads, guards nothing
        watcher.wake_at(end)
        try:
            while not watcher.take() and watcher.end_reason is None and time.monotonic() < end:
                await watcher.wait()
        finally:
            watcher.close()


async def _send_parts(send: Send, status: int, headers: Mapping[str, str], parts: Sequence[bytes]) -> None:
    """Send a short body at once and a long one part by part: to join it once more would take as long as to send it."""
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    *before, last = parts if sum(map(len, parts)) > _MAX_JOINED_BODY_BYTES else (b"".join(parts),)
    for part in before:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": last})


def _match_etag(if_none_match: str | None, digest: str) -> ClientVersion | None:
    """Return what a client says it has of this very query; None where it has nothing, or of another."""
    for each in (if_none_match or "").split(","):
        found = _ETAG.fullmatch(each.strip())
        if found is not None and found[1] == digest:
            return ClientVersion(found[2], int(found[3]))
    return None
