"""Selects the request and response headers that the proxy forwards."""

import re
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
# origin, open it to other origins, ask for a password in its name, nor run a page in it.
_RESPONSE_HEADERS: Final = frozenset(
    {b"content-type", b"content-length", b"content-encoding", b"cache-control", b"x-accel-buffering"}
)
_RESPONSE_HEADER_PREFIXES: Final = (b"mcp-", b"x-mesh-")
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_AUTH_PARAM = rb"%s[ \t]*=[ \t]*(?:%s|\"(?:[^\"\\]|\\.)*\")" % (_TOKEN, _TOKEN)
# One challenge of the scheme Bearer, and no second one.
_BEARER_CHALLENGE: Final = re.compile(
    rb"bearer(?:[ \t]+%s(?:[ \t]*,[ \t]*%s)*)?" % (_AUTH_PARAM, _AUTH_PARAM), re.IGNORECASE
)
# In addition to the policy of every response.
_SANDBOX_HEADER: Final = (b"content-security-policy", b"sandbox")
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
            *((name, value) for name, value in lowered if name not in dropped and _may_respond(name, value)),
            _SANDBOX_HEADER,
        ]


def _may_respond(name: bytes, value: bytes) -> bool:
    """Return whether the proxy forwards a header of a response."""
    if name == b"www-authenticate":
        return _BEARER_CHALLENGE.fullmatch(value.strip()) is not None
    return name in _RESPONSE_HEADERS or name.startswith(_RESPONSE_HEADER_PREFIXES)
