"""Answers that were given before: bounded, and never changed by who got them."""

import json
import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

_MOST_BYTES = 64 * 1024 * 1024


@dataclass(slots=True)
class Held:
    """One answer as it came: its body, its ETag, when it was asked for, and how many writes came before.

    `version` is the resource version at which it was confirmed later, if it was.
    """

    body: bytes
    etag: str | None
    at: float
    writes: int
    version: str | None = None

    @property
    def age(self) -> float:
        """Seconds since it was last known to be true."""
        return time.monotonic() - self.at

    def answer(self) -> dict[str, Any]:
        """Return the answer, a new one each time."""
        read: dict[str, Any] = json.loads(self.body)
        return read if self.version is None else read | {"resource_version": self.version}

    def confirm(self, version: str | None, at: float, writes: int) -> None:
        """It is still true: at this version, as asked at this monotonic moment, after so many writes."""
        self.at, self.writes, self.version = at, writes, version or self.version


class Kept:
    """The answers used last, at most `size` of them and 64 MiB.

    An answer is for use without asking while it is younger than `ttl` seconds and this client wrote nothing since it
    asked; `writes` counts that.
    """

    def __init__(self, size: int, ttl: float) -> None:
        self._size = size
        self._ttl = ttl
        self._held: OrderedDict[Hashable, Held] = OrderedDict()
        self._bytes = 0
        self.writes = 0

    def get(self, key: Hashable) -> Held | None:
        """Return an answer, however old."""
        held = self._held.get(key)
        if held is not None:
            self._held.move_to_end(key)
        return held

    def is_good(self, held: Held) -> bool:
        """Tell whether an answer may be used without asking."""
        return held.writes == self.writes and held.age < self._ttl

    def put(self, key: Hashable, held: Held) -> None:
        """Keep an answer, in the place of an older one."""
        self.drop(key)
        if self._size == 0 or len(held.body) > _MOST_BYTES:
            return
        self._held[key] = held
        self._bytes += len(held.body)
        while len(self._held) > self._size or self._bytes > _MOST_BYTES:
            _, oldest = self._held.popitem(last=False)
            self._bytes -= len(oldest.body)

    def drop(self, key: Hashable) -> None:
        """Forget an answer."""
        held = self._held.pop(key, None)
        if held is not None:
            self._bytes -= len(held.body)

    def distrust(self) -> None:
        """This client wrote: what is kept must be asked for again before it is used."""
        self.writes += 1
