"""`HttpProtocol`: uvicorn's HTTP protocol, adapted to the clients of the registry."""

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from registry.api.response.client_connection import CONNECTION_EXTENSION

# The first bytes of a TLS handshake, sent by a client that expects HTTPS.
_TLS_RECORD_PREFIX = b"\x16\x03"


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which also ignores upgrade offers and gives streaming responses their connection.

    Java's HTTP client and `curl --http2` offer HTTP/2 with their requests. httptools stops after the head of such a
    request, so uvicorn alone would lose its body.
    """

    _received_request = False

    def data_received(self, data: bytes) -> None:
        """Receive bytes; close a connection that begins with TLS, without uvicorn's warning."""
        if not self._received_request and data.startswith(_TLS_RECORD_PREFIX):
            self.transport.close()
            return
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            self._continue_without_upgrade(memoryview(data)[stop.args[0] :])
        except httptools.HttpParserError:
            self._reject_request()

    def _continue_without_upgrade(self, rest: memoryview) -> None:
        """Parse the head of a request again without its upgrade offer, and then `rest`, the bytes after this head."""
        try:
            while self._should_upgrade():
                self._parse_head_without_offer()
                try:
                    self.parser.feed_data(rest)
                except httptools.HttpParserUpgrade as stop:
                    rest = rest[stop.args[0] :]
                else:
                    return
        except httptools.HttpParserError:
            self._reject_request()

    def _reject_request(self) -> None:
        message = "Invalid HTTP request received."
        self.logger.warning(message)
        self.send_400_response(message)

    def _should_upgrade(self) -> bool:
        """Return whether the parsed head offers an upgrade; then uvicorn does not start the request."""
        return self.parser.get_method() != b"CONNECT"

    def _parse_head_without_offer(self) -> None:
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [b"%s: %s" % (name, value) for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(b"\r\n".join([*lines, b"", b""]))

    def on_message_begin(self) -> None:
        self._received_request = True
        super().on_message_begin()
        self.scope["extensions"] = {CONNECTION_EXTENSION: self}  # type: ignore[dict-item]

    def writable(self) -> bool:
        """Whether the next part of a response can be written without waiting for the client."""
        return not self.flow.write_paused and not self.transport.is_closing()

    def abort(self) -> None:
        """Close the connection at once."""
        self.transport.abort()
