"""Answers that were given before: bounded, and never changed by who got them."""

import json
import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

_MAX_CACHE_BYTES = 64 * 1024 * 1024


@dataclass(slots=True)
class CachedResponse:
    """One answer as it came: its body, its ETag, when it was asked for, and how many writes came before.

    `version` is the resource version at which it was confirmed later, if it was.
    """

    body: bytes
    etag: str | None
    fetched_at: float
    write_count: int
    version: str | None = None

    @property
    def age(self) -> float:
        """Seconds since it was last known to be true."""
        return time.monotonic() - self.fetched_at

    def decode(self) -> dict[str, Any]:
        """Return the answer, a new one each time."""
        read: dict[str, Any] = json.loads(self.body)
        return read if self.version is None else read | {"resource_version": self.version}

    def confirm(self, version: str | None, fetched_at: float, write_count: int) -> None:
        """It is still true: at this version, as asked at this monotonic moment, after so many writes."""
        self.fetched_at, self.write_count, self.version = fetched_at, write_count, version or self.version


class ResponseCache:
    """The answers used last, at most `size` of them and 64 MiB.

    An answer is for use without asking while it is younger than `ttl` seconds and this client wrote nothing since it
    asked; `write_count` counts that.
    """

    def __init__(self, size: int, ttl: float) -> None:
        self._max_entries = size
        self._ttl = ttl
        self._entries: OrderedDict[Hashable, CachedResponse] = OrderedDict()
        self._total_bytes = 0
        self.write_count: int = 0

    def get(self, key: Hashable) -> CachedResponse | None:
        """Return an answer, however old."""
        held = self._entries.get(key)
        if held is not None:
            self._entries.move_to_end(key)
        return held

    def is_fresh(self, entry: CachedResponse) -> bool:
        """Tell whether an answer may be used without asking."""
        return entry.write_count == self.write_count and entry.age < self._ttl

    def put(self, key: Hashable, entry: CachedResponse) -> None:
        """Keep an answer, in the place of an older one."""
        self.remove(key)
        if self._max_entries == 0 or len(entry.body) > _MAX_CACHE_BYTES:
            return
        self._entries[key] = entry
        self._total_bytes += len(entry.body)
        while len(self._entries) > self._max_entries or self._total_bytes > _MAX_CACHE_BYTES:
            _, oldest = self._entries.popitem(last=False)
            self._total_bytes -= len(oldest.body)

    def remove(self, key: Hashable) -> None:
        """Forget an answer."""
        held = self._entries.pop(key, None)
        if held is not None:
            self._total_bytes -= len(held.body)

    def invalidate_all(self) -> None:
        """This client wrote: what is kept must be asked for again before it is used."""
        self.write_count += 1
