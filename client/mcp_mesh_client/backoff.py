"""Growing pauses between tries."""

import random


class Backoff:
    """Exponential backoff with full jitter, in seconds.

    Each pause is random between 0 and a bound that doubles from `first` to `max_pause`, so that clients which failed
    together do not retry together.
    """

    def __init__(self, first: float, max_pause: float) -> None:
        self._first = first
        self._max_pause = max_pause
        self._bound = min(first, max_pause)

    def next_pause(self) -> float:
        """Return the next pause."""
        bound, self._bound = self._bound, min(2 * self._bound, self._max_pause)
        return random.uniform(0, bound)  # noqa: S311 - spreads clients, guards nothing

    def reset(self) -> None:
        """Begin anew, after a success."""
        self._bound = min(self._first, self._max_pause)
