"""`HttpProtocol`: uvicorn's HTTP protocol with limits on bytes and time, which also ignores upgrade offers."""

from collections import deque
from typing import Any, Final, NoReturn

import httptools

from registry.api.response.client_connection import CONNECTION_EXTENSION
from registry.http_server.connection_table import ConnectionTable
from registry.http_server.limited_connection import LimitedConnection, Phase
from registry.http_server.refusals import (
    HEAD_TOO_LARGE,
    INVALID_REQUEST,
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    MAX_TARGET_BYTES,
    NO_HOST,
    REPEATED_HEADER,
    TARGET_TOO_LONG,
    TLS,
    TOO_MANY_PIPELINED,
    UNREAD_BODY,
    Refusal,
)
from registry.http_server.response import HttpResponse

# Larger data is parsed in parts: a part creates a bounded number of requests, and a head ends near its limit.
_MAX_PART_BYTES: Final = 16 * 1024
_MAX_UNPARSED_BYTES: Final = 1024 * 1024
# The body of a request that has its response already is discarded up to this size, the largest that any path accepts.
_MAX_UNREAD_BODY_BYTES: Final = 16 * 1024 * 1024
# The first bytes of a TLS handshake, sent by a client that expects HTTPS.
_TLS_RECORD_PREFIX: Final = b"\x16\x03"
# Health checks of load balancers in HTTP/1.0 have no Host header.
_CHECK_PATHS: Final = (b"/health", b"/ready")
_CHECKED_HEADERS: Final = frozenset({b"host", b"authorization", b"expect"})


