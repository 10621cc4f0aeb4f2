"""`LimitedConnection`: uvicorn's HTTP protocol with deadlines, and with an orderly end for refused requests."""

import asyncio
from collections import deque
from enum import Enum
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from registry.config.value_types import client_key
from registry.http_server.connection_table import ConnectionGroup, ConnectionTable
from registry.http_server.refusals import (
    BODY_TIMEOUT,
    HEAD_TIMEOUT,
    NO_REQUEST,
    TOO_MANY_CONNECTIONS,
    UNREAD_RESPONSE,
    Refusal,
)

KEEP_ALIVE_S: Final = 75
"""How long a connection may be idle between two requests: longer than load balancers keep it, so that they close it."""
_FIRST_REQUEST_S: Final = 10
_HEAD_S: Final = 10
_BODY_S: Final = 30
_MIN_BODY_BYTES_PER_S: Final = 16 * 1024
_RESPONSE_S: Final = 60
# How long a refused client may take to read the response; its other bytes are discarded up to this size.
_LINGER_S: Final = 2
_MAX_LINGER_BYTES: Final = 256 * 1024
# A connection is checked at least this often, so only an earlier deadline has to set the time of the next check.
_MAX_CHECK_INTERVAL_S: Final = 10
_NO_REQUESTS: Final[deque[Any]] = deque(maxlen=0)
# Shared by all connections that may be written to: an event of its own takes 760 bytes.
_WRITABLE: Final = asyncio.Event()
_WRITABLE.set()


class Phase(Enum):
    """What a connection waits for."""

    REQUEST = "the first byte of a request"
    HEAD = "the end of the headers"
    BODY = "the end of the body"
    RESPONSE = "the end of the response"
    FLUSH = "the client to read the response"
    LINGER = "the client to read the reason of a refusal"
    CLOSING = "the client to read the last response"


_LIMITS_S: Final = {
    Phase.REQUEST: KEEP_ALIVE_S,
    Phase.HEAD: _HEAD_S,
    Phase.FLUSH: _RESPONSE_S,
    Phase.LINGER: _LINGER_S,
    Phase.CLOSING: _RESPONSE_S,
}


