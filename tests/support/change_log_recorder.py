"""Everything that was ever in a mesh's change log, read before it is taken away: what the recorded is held against."""

import time
from types import TracebackType
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from registry.model.change import Change
from registry.store.codec import change_from
from tests.support.watch_recorder import Past

LOG, HISTORY = "{mesh}:log", "{mesh}:history"
# A server that is to die or to forget holds back who writes for so long, in milliseconds, while it is asked.
_HOLD_MS = 20_000
# How often a log that is kept short is read, in seconds.
READ_EVERY = 0.05


class Truth:
    """The log of the mesh in the store at a URL. `taken` tells whether any of it was taken away."""

    def __init__(self, url: str) -> None:
        self.taken = False
        self.histories: list[bytes] = []
        self.redis = redis.Redis.from_url(url, socket_timeout=10, retry=Retry(NoBackoff(), 0))
        self._logs: list[dict[int, Change]] = [{}]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.redis.close()

    @property
    def pasts(self) -> list[Past]:
        """The histories there were, the present one last."""
        return [Past([log[version] for version in sorted(log)]) for log in self._logs if log]

    def read(self) -> None:
        """Read what the log got since the last time."""
        known = self._logs[-1]
        since = f"({max(known)}-0" if known else "-"
        with self.redis.pipeline(transaction=True) as both:
            both.get(HISTORY)
            both.xrange(LOG, min=since)
            history, entries = both.execute()
        if history and (not self.histories or self.histories[-1] != history):
            self.histories.append(history)
        self._note(entries)

    def trim(self, keep: int) -> None:
        """Read the log and cut it, with nothing between the two."""
        self._last_words(("XTRIM", LOG, "MAXLEN", keep))

    def flush(self) -> None:
        """Read the log and forget everything, with nothing between the two."""
        self._last_words(("FLUSHALL",))
        self._logs.append({})

    def hush(self) -> None:
        """Read the log for the last time before the server dies: it takes no write after that."""
        self._last_words(("CLIENT", "PAUSE", _HOLD_MS, "WRITE"))

    def forget(self) -> None:
        """Note that the server came back without what it had."""
        self.taken = True
        self._logs.append({})

    def silence_the_bell(self) -> None:
        """Let the server announce nothing any more."""
        self.redis.config_set("notify-keyspace-events", "")

    def follow(self, seconds: float) -> None:
        """Read again and again, so that nothing is trimmed unread; to be called in a thread of its own."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.read()
            time.sleep(READ_EVERY)

    def now(self) -> int:
        """The server's time in milliseconds."""
        seconds, micro = self.redis.time()
        return int(seconds) * 1000 + int(micro) // 1000

    def _last_words(self, command: tuple[Any, ...]) -> None:
        self.read()
        with self.redis.pipeline(transaction=True) as both:
            both.xrange(LOG)
            both.execute_command(*command)  # type: ignore[no-untyped-call]
            self._note(both.execute()[0])
        self.taken = self.taken or command[0] != "CLIENT"

    def _note(self, entries: Any) -> None:
        for entry_id, fields in entries:
            change = change_from((entry_id, [part for pair in fields.items() for part in pair]))
            self._logs[-1][change.version] = change
