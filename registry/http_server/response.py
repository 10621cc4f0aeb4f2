"""`HttpResponse`: uvicorn's response to one request, with a head that costs half as much."""

from collections.abc import Coroutine
from typing import Any, Final

from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

_BODILESS_STATUSES: Final = (204, 304)


class HttpResponse(RequestResponseCycle):
    """uvicorn's request and response without its two regular expressions for each header.

    The names of headers must be in lower case. Raises RuntimeError for a header with a line break.
    """

    def send(self, message: Message) -> Coroutine[Any, Any, None]:  # type: ignore[override]
        """Send one message of the response over ASGI."""
        if message["type"] != "http.response.start" or self.response_started or self.flow.write_paused:
            return RequestResponseCycle.send(self, message)  # type: ignore[arg-type]
        return self._send_head(message)

    async def _send_head(self, message: Message) -> None:
        if self.disconnected:
            return
        self.response_started, self.waiting_for_100_continue = True, False
        status = message["status"]
        lines = [STATUS_LINE[status]]
        closes = False
        for header in (*self.default_headers, *message["headers"]):
            if header[0] == b"content-length":
                self.expected_content_length, self.chunked_encoding = int(header[1]), False
            elif header[0] == b"connection":
                closes = True
            lines.append(b"%b: %b\r\n" % header)
        if closes:
            self.keep_alive = False
        elif not self.keep_alive:
            lines.append(b"connection: close\r\n")
        if self.chunked_encoding is None and self.scope["method"] != "HEAD" and status not in _BODILESS_STATUSES:
            self.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        head = b"".join(lines)
        if head.count(b"\r") != len(lines) or head.count(b"\n") != len(lines):
            raise RuntimeError("A header of the response contains a line break")
        self.transport.write(head)
