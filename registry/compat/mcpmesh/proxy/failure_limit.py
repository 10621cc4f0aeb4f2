"""Limits failed calls through the proxy, so that a caller cannot scan hosts and ports with it."""

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from registry.concurrency.lru import WeightedLru
from registry.config.value_types import client_key

MAX_FAILURES: Final = 10
"""Maximum number of failed calls of one client address within a minute."""
_WINDOW_S: Final = 60.0
_MAX_CLIENTS: Final = 10_000


class FailureLimit:
    """Counts failed calls by client address; the addresses of one IPv6 /64 network count as one client."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: WeightedLru[str, deque[float]] = WeightedLru(_MAX_CLIENTS)

    def retry_after(self, client: str) -> int | None:
        """Return the whole seconds until a client may call again; None if it may call now."""
        failures = self._failures.get(client_key(client))
        if failures is None or len(failures) < MAX_FAILURES:
            return None
        remaining = failures[0] + _WINDOW_S - self._clock()
        return math.ceil(remaining) if remaining > 0 else None

    def record_failure(self, client: str) -> None:
        """Count one failed call of a client."""
        key = client_key(client)
        failures = self._failures.get(key) or deque(maxlen=MAX_FAILURES)
        failures.append(self._clock())
        self._failures.put(key, failures, 1)
