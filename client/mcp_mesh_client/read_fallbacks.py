"""Reads with fallbacks: a fresh response, then a stale one of a replica, then one from the client's cache."""

import time
from dataclasses import replace
from typing import Any

from mcp_mesh_client.config import ClientConfig
from mcp_mesh_client.errors import RegistryTimeout, RegistryUnavailable
from mcp_mesh_client.response_cache import CachedResponse, ResponseCache
from mcp_mesh_client.retry import Failure, RetryingCaller, parse_response
from mcp_mesh_client.transport import Request, Response

_OK, _NOT_MODIFIED = 200, 304
# The minimum time for a fallback, even if the first attempt used up the timeout.
_MIN_FALLBACK_S = 1.0
STALE_SECONDS = "stale_seconds"


class CachedReader:
    """Sends read requests, caches the responses, and falls back to stale responses."""

    def __init__(self, caller: RetryingCaller, cache: ResponseCache, config: ClientConfig) -> None:
        self._caller = caller
        self._cache = cache
        self._config = config

    async def read(self, request: Request, stale_request: Request, *, use_cache: bool = True) -> dict[str, Any]:
        """Return a response or an error response; a response that may be outdated has its age as `stale_seconds`.

        `stale_request` reads the same from the cache of a replica; it is sent if no replica can give a fresh
        response. Pass `use_cache=False` for reads whose response differs each time. Raises RegistryUnavailable or
        RegistryTimeout if there is no response and no cached one.
        """
        key = request.path, request.query, request.body
        cached_response = self._cache.get(key) if use_cache else None
        if cached_response is not None and self._cache.is_fresh(cached_response):
            return cached_response.decode()
        started_at, writes = time.monotonic(), self._cache.write_count
        if cached_response is not None and cached_response.etag is not None:
            request = replace(request, headers={"if-none-match": cached_response.etag})
        try:
            response = await self._caller.call(request, fail_fast=True)
        except (RegistryUnavailable, RegistryTimeout) as failure:
            fallback = await self._fall_back(failure, request, stale_request, cached_response, started_at)
            if not isinstance(fallback, Response):
                return fallback
            response = fallback
        if cached_response is not None and response.status == _NOT_MODIFIED:
            cached_response.confirm(response.headers.get("x-resource-version"), started_at, writes)
            return cached_response.decode()
        document = parse_response(response)
        if response.status == _OK and use_cache:
            self._cache.put(key, CachedResponse(response.body, response.headers.get("etag"), started_at, writes))
        else:
            self._cache.remove(key)
        return document

    async def _fall_back(
        self,
        failure: Failure,
        request: Request,
        stale_request: Request,
        cached: CachedResponse | None,
        started_at: float,
    ) -> dict[str, Any] | Response:
        """Return a response that may be stale, or the response of a replica that becomes ready in time."""
        if failure.response is not None:
            try:
                response = await self._caller.call(
                    replace(stale_request, accepts_stale=True), max_rounds=1, timeout=self._remaining(started_at)
                )
            except (RegistryUnavailable, RegistryTimeout) as stale_failure:
                failure = stale_failure
            else:
                age = (
                    {STALE_SECONDS: float(response.headers.get("x-registry-stale", 0))}
                    if response.status == _OK
                    else {}
                )
                return parse_response(response) | age
        if cached is not None and cached.age <= self._config.offline_ttl:
            return cached.decode() | {STALE_SECONDS: round(cached.age, 1)}
        if failure.response is None:
            raise failure
        return await self._caller.call(request, timeout=self._remaining(started_at))

    def _remaining(self, started_at: float) -> float:
        return max(_MIN_FALLBACK_S, self._config.timeout - (time.monotonic() - started_at))
