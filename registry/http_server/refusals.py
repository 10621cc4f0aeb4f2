"""`Refusal`: why the server ends a connection, and the response that it sends before."""

import json
from dataclasses import dataclass
from typing import Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from registry.api.response.security_headers import SECURITY_LINES

MAX_HEAD_BYTES: Final = 32 * 1024
"""Maximum size of a request line with its headers."""
MAX_TARGET_BYTES: Final = 16 * 1024
"""Maximum size of the target of a request: its path and query."""
MAX_HEADERS: Final = 100
"""Maximum number of headers of a request."""
_RETRY_AFTER: Final = b"retry-after: 1\r\n"


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reason why a connection ends, as in the metric, and the whole response, empty if there is none."""

    reason: str
    response: bytes = b""


def _refusal(reason: str, status: int, code: str, message: str, headers: bytes = b"") -> Refusal:
    error: dict[str, object] = {"status": "error", "error": code, "message": message, "details": [], "request_id": None}
    body = json.dumps(error, separators=(",", ":")).encode() + b"\n"
    fixed = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n" % len(body)
    return Refusal(reason, b"%s%s%s%s\r\n%s" % (STATUS_LINE[status], fixed, SECURITY_LINES, headers, body))


INVALID_REQUEST: Final = _refusal("invalid_request", 400, "malformed_request", "This is not a valid HTTP/1.1 request")
NO_HOST: Final = _refusal("invalid_request", 400, "malformed_request", "The request has no Host header; send one")
REPEATED_HEADER: Final = _refusal(
    "invalid_request", 400, "malformed_request", "Send the headers Host and Authorization only once"
)
TARGET_TOO_LONG: Final = _refusal(
    "head_too_large", 414, "request_too_large", f"The path and query exceed {MAX_TARGET_BYTES} bytes; shorten the query"
)
HEAD_TOO_LARGE: Final = _refusal(
    "head_too_large",
    431,
    "request_too_large",
    f"The request line and headers exceed {MAX_HEAD_BYTES} bytes, or there are more than {MAX_HEADERS} headers",
)
HEAD_TIMEOUT: Final = _refusal(
    "head_timeout", 408, "request_timeout", "The headers of the request were not complete within 10 s; repeat it"
)
BODY_TIMEOUT: Final = _refusal(
    "body_timeout", 408, "request_timeout", "The body arrived too slowly: send it within 30 s, or at 16 KiB/s or more"
)
TOO_MANY_PIPELINED: Final = _refusal(
    "unread_response", 400, "malformed_request", "Read the responses to earlier requests before you send more"
)
TOO_MANY_CONNECTIONS: Final = _refusal(
    "too_many_connections",
    503,
    "not_ready",
    "This replica has its maximum number of connections; retry after Retry-After, or use another replica",
    _RETRY_AFTER,
)
EVICTED: Final = Refusal("evicted")
NO_REQUEST: Final = Refusal("no_request")
TLS: Final = Refusal("tls")
UNREAD_BODY: Final = Refusal("unread_body")
UNREAD_RESPONSE: Final = Refusal("unread_response")
