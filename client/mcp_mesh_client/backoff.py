"""Growing pauses between tries."""

import random


class Backoff:
    """Exponential, with full jitter: each pause is random between 0 and a bound that doubles from `first` to `most`.

    Clients that failed together come back one by one. Seconds.
    """

    def __init__(self, first: float, most: float) -> None:
        self._first = first
        self._most = most
        self._bound = min(first, most)

    def pause(self) -> float:
        """Return the next pause."""
        bound, self._bound = self._bound, min(2 * self._bound, self._most)
        return random.uniform(0, bound)  # noqa: S311 - spreads clients, guards nothing

    def reset(self) -> None:
        """Begin anew, after a success."""
        self._bound = min(self._first, self._most)
