"""Reads that degrade: fresh, else from a replica's memory, else from what was answered before."""

import time
from dataclasses import replace
from typing import Any

from mcp_mesh_client.config import ClientConfig
from mcp_mesh_client.errors import RegistryTimeout, RegistryUnavailable
from mcp_mesh_client.response_cache import CachedResponse, ResponseCache
from mcp_mesh_client.retry import Failure, RetryingCaller, parse_response
from mcp_mesh_client.transport import Request, Response

_OK, _NOT_MODIFIED = 200, 304
# Seconds that a second way to an answer has at least, however long the first took.
_MIN_FALLBACK_S = 1.0
STALE_SECONDS = "stale_seconds"


class CachedReader:
    """Makes reads, and keeps their answers."""

    def __init__(self, caller: RetryingCaller, cache: ResponseCache, config: ClientConfig) -> None:
        self._caller = caller
        self._cache = cache
        self._config = config

    async def read(self, request: Request, stale_request: Request, *, use_cache: bool = True) -> dict[str, Any]:
        """Return an answer or a refusal; one that may be old tells how old, as `stale_seconds`.

        `stale_request` asks the same of whatever a replica holds; it is asked where no replica can be fresh. Do not
        `use_cache` what is another answer each time. Raises RegistryUnavailable or RegistryTimeout where nothing is
        left to answer from.
        """
        key = request.path, request.query, request.body
        held = self._cache.get(key) if use_cache else None
        if held is not None and self._cache.is_fresh(held):
            return held.decode()
        began, writes = time.monotonic(), self._cache.write_count
        if held is not None and held.etag is not None:
            request = replace(request, headers={"if-none-match": held.etag})
        try:
            reply = await self._caller.call(request, fail_fast=True)
        except (RegistryUnavailable, RegistryTimeout) as failure:
            reply_or_answer = await self._fall_back(failure, request, stale_request, held, began)
            if not isinstance(reply_or_answer, Response):
                return reply_or_answer
            reply = reply_or_answer
        if held is not None and reply.status == _NOT_MODIFIED:
            held.confirm(reply.headers.get("x-resource-version"), began, writes)
            return held.decode()
        answer = parse_response(reply)
        if reply.status == _OK and use_cache:
            self._cache.put(key, CachedResponse(reply.body, reply.headers.get("etag"), began, writes))
        else:
            self._cache.remove(key)
        return answer

    async def _fall_back(
        self,
        failure: Failure,
        request: Request,
        stale_request: Request,
        cached: CachedResponse | None,
        started_at: float,
    ) -> dict[str, Any] | Response:
        """Answer without a replica that could be fresh; where one may be soon, wait for its reply."""
        if failure.response is not None:
            try:
                reply = await self._caller.call(
                    replace(stale_request, accepts_stale=True), max_rounds=1, timeout=self._remaining(started_at)
                )
            except (RegistryUnavailable, RegistryTimeout) as worse:
                failure = worse
            else:
                age = {STALE_SECONDS: float(reply.headers.get("x-registry-stale", 0))} if reply.status == _OK else {}
                return parse_response(reply) | age
        if cached is not None and cached.age <= self._config.offline_ttl:
            return cached.decode() | {STALE_SECONDS: round(cached.age, 1)}
        if failure.response is None:
            raise failure
        return await self._caller.call(request, timeout=self._remaining(started_at))

    def _remaining(self, started_at: float) -> float:
        return max(_MIN_FALLBACK_S, self._config.timeout - (time.monotonic() - started_at))
