"""Measures how late the event loop runs."""

import time
from collections.abc import Callable
from typing import Final

TICK_INTERVAL_S: Final = 0.25
"""Seconds between two calls of `LoopLag.tick`."""
# A shorter delay is usual: other callbacks ran first.
_MIN_LAG_S: Final = 0.1
_PERIOD_S: Final = 30.0


class LoopLag:
    """The delays of the event loop of this process, measured on `clock`, monotonic seconds.

    Schedule `tick` every TICK_INTERVAL_S; the time by which a call is late is a delay of the loop.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = clock() + TICK_INTERVAL_S
        self._total_s = 0.0
        self._period_start = clock()
        self._longest_s = self._longest_before_s = 0.0

    async def tick(self) -> None:
        """Record the delay since the last call."""
        now = self._clock()
        late = self._late_at(now)
        self._total_s += late
        self._due = now + TICK_INTERVAL_S
        if now - self._period_start >= _PERIOD_S:
            is_recent = now - self._period_start < 2 * _PERIOD_S
            self._longest_before_s = self._longest_s if is_recent else 0.0
            self._longest_s, self._period_start = 0.0, now
        self._longest_s = max(self._longest_s, late)

    def total_s(self) -> float:
        """Return the sum of all delays in seconds, with one that is not over yet."""
        return self._total_s + self._late_at(self._clock())

    def longest_s(self) -> float:
        """Return the longest delay of the last 30 to 60 seconds, in seconds."""
        return max(self._longest_s, self._longest_before_s, self._late_at(self._clock()))

    def _late_at(self, now: float) -> float:
        late = now - self._due
        return late if late > _MIN_LAG_S else 0.0
