"""GET /agents: a list, a page of it, nothing new, what comes, or the list once it has changed."""

import random
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from starlette.types import Receive, Scope, Send

from registry.api.endpoints.watch_stream import Stream, form_of
from registry.api.request.queries import AgentsRequest, agents_request, token
from registry.api.request.query_params import bad, header, version
from registry.api.response.compression import packed
from registry.api.response.responses import listing, versions
from registry.errors import VersionTooOld
from registry.service.discovery.discovery import NEWEST, Discovery, Known
from registry.service.watch.watch import Watching

_JITTER = 1 / 16
_LONG = 64 * 1024
# How much of the history's id an ETag carries.
_HISTORY = 8
_TAG = re.compile(r'(?:W/)?"([0-9a-f]{12})-([0-9a-f]{8})-([0-9]{1,20})"')


class ListRoute:
    """Serves GET /agents in all its forms, as plain ASGI: where nothing is new, the answer costs little else."""

    def __init__(self, discovery: Discovery, watching: Watching) -> None:
        self._discovery = discovery
        self._watching = watching

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with a list, 304, or a stream."""
        asked = agents_request(scope["query_string"])
        if asked.watch:
            stream = await self._watch(scope, asked)
            await stream(scope, receive, send)
            return
        if asked.wait is not None:
            await self._wait(asked, asked.wait)
            asked = replace(asked, freshness=NEWEST)
        tag, accept = header(scope, b"if-none-match"), header(scope, b"accept-encoding")
        found = await self._discovery.agents(asked.query, asked.freshness, asked.page, _known(tag, asked.digest))
        headers = {"etag": f'W/"{asked.digest}-{found.history[:_HISTORY]}-{found.changed}"', "vary": "accept-encoding"}
        headers |= versions(found.version, found.behind)
        if found.unchanged:
            await _send(send, 304, headers, ())
            return
        more = None if found.more is None else token(asked.digest, found.version, found.more)
        parts, coding = await packed(listing(found, more=more, fields=asked.fields), accept or "")
        if coding is not None:
            headers["content-encoding"] = coding
        headers |= {"content-type": "application/json", "content-length": str(sum(map(len, parts)))}
        await _send(send, 200, headers, parts)

    async def _watch(self, scope: Scope, asked: AgentsRequest) -> Stream:
        if scope["method"] == "HEAD":
            raise bad("watch", "does not go with HEAD")
        form = form_of(header(scope, b"accept") or "")
        since = asked.freshness.version
        resumed = header(scope, b"last-event-id") if form == "sse" else None
        if resumed is not None:
            since = version({"Last-Event-ID": (resumed,)}, "Last-Event-ID")
        watcher = await self._watching.open(asked.query, since, initial=asked.send_initial and not resumed)
        return Stream(watcher, form, asked.timeout)

    async def _wait(self, asked: AgentsRequest, longest: float) -> None:
        """Wait until the answer is another than it was at the version asked for, at most so many seconds.

        As Consul has it: without a version, or with one that is not in the log any more, there is nothing to wait for.
        """
        if not asked.freshness.version:
            return
        try:
            watcher = await self._watching.open(asked.query, asked.freshness.version)
        except VersionTooOld:
            return
        # Those who began to wait together should not all come back together.
        end = time.monotonic() + longest * (1 + random.uniform(0, _JITTER))  # noqa: S311 - spreads, guards nothing
        watcher.wake_at(end)
        try:
            while not watcher.take() and watcher.over is None and time.monotonic() < end:
                await watcher.wait()
        finally:
            watcher.close()


async def _send(send: Send, status: int, headers: Mapping[str, str], parts: Sequence[bytes]) -> None:
    """Send a short body at once and a long one part by part: to join it once more would take as long as to send it."""
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    *before, last = parts if sum(map(len, parts)) > _LONG else (b"".join(parts),)
    for part in before:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": last})


def _known(tag: str | None, digest: str) -> Known | None:
    """Return what a client says it has of this very query; None where it has nothing, or of another."""
    for each in (tag or "").split(","):
        found = _TAG.fullmatch(each.strip())
        if found is not None and found[1] == digest:
            return Known(found[2], int(found[3]))
    return None
