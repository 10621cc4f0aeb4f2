"""Selects the request and response headers that the proxy forwards."""

from collections.abc import Collection, Iterable
from typing import Final

Headers = list[tuple[bytes, bytes]]

# Content negotiation, tracing of mcp-mesh, and the MCP protocol.
_REQUEST_HEADERS: Final = frozenset(
    {
        *(b"content-type", b"accept"),
        *(b"x-trace-id", b"x-parent-span", b"x-mesh-timeout", b"x-mesh-job-id"),
        *(b"mcp-session-id", b"mcp-protocol-version", b"last-event-id"),
    }
)
_REQUEST_HEADER_PREFIXES: Final = (b"x-mesh-calling-",)
# Headers that apply to one connection, not to the forwarded call.
_HOP_BY_HOP_HEADERS: Final = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"),
        *(b"te", b"trailer", b"transfer-encoding", b"upgrade"),
    }
)
_BLOCKED_REQUEST_HEADERS: Final = _HOP_BY_HOP_HEADERS | {
    b"host",
    b"content-length",
    b"accept-encoding",
    b"expect",
    b"cookie",
}
# A browser attributes an agent's response to the registry's origin. An agent must not set cookies or policies for that
# origin, nor run a page in it.
_BLOCKED_RESPONSE_HEADERS: Final = _HOP_BY_HOP_HEADERS | {
    *(b"set-cookie", b"date", b"server", b"x-request-id"),
    *(b"strict-transport-security", b"clear-site-data", b"alt-svc"),
    *(b"content-security-policy", b"x-content-type-options"),
}
_SANDBOX_HEADERS: Final = ((b"content-security-policy", b"sandbox"), (b"x-content-type-options", b"nosniff"))
_BODILESS_STATUSES: Final = frozenset({204, 304})


class HeaderPolicy:
    """Selects the headers that the proxy forwards; `extra` are names or prefixes with `*`, `blocked` never pass."""

    def __init__(self, extra: Iterable[str], blocked: Collection[bytes] = ()) -> None:
        names = [name.lower().encode() for name in extra]
        self._names = _REQUEST_HEADERS.union(name for name in names if not name.endswith(b"*"))
        self._prefixes = (*_REQUEST_HEADER_PREFIXES, *(name[:-1] for name in names if name.endswith(b"*")))
        self._blocked = _BLOCKED_REQUEST_HEADERS.union(blocked)

    def request(self, headers: Iterable[tuple[bytes, bytes]]) -> Headers:
        """Return the request headers to send to an agent; names are in lower case."""
        return [
            (name, value)
            for name, value in headers
            if (name in self._names or name.startswith(self._prefixes)) and name not in self._blocked
        ]

    def response(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> Headers:
        """Return the response headers to send to the caller, with names in lower case."""
        lowered = [(name.lower(), value) for name, value in headers]
        dropped = {
            part.strip().lower() for name, value in lowered if name == b"connection" for part in value.split(b",")
        }
        if status in _BODILESS_STATUSES or any(name == b"transfer-encoding" for name, _ in lowered):
            # The content-length does not describe this body.
            dropped.add(b"content-length")
        return [
            *((name, value) for name, value in lowered if name not in _BLOCKED_RESPONSE_HEADERS | dropped),
            *_SANDBOX_HEADERS,
        ]
