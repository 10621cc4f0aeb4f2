"""A complete copy of a mesh's change log, which survives trimming and data loss in Redis."""

import contextlib
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from registry.model.change import Change
from registry.store.record_codec import decode_change
from tests.support.http_calls import REQUEST_TIMEOUT_S
from tests.support.watch_recorder import UnbrokenLog

LOG_KEY, TIMELINE_KEY = "{mesh}:log", "{mesh}:timeline"
# Before a server is killed or flushed, writes pause for this time while the log is read.
_PAUSE_WRITES_MS = 20_000
# How often `reading` reads.
READ_INTERVAL_S = 0.05


class ChangeLogRecorder:
    """Records the log of the mesh in the Redis at a URL. `entries_removed` is true after a trim or a loss."""

    def __init__(self, url: str) -> None:
        self.entries_removed = False
        self.timelines: list[bytes] = []
        self.redis = redis.Redis.from_url(url, socket_timeout=REQUEST_TIMEOUT_S, retry=Retry(NoBackoff(), 0))
        self._logs: list[dict[int, Change]] = [{}]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.redis.close()

    @property
    def logs(self) -> list[UnbrokenLog]:
        """The logs of all timelines so far, the current one last."""
        return [UnbrokenLog([log[version] for version in sorted(log)]) for log in self._logs if log]

    def read(self) -> None:
        """Read the entries since the last read."""
        recorded = self._logs[-1]
        since = f"({max(recorded)}-0" if recorded else "-"
        with self.redis.pipeline(transaction=True) as pipeline:
            pipeline.get(TIMELINE_KEY)
            pipeline.xrange(LOG_KEY, min=since)
            timeline, entries = pipeline.execute()
        if timeline and (not self.timelines or self.timelines[-1] != timeline):
            self.timelines.append(timeline)
        self._record_entries(entries)

    def trim(self, max_entries: int) -> None:
        """Read the log and trim it, atomically."""
        self._read_then_execute(("XTRIM", LOG_KEY, "MAXLEN", max_entries))

    def flush(self) -> None:
        """Read the log and delete all data, atomically."""
        self._read_then_execute(("FLUSHALL",))
        self._logs.append({})

    def read_and_pause_writes(self) -> None:
        """Read the log a last time and block writes until the server is killed."""
        self._read_then_execute(("CLIENT", "PAUSE", _PAUSE_WRITES_MS, "WRITE"))

    def start_new_log(self) -> None:
        """Start another log, because the server lost its data."""
        self.entries_removed = True
        self._logs.append({})

    def disable_notifications(self) -> None:
        """Disable keyspace events on the server."""
        self.redis.config_set("notify-keyspace-events", "")

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Read repeatedly in a separate thread during the block, so that no entry is trimmed unread."""
        stop_requested = threading.Event()

        def read_until_stopped() -> None:
            while not stop_requested.wait(READ_INTERVAL_S):
                self.read()

        thread = threading.Thread(target=read_until_stopped)
        thread.start()
        try:
            yield
        finally:
            stop_requested.set()
            thread.join()

    def server_time_ms(self) -> int:
        """The server's time in milliseconds."""
        seconds, microseconds = self.redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    def _read_then_execute(self, command: tuple[Any, ...]) -> None:
        self.read()
        with self.redis.pipeline(transaction=True) as pipeline:
            pipeline.xrange(LOG_KEY)
            pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
            self._record_entries(pipeline.execute()[0])
        self.entries_removed = self.entries_removed or command[0] != "CLIENT"

    def _record_entries(self, entries: Any) -> None:
        for entry_id, fields in entries:
            change = decode_change((entry_id, [part for pair in fields.items() for part in pair]))
            self._logs[-1][change.version] = change
