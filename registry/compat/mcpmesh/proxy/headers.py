"""Which headers of a call and of its answer are passed on."""

from collections.abc import Collection, Iterable
from typing import Final

Headers = list[tuple[bytes, bytes]]

# The call's own, what the mesh tells of it, and what the MCP protocol is spoken with.
_REQUEST_HEADERS: Final = frozenset(
    {
        *(b"content-type", b"accept"),
        *(b"x-trace-id", b"x-parent-span", b"x-mesh-timeout", b"x-mesh-job-id"),
        *(b"mcp-session-id", b"mcp-protocol-version", b"last-event-id"),
    }
)
_REQUEST_HEADER_PREFIXES: Final = (b"x-mesh-calling-",)
# What speaks of one connection, not of the call.
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
# To a browser what an agent answers comes from the registry, whose own these are to say: a cookie or a promise would
# be the registry's, and so would a page be, with all that it may do there.
_BLOCKED_RESPONSE_HEADERS: Final = _HOP_BY_HOP_HEADERS | {
    *(b"set-cookie", b"date", b"server", b"x-request-id"),
    *(b"strict-transport-security", b"clear-site-data", b"alt-svc"),
    *(b"content-security-policy", b"x-content-type-options"),
}
_SANDBOX_HEADERS: Final = ((b"content-security-policy", b"sandbox"), (b"x-content-type-options", b"nosniff"))
_BODILESS_STATUSES: Final = frozenset({204, 304})


class HeaderPolicy:
    """Picks headers. `extra` are names of further ones that are passed on to agents, or beginnings of names with `*`.

    `blocked` are never, whatever `extra` says.
    """

    def __init__(self, extra: Iterable[str], blocked: Collection[bytes] = ()) -> None:
        names = [name.lower().encode() for name in extra]
        self._names = _REQUEST_HEADERS.union(name for name in names if not name.endswith(b"*"))
        self._prefixes = (*_REQUEST_HEADER_PREFIXES, *(name[:-1] for name in names if name.endswith(b"*")))
        self._blocked = _BLOCKED_REQUEST_HEADERS.union(blocked)

    def request(self, headers: Iterable[tuple[bytes, bytes]]) -> Headers:
        """Return what an agent is to see of a call's headers, whose names are in lower case."""
        return [
            (name, value)
            for name, value in headers
            if (name in self._names or name.startswith(self._prefixes)) and name not in self._blocked
        ]

    def response(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> Headers:
        """Return what the caller is to see of an answer's headers, names in lower case."""
        lowered = [(name.lower(), value) for name, value in headers]
        named = {part.strip().lower() for name, value in lowered if name == b"connection" for part in value.split(b",")}
        if status in _BODILESS_STATUSES or any(name == b"transfer-encoding" for name, _ in lowered):
            # It is not the length of what comes.
            named.add(b"content-length")
        return [
            *((name, value) for name, value in lowered if name not in _BLOCKED_RESPONSE_HEADERS | named),
            *_SANDBOX_HEADERS,
        ]
