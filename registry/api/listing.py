"""GET /agents: a list, a page of it, nothing new, what comes, or the list once it has changed."""

import random
import re
import time
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from registry.api.answers import answer, listing, versions
from registry.api.packing import packed
from registry.api.parameters import bad, version
from registry.api.queries import AgentsRequest, agents_request, token
from registry.api.watch import Stream, form_of
from registry.errors import VersionTooOld
from registry.service.discovery import NEWEST, Discovery, Known
from registry.service.watching import Watching

_JITTER = 1 / 16
# How much of the history's id an ETag carries.
_HISTORY = 8
_TAG = re.compile(r'(?:W/)?"([0-9a-f]{12})-([0-9a-f]{8})-([0-9]{1,20})"')


class ListRoute:
    """Serves GET /agents in all its forms."""

    def __init__(self, discovery: Discovery, watching: Watching) -> None:
        self._discovery = discovery
        self._watching = watching

    async def list(self, request: Request) -> ASGIApp:
        """Answer with a list, 304, or a stream."""
        asked = agents_request(request.scope["query_string"])
        if asked.watch:
            return await self._watch(request, asked)
        if asked.wait is not None:
            await self._wait(asked, asked.wait)
            asked = replace(asked, freshness=NEWEST)
        found = await self._discovery.agents(
            asked.query, asked.freshness, asked.page, _known(request.headers.get("if-none-match"), asked.digest)
        )
        headers = {"etag": f'W/"{asked.digest}-{found.history[:_HISTORY]}-{found.changed}"', "vary": "accept-encoding"}
        if found.unchanged:
            return Response(status_code=304, headers=headers | versions(found.version, found.behind))
        more = None if found.more is None else token(asked.digest, found.version, found.more)
        body, coding = await packed(
            listing(found, more=more, fields=asked.fields), request.headers.get("accept-encoding", "")
        )
        if coding is not None:
            headers["content-encoding"] = coding
        return answer(body, version=found.version, behind=found.behind, headers=headers)

    async def _watch(self, request: Request, asked: AgentsRequest) -> Stream:
        if request.method == "HEAD":
            raise bad("watch", "does not go with HEAD")
        form = form_of(request.headers.get("accept", ""))
        since = asked.freshness.version
        resumed = request.headers.get("last-event-id") if form == "sse" else None
        if resumed is not None:
            since = version({"Last-Event-ID": (resumed,)}, "Last-Event-ID")
        watcher = await self._watching.open(asked.query, since or None, initial=asked.send_initial and not resumed)
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
        watcher.due = end
        try:
            while not watcher.take() and watcher.over is None and time.monotonic() < end:
                await watcher.wait()
        finally:
            watcher.close()


def _known(tag: str | None, digest: str) -> Known | None:
    """Return what a client says it has of this very query; None where it has nothing, or of another."""
    for each in (tag or "").split(","):
        found = _TAG.fullmatch(each.strip())
        if found is not None and found[1] == digest:
            return Known(found[2], int(found[3]))
    return None
