"""`ConnectionTable`: the open connections of a listener, their number and their deadlines."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from registry.http_server.refusals import EVICTED, TLS, Refusal
from registry.telemetry.logs import get_logger

log = get_logger(__name__)

_TICK_INTERVAL_S: Final = 1.0
_LOG_INTERVAL_TICKS: Final = 60
# Connections above the limit that stay open for a moment, so that their clients receive the response.
_MAX_OVER_LIMIT: Final = 16


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Maximum numbers of open connections: of a listener, and of one client address (None: no limit)."""

    connections: int = 20_000
    per_address: int | None = None


class TrackedConnection(Protocol):
    """Interface of a connection to the table."""

    next_check: int
    groups: "tuple[ConnectionGroup, ...]"

    def check(self, now: int) -> None:
        """Close the connection if a deadline has passed, and set `next_check`."""

    def abort(self) -> None:
        """Close the connection at once."""


class ConnectionGroup:
    """Connections with a common limit; `idle` has those without a request in progress, idle longest first."""

    __slots__ = ("idle", "limit", "size")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self.idle: OrderedDict[TrackedConnection, None] = OrderedDict()


class ConnectionTable:
    """The open connections of one listener, and the clock of their deadlines.

    The clock counts the seconds in which the event loop runs: bytes that wait while the loop is blocked are not late.
    One sweep a second serves all connections, so a request starts no timer. `count_refused` receives the reason of each
    connection that is refused; the log has their number at most once a minute.
    """

    def __init__(self, limits: ConnectionLimits, count_refused: Callable[[str], None]) -> None:
        self.now = 0
        self._limits = limits
        self._count_refused = count_refused
        self._all = ConnectionGroup(limits.connections)
        self._by_address: dict[str, ConnectionGroup] = {}
        self._connections: set[TrackedConnection] = set()
        self._refused: Counter[str] = Counter()
        self._logged_at = -_LOG_INTERVAL_TICKS
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._connections)

    def start(self) -> None:
        """Start the sweep."""
        self._timer = asyncio.get_running_loop().call_later(_TICK_INTERVAL_S, self._run)

    def stop(self) -> None:
        """Stop the sweep, abort the connections that are left, and log the last refused ones."""
        if self._timer is not None:
            self._timer.cancel()
        for connection in tuple(self._connections):
            connection.abort()
        self._log_refused()

    def _run(self) -> None:
        self.start()
        self.tick()

    def tick(self) -> None:
        """Advance the clock by a second, and check the connections that are due."""
        self.now += 1
        now = self.now
        for connection in tuple(self._connections):
            if connection.next_check <= now:
                connection.check(now)
        if now - self._logged_at >= _LOG_INTERVAL_TICKS:
            self._log_refused()

    def admit(self, connection: TrackedConnection, address: str | None) -> bool:
        """Add a connection, idle; at a limit abort the one that is idle longest, or return False if none is idle.

        The table also contains a connection that it does not admit, until it is removed.
        """
        self._connections.add(connection)
        groups = [self._all]
        if self._limits.per_address is not None and address is not None:
            groups.insert(0, self._by_address.get(address) or ConnectionGroup(self._limits.per_address))
        for group in groups:
            if group.size >= group.limit:
                if not group.idle:
                    return False
                oldest = next(iter(group.idle))
                self._leave(oldest)
                self.count(EVICTED)
                oldest.abort()
        for group in groups:
            group.size += 1
        if len(groups) > 1 and address is not None:
            self._by_address[address] = groups[0]
        connection.groups = tuple(groups)
        self.enter_idle(connection)
        return True

    def remove(self, connection: TrackedConnection, address: str | None) -> None:
        """Remove a closed connection."""
        self._connections.discard(connection)
        self._leave(connection)
        if address in self._by_address and not self._by_address[address].size:
            del self._by_address[address]

    def _leave(self, connection: TrackedConnection) -> None:
        self.leave_idle(connection)
        for group in connection.groups:
            group.size -= 1
        connection.groups = ()

    def enter_idle(self, connection: TrackedConnection) -> None:
        """Note that no request of a connection is in progress from now on."""
        for group in connection.groups:
            group.idle[connection] = None

    def leave_idle(self, connection: TrackedConnection) -> None:
        """Note that a request of a connection is in progress."""
        for group in connection.groups:
            group.idle.pop(connection, None)

    @property
    def crowded(self) -> bool:
        """Whether too many connections above the limit are open to let another one wait for its client."""
        return len(self._connections) - self._all.size > _MAX_OVER_LIMIT

    def count(self, refusal: Refusal) -> None:
        """Count a refused connection, for the metric and the log."""
        self._refused[refusal.reason] += 1
        self._count_refused(refusal.reason)

    def _log_refused(self) -> None:
        if self._refused:
            # Some clients always try TLS first, so that alone is no reason to warn.
            write = log.warning if self._refused.keys() - {TLS.reason} else log.info
            write("connections_refused", **self._refused)
            self._refused.clear()
            self._logged_at = self.now
