"""The headers that prevent caches from serving outdated responses, or responses to another caller."""

from typing import Final

Header = tuple[bytes, bytes]

NO_CACHE: Final[Header] = (b"cache-control", b"no-cache")
"""The header of a response that anyone may read: a cache must ask the registry before each use."""
_PRIVATE: Final[Header] = (b"cache-control", b"private, no-cache")
_NO_STORE: Final[Header] = (b"cache-control", b"no-store")


def varying_cache_headers(headers: list[Header], vary: bytes, *, token_accepted: bool) -> tuple[Header, Header]:
    """Return the cache headers for a response with these headers that depends on the request headers in `vary`.

    A Vary header among them is moved into the result. No shared cache may store a response to a token; the client
    itself may store one with an ETag, which it can revalidate.
    """
    control = _NO_STORE if token_accepted else NO_CACHE
    # A copy, because the loop removes a header.
    for header in (*headers,):
        if header[0] == b"vary":
            vary = b"%s, %s" % (header[1], vary)
            headers.remove(header)
        elif header[0] == b"etag" and token_accepted:
            control = _PRIVATE
    return control, (b"vary", vary)
