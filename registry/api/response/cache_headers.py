"""The headers that prevent caches from serving outdated responses, or responses to another caller."""

from typing import Final

Header = tuple[bytes, bytes]

NO_CACHE: Final[Header] = (b"cache-control", b"no-cache")
"""The header of a response that anyone may read: a cache must ask the registry before each use."""
_PRIVATE: Final[Header] = (b"cache-control", b"private, no-cache")
_NO_STORE: Final[Header] = (b"cache-control", b"no-store")
_VARY: Final[Header] = (b"vary", b"authorization")


def add_private_cache_headers(headers: list[Header], *, token_accepted: bool) -> None:
    """Add the headers of a response that depends on the caller's token, which a shared cache must not store.

    Only a response with an ETag is worth storing by the client itself, because it can be revalidated.
    """
    names = [name for name, _ in headers]
    if b"vary" in names:
        position = names.index(b"vary")
        headers[position] = (b"vary", b"%s, authorization" % headers[position][1])
    else:
        headers.append(_VARY)
    headers.append(NO_CACHE if not token_accepted else _PRIVATE if b"etag" in names else _NO_STORE)
