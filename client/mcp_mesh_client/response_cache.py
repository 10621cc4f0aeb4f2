"""A bounded cache of the registry's responses; callers get copies."""

import json
import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

_MAX_CACHE_BYTES = 64 * 1024 * 1024


@dataclass(slots=True)
class CachedResponse:
    """A cached response: its body, its ETag, the time of its request, and the number of writes before it.

    `version` is the resource version at which it was confirmed later, if it was.
    """

    body: bytes
    etag: str | None
    fetched_at: float
    write_count: int
    version: str | None = None

    @property
    def age(self) -> float:
        """The seconds since the registry last returned or confirmed the response."""
        return time.monotonic() - self.fetched_at

    def decode(self) -> dict[str, Any]:
        """Decode the body of the response as a new dict."""
        document: dict[str, Any] = json.loads(self.body)
        return document if self.version is None else document | {"resource_version": self.version}

    def confirm(self, version: str | None, fetched_at: float, write_count: int) -> None:
        """Record that a request sent at `fetched_at`, after `write_count` writes, found the response unchanged."""
        self.fetched_at, self.write_count, self.version = fetched_at, write_count, version or self.version


class ResponseCache:
    """A least-recently-used cache of at most `size` responses and 64 MiB.

    A response is fresh while it is younger than `ttl` seconds and this client has sent no write since its request;
    `write_count` counts the writes.
    """

    def __init__(self, size: int, ttl: float) -> None:
        self._max_entries = size
        self._ttl = ttl
        self._entries: OrderedDict[Hashable, CachedResponse] = OrderedDict()
        self._total_bytes = 0
        self.write_count: int = 0

    def get(self, key: Hashable) -> CachedResponse | None:
        """Return the cached response of any age, or None."""
        cached = self._entries.get(key)
        if cached is not None:
            self._entries.move_to_end(key)
        return cached

    def is_fresh(self, entry: CachedResponse) -> bool:
        """Return whether a cached response may be used without a request to the registry."""
        return entry.write_count == self.write_count and entry.age < self._ttl

    def put(self, key: Hashable, entry: CachedResponse) -> None:
        """Cache a response, replacing an older one with the same key."""
        self.remove(key)
        if self._max_entries == 0 or len(entry.body) > _MAX_CACHE_BYTES:
            return
        self._entries[key] = entry
        self._total_bytes += len(entry.body)
        while len(self._entries) > self._max_entries or self._total_bytes > _MAX_CACHE_BYTES:
            _, oldest = self._entries.popitem(last=False)
            self._total_bytes -= len(oldest.body)

    def remove(self, key: Hashable) -> None:
        """Remove a response from the cache."""
        cached = self._entries.pop(key, None)
        if cached is not None:
            self._total_bytes -= len(cached.body)

    def invalidate_all(self) -> None:
        """Count a write, after which no cached response is fresh."""
        self.write_count += 1