class HttpProtocol(LimitedConnection):
    """uvicorn's HTTP protocol with limits, without upgrades, and with access to the connection for streams.

    Java's HTTP client and `curl --http2` offer HTTP/2 with their requests. httptools stops after the head of such a
    request, so uvicorn alone would lose its body.
    """

    __slots__ = ("_failure", "_has_authorization", "_has_host", "_progressed", "_unreported_bytes")

    def __init__(self, table: ConnectionTable, **arguments: Any) -> None:
        super().__init__(table, **arguments)
        # The reason why the parser was stopped.
        self._failure: Refusal | None = None
        # Bytes since the parser last reported a head, a part of a body, or the end of a request.
        self._unreported_bytes = 0
        self._progressed = self._has_host = self._has_authorization = False

    def data_received(self, data: bytes) -> None:
        """Parse bytes, or discard those after a refused request; close a connection that begins with TLS."""
        if self._refusal is not None:
            self.discard(len(data))
        elif not self._received_request and data.startswith(_TLS_RECORD_PREFIX):
            self._table.count(TLS)
            self.transport.close()
        elif self._unparsed or len(data) > _MAX_PART_BYTES:
            self._unparsed += data
            self._parse_parts()
        else:
            self._parse(data)

    def _parse_parts(self) -> None:
        """Parse the received bytes in parts, until a request waits for the response to an earlier one."""
        data, self._unparsed = memoryview(self._unparsed), b""
        start = 0
        while start < len(data) and not self.pipeline and self._refusal is None:
            self._parse(data[start : start + _MAX_PART_BYTES])
            start += _MAX_PART_BYTES
        if self._refusal is None and start < len(data):
            self._unparsed = bytes(data[start:])
            self.flow.pause_reading()
            if len(self._unparsed) > _MAX_UNPARSED_BYTES:
                self.reject(TOO_MANY_PIPELINED)

    def _parse(self, data: bytes | memoryview) -> None:
        self._progressed = False
        try:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as stop:
                self._continue_without_upgrade(memoryview(data)[stop.args[0] :])
        except httptools.HttpParserError:
            self.reject(self._failure or INVALID_REQUEST)
        else:
            if self._progressed:
                self._unreported_bytes = 1 if self._is_head_open else 0
            else:
                self._unreported_bytes += len(data)
                if self._unreported_bytes > MAX_HEAD_BYTES:
                    self.reject(HEAD_TOO_LARGE)

    def _continue_without_upgrade(self, rest: memoryview) -> None:
        """Parse the head of a request again without its upgrade offer, and then `rest`, the bytes after this head."""
        while self._should_upgrade():
            self._parse_head_without_offer()
            try:
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as stop:
                rest = rest[stop.args[0] :]
            else:
                return

    def _should_upgrade(self) -> bool:
        """Return whether the parsed head offers an upgrade; then uvicorn does not start the request."""
        return self.parser.get_method() != b"CONNECT"

    def _parse_head_without_offer(self) -> None:
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [b"%s: %s" % (name, value) for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(b"\r\n".join([*lines, b"", b""]))

    def _fail(self, refusal: Refusal) -> NoReturn:
        """Stop the parser from one of its callbacks."""
        self._failure = refusal
        raise ValueError(refusal.reason)

    def on_message_begin(self) -> None:
        """Start the deadline of a head, unless the response to an earlier request is in progress."""
        self._received_request = self._is_head_open = True
        self._has_host = self._has_authorization = False
        if self._active is None:
            self._phase = Phase.HEAD
            self._since = self._table.now
        self.url, self.headers, self.expect_100_continue = b"", [], False

    def on_url(self, url: bytes) -> None:
        """Append a part of the target, up to its limit."""
        self.url += url
        if len(self.url) > MAX_TARGET_BYTES:
            self._fail(TARGET_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Append a header; ignore the trailers of a body."""
        if self._is_body_open:
            return
        name = name.lower()
        if name in _CHECKED_HEADERS:
            self._check_header(name, value)
        if len(self.headers) >= MAX_HEADERS:
            self._fail(HEAD_TOO_LARGE)
        self.headers.append((name, value))

    def _check_header(self, name: bytes, value: bytes) -> None:
        if name == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"
        elif (self._has_host and name == b"host") or (self._has_authorization and name == b"authorization"):
            self._fail(REPEATED_HEADER)
        elif name == b"host":
            self._has_host = True
        else:
            self._has_authorization = True

    def on_headers_complete(self) -> None:
        """Start the request, or queue it behind an earlier one."""
        self._progressed = True
        # A head within one part is below the limit.
        if self._unreported_bytes and self._head_size() > MAX_HEAD_BYTES:
            self._fail(HEAD_TOO_LARGE)
        if not self._has_host and not self._is_health_check():
            self._fail(NO_HOST)
        self._create_scope()
        if self._active is not None and not self.pipeline:
            self.pipeline = deque()
        super().on_headers_complete()
        if self.parser.should_upgrade() and self._should_upgrade():
            return
        # uvicorn creates the response without a hook for its class; its task starts later.
        self.cycle.__class__ = HttpResponse
        self._is_head_open, self._is_body_open = False, True
        if self._active is None:
            self.activate(self.cycle)

    def _create_scope(self) -> None:
        """Create the scope of a request, which takes more memory than the rest of a connection with half a head."""
        url, headers, expects_continue = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expects_continue
        self.scope["headers"] = headers
        self.scope["extensions"] = {CONNECTION_EXTENSION: self}  # type: ignore[dict-item]

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + len(b": \r\n") for name, value in self.headers)

    def _is_health_check(self) -> bool:
        return self.parser.get_http_version() == "1.0" and self.url.partition(b"?")[0] in _CHECK_PATHS

    def on_body(self, body: bytes) -> None:
        """Pass a part of a body to its request; a body whose response was sent already is discarded up to a size."""
        self._progressed = True
        self._body_bytes += len(body)
        if self._active is None and self._body_bytes > _MAX_UNREAD_BODY_BYTES:
            self._fail(UNREAD_BODY)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the deadline of a body."""
        self._progressed = True
        self._is_body_open = False
        super().on_message_complete()
        if self._phase is Phase.BODY:
            if self._active is None:
                self.wait_for_request()
            else:
                self._phase = Phase.RESPONSE

    def on_response_complete(self) -> None:
        """Start the next request, or wait for one."""
        self.server_state.total_requests += 1
        self._active = None
        if self.transport.is_closing():
            return
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self.activate(cycle)
            self._start_asgi_task(cycle, app)
        elif self.end_refused():
            return
        if self._unparsed:
            self._parse_parts()
        if not self.responding and self._refusal is None:
            self.wait_for_request()
            self.flow.resume_reading()
