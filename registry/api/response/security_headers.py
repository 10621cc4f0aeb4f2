"""The response headers for browsers: what a page may do with a response, and which pages may read it (CORS)."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from starlette.types import Send

from registry.api.response.cache_headers import Header
from registry.api.response.json_responses import send_bytes

SECURITY_HEADERS: Final[tuple[Header, ...]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)
"""The headers of every response: it is never a page, a script or a part of a page."""
SECURITY_LINES: Final = b"".join(b"%b: %b\r\n" % header for header in SECURITY_HEADERS)
"""The same headers as part of the head of a response, for responses without an application."""
_EXPOSED_HEADERS: Final[Header] = (
    b"access-control-expose-headers",
    b"etag, retry-after, www-authenticate, x-registry-stale, x-request-id, x-resource-version",
)
_ALLOWED_METHODS: Final[Header] = (b"access-control-allow-methods", b"GET, HEAD, POST, DELETE")
# Browsers ask again after this time; Chromium's maximum is two hours.
_MAX_AGE: Final[Header] = (b"access-control-max-age", b"7200")


def security_headers(page_origin: bytes | None) -> tuple[Header, ...]:
    """Return the security headers, with those that let pages of exactly this origin read the response."""
    if page_origin is None:
        return SECURITY_HEADERS
    return (*SECURITY_HEADERS, (b"access-control-allow-origin", page_origin), _EXPOSED_HEADERS)


async def send_preflight_response(send: Send, headers: Mapping[bytes, bytes]) -> None:
    """Allow an allowed origin the methods of this API with all headers it asks for; the token is checked later."""
    requested = headers.get(b"access-control-request-headers", b"")
    allowed = (_ALLOWED_METHODS, (b"access-control-allow-headers", requested), _MAX_AGE)
    await send_bytes(send, HTTPStatus.NO_CONTENT, headers=allowed, content_type=None)