class LimitedConnection(HttpToolsProtocol):
    """uvicorn's HTTP protocol with deadlines, which the connection table checks.

    A refused request gets its response after those to earlier requests, and then the connection ends.
    """

    # Attributes in slots take less memory: a connection without a request costs only a few kilobytes.
    __slots__ = (
        "_active",
        "_blocked_since",
        "_body_bytes",
        "_discarded_bytes",
        "_is_body_open",
        "_is_head_open",
        "_phase",
        "_received_request",
        "_refusal",
        "_since",
        "_table",
        "_unparsed",
        "groups",
        "next_check",
    )

    def __init__(self, table: ConnectionTable, **arguments: Any) -> None:
        super().__init__(**arguments)
        # An empty deque takes 600 bytes; one is created when a request has to wait.
        self.pipeline = _NO_REQUESTS
        self.groups: tuple[ConnectionGroup, ...] = ()
        self.next_check = table.now + _FIRST_REQUEST_S
        self._table = table
        self._phase = Phase.REQUEST
        self._since = table.now
        # The request whose response is in progress; requests behind it are in uvicorn's `pipeline`.
        self._active: RequestResponseCycle | None = None
        self._refusal: Refusal | None = None
        self._blocked_since: int | None = None
        # Received bytes that are parsed after the response in progress.
        self._unparsed = b""
        self._body_bytes = self._discarded_bytes = 0
        self._received_request = self._is_head_open = self._is_body_open = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Add the connection to the table, or refuse it at the limit."""
        super().connection_made(transport)
        self.flow._is_writable_event = _WRITABLE  # noqa: SLF001 - of uvicorn, which offers no other way
        if not self._table.admit(self, self._address):
            self._table.count(TOO_MANY_CONNECTIONS)
            self._linger(TOO_MANY_CONNECTIONS.response)
            if self._table.crowded:
                transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the request in progress."""
        self._table.remove(self, self._address)
        if self._active is not None:
            _disconnect(self._active)
        self.pipeline = _NO_REQUESTS
        super().connection_lost(exc)

    @property
    def _address(self) -> str | None:
        return client_key(self.client[0]) if self.client else None

    @property
    def responding(self) -> bool:
        """Whether the response to a request is in progress."""
        return self._active is not None

    def pause_writing(self) -> None:
        """Start the deadline of a response that the client does not read."""
        self._blocked_since = self._table.now
        self.flow._is_writable_event = asyncio.Event()  # noqa: SLF001 - as above
        super().pause_writing()

    def resume_writing(self) -> None:
        """End the deadline of a response that the client did not read."""
        self._blocked_since = None
        super().resume_writing()

    def shutdown(self) -> None:
        """Close the connection after the response in progress."""
        if self._phase is Phase.LINGER:
            self.transport.abort()
        else:
            super().shutdown()

    def writable(self) -> bool:
        """Whether the next part of a response can be written without waiting for the client."""
        return not self.flow.write_paused and not self.transport.is_closing()

    def abort(self) -> None:
        """Close the connection at once."""
        self.transport.abort()

    def activate(self, cycle: RequestResponseCycle) -> None:
        """Note that the response to a request is in progress, and that its body may follow."""
        self._active = cycle
        self._phase = Phase.BODY if cycle.more_body else Phase.RESPONSE
        self._since = self._table.now
        self._body_bytes = 0
        self._table.leave_idle(self)

    def wait_for_request(self) -> None:
        """Note that no request is in progress; a response may be unread, or the rest of a body to be discarded."""
        self._table.enter_idle(self)
        if self._is_body_open:
            return
        self._since = self._table.now
        if self._is_head_open:
            self._phase = Phase.HEAD
        elif self.transport.get_write_buffer_size():
            self._phase = Phase.FLUSH
            self._table.leave_idle(self)
        else:
            self._phase = Phase.REQUEST

    def check(self, now: int) -> None:
        """Close the connection if its deadline has passed, and set the time of the next check."""
        if self.transport.is_closing() and self._phase is not Phase.CLOSING:
            self._phase, self._since = Phase.CLOSING, now
        due = self._deadline(now)
        self.next_check = min(due, now + _MAX_CHECK_INTERVAL_S) if due > now else now + _LINGER_S
        if due <= now:
            self._expire(now)

    def _deadline(self, now: int) -> int:
        """Return the time at which the connection is closed; later than `now` if there is no limit."""
        phase, active = self._phase, self._active
        if self._blocked_since is not None and active is not None and not active.chunked_encoding:
            return self._blocked_since + _RESPONSE_S
        if phase is Phase.RESPONSE:
            return now + _MAX_CHECK_INTERVAL_S
        if phase is Phase.BODY:
            if self.flow.read_paused:  # the registry does not read, so the client is not late
                self._since, self._body_bytes = now, 0
            return self._since + max(_BODY_S, self._body_bytes // _MIN_BODY_BYTES_PER_S)
        if phase is Phase.REQUEST and not self._received_request:
            return self._since + _FIRST_REQUEST_S
        return self._since + _LIMITS_S[phase]

    def _expire(self, now: int) -> None:
        phase = self._phase
        if phase is Phase.HEAD:
            self.reject(HEAD_TIMEOUT)
        elif phase is Phase.BODY and self._blocked_since is None:
            self.reject(BODY_TIMEOUT)
        elif phase is Phase.REQUEST:
            if not self._received_request:
                self._table.count(NO_REQUEST)
            self.transport.close()
        elif phase is Phase.FLUSH and not self.transport.get_write_buffer_size():
            self.wait_for_request()
            self.next_check = now + _MAX_CHECK_INTERVAL_S
        else:
            if phase is not Phase.LINGER and self.transport.get_write_buffer_size():
                self._table.count(UNREAD_RESPONSE)
            self.transport.abort()

    def reject(self, refusal: Refusal) -> None:
        """Refuse the request that is being received, after the responses to earlier ones, and discard what follows."""
        self._table.count(refusal)
        self._refusal, self._unparsed = refusal, b""
        if self._is_body_open and self.pipeline:
            self.pipeline.popleft()
        elif self._is_body_open and self._active is not None:
            cycle, self._active = self._active, None
            _disconnect(cycle)
            if cycle.response_started:
                self.transport.abort()
                return
        elif self._is_body_open:
            self._linger(b"")
            return
        if self._active is None:
            self._linger(refusal.response)

    def end_refused(self) -> bool:
        """End a connection whose last response before a refused request is complete; return whether it was refused."""
        if self._refusal is None:
            return False
        self._linger(self._refusal.response)
        return True

    def _linger(self, response: bytes) -> None:
        """Send the last response, and wait for a moment until the client has read it.

        Closing at once would reset the connection if bytes of the client are unread, and the client would lose the
        response.
        """
        self._refusal = self._refusal or TOO_MANY_CONNECTIONS
        # Nothing is parsed any more; the parts of a refused head take up to 50 kB.
        self.parser, self.url, self.headers = None, b"", []  # type: ignore[assignment]
        self._phase = Phase.LINGER
        self._since = self._table.now
        self.next_check = self._since + _LINGER_S
        self._table.enter_idle(self)
        if response:
            self.transport.write(response)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()

    def discard(self, size: int) -> None:
        """Count bytes that follow a refused request; above a limit they are not read."""
        self._discarded_bytes += size
        if self._discarded_bytes > _MAX_LINGER_BYTES:
            self.flow.pause_reading()


def _disconnect(cycle: RequestResponseCycle) -> None:
    """Make a request end as if its client had disconnected."""
    cycle.disconnected = True
    cycle.message_event.set()
