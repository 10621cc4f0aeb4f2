"""Changes of a JSON body before it is sent: indentation for people, and a final newline."""

from collections.abc import Callable, Sequence
from typing import Final

import orjson
from starlette.types import Message, Scope, Send

from registry.api.request.query_params import boolean

# Indenting takes about 10 ms per MiB, and blocks the event loop meanwhile.
_MAX_REWRITTEN_BYTES: Final = 2 * 1024 * 1024
_PARAMETER: Final = b"pretty"


class JsonRewriter:
    """An ASGI send function that changes JSON bodies; streams and long or compressed bodies pass unchanged."""

    def __init__(self, send: Send, rewrite: Callable[[bytes], bytes]) -> None:
        self._send = send
        self._rewrite = rewrite
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        """Send one message of the response, or keep it until the body is complete."""
        if message["type"] == "http.response.start" and _is_rewritable(message["headers"]):
            self._start, self._body = message, b""
        elif self._start is None:
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._send_rewritten(self._start)

    async def _send_rewritten(self, start: Message) -> None:
        body = self._rewrite(self._body) if self._body else b""
        others = [header for header in start["headers"] if header[0] != b"content-length"]
        await self._send({**start, "headers": [*others, (b"content-length", b"%d" % len(body))]})
        await self._send({"type": "http.response.body", "body": body})


def choose_sender(scope: Scope, send: Send) -> Send:
    """Return `send`, or a sender that indents JSON if the query string has `pretty=true`. Raises MalformedRequest.

    Every path accepts this parameter, so it is removed. An indented response is not compressed.
    """
    if not _take_flag(scope):
        return send
    scope["headers"] = [header for header in scope["headers"] if header[0] != b"accept-encoding"]
    return JsonRewriter(send, _indent)


def _take_flag(scope: Scope) -> bool:
    pairs = [parameter.partition(b"=") for parameter in scope["query_string"].split(b"&")]
    scope["query_string"] = b"&".join(b"".join(pair) for pair in pairs if pair[0] != _PARAMETER)
    values = [value.decode("latin-1") or "true" for name, _, value in pairs if name == _PARAMETER]
    return boolean({"pretty": values}, "pretty")


def _indent(body: bytes) -> bytes:
    return orjson.dumps(orjson.loads(body), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _is_rewritable(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    found = dict(headers)
    return (
        found.get(b"content-type") == b"application/json"
        and b"content-encoding" not in found
        and int(found.get(b"content-length", _MAX_REWRITTEN_BYTES + 1)) <= _MAX_REWRITTEN_BYTES
    )
