"""Which headers of a call and of its answer are passed on."""

from collections.abc import Collection, Iterable
from typing import Final

Headers = list[tuple[bytes, bytes]]

# The call's own, what the mesh tells of it, and what the MCP protocol is spoken with.
_ASKED: Final = frozenset(
    {
        *(b"content-type", b"accept"),
        *(b"x-trace-id", b"x-parent-span", b"x-mesh-timeout", b"x-mesh-job-id"),
        *(b"mcp-session-id", b"mcp-protocol-version", b"last-event-id"),
    }
)
_ASKED_PREFIXES: Final = (b"x-mesh-calling-",)
# What speaks of one connection, not of the call.
_OF_A_CONNECTION: Final = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"),
        *(b"te", b"trailer", b"transfer-encoding", b"upgrade"),
    }
)
_NEVER_ASKED: Final = _OF_A_CONNECTION | {b"host", b"content-length", b"accept-encoding", b"expect", b"cookie"}
# To a browser what an agent answers comes from the registry, whose own these are to say: a cookie or a promise would
# be the registry's, and so would a page be, with all that it may do there.
_NEVER_ANSWERED: Final = _OF_A_CONNECTION | {
    *(b"set-cookie", b"date", b"server", b"x-request-id"),
    *(b"strict-transport-security", b"clear-site-data", b"alt-svc"),
    *(b"content-security-policy", b"x-content-type-options"),
}
_NO_PAGE: Final = ((b"content-security-policy", b"sandbox"), (b"x-content-type-options", b"nosniff"))
_WITHOUT_BODY: Final = frozenset({204, 304})


class Passing:
    """Picks headers. `more` are names of further ones that are passed on to agents, or beginnings of names with `*`.

    `withheld` are never, whatever `more` says.
    """

    def __init__(self, more: Iterable[str], withheld: Collection[bytes] = ()) -> None:
        names = [name.lower().encode() for name in more]
        self._names = _ASKED.union(name for name in names if not name.endswith(b"*"))
        self._prefixes = (*_ASKED_PREFIXES, *(name[:-1] for name in names if name.endswith(b"*")))
        self._withheld = _NEVER_ASKED.union(withheld)

    def asked(self, headers: Iterable[tuple[bytes, bytes]]) -> Headers:
        """Return what an agent is to see of a call's headers, whose names are in lower case."""
        return [
            (name, value)
            for name, value in headers
            if (name in self._names or name.startswith(self._prefixes)) and name not in self._withheld
        ]

    def answered(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> Headers:
        """Return what the caller is to see of an answer's headers, names in lower case."""
        lowered = [(name.lower(), value) for name, value in headers]
        named = {part.strip().lower() for name, value in lowered if name == b"connection" for part in value.split(b",")}
        if status in _WITHOUT_BODY or any(name == b"transfer-encoding" for name, _ in lowered):
            # It is not the length of what comes.
            named.add(b"content-length")
        return [*((name, value) for name, value in lowered if name not in _NEVER_ANSWERED | named), *_NO_PAGE]
