"""The client connection below a request, for responses that must know whether the client reads."""

from typing import Final, Protocol

from starlette.types import Scope

CONNECTION_EXTENSION: Final = "mcp_mesh_registry.connection"
"""The key in `scope["extensions"]` under which the HTTP server passes the connection."""
NO_BUFFERING_HEADER: Final = (b"x-accel-buffering", b"no")
"""The header that makes nginx forward a stream at once; without it, nginx buffers the response."""


class Connection(Protocol):
    """What a streamed response needs from the connection, beyond ASGI."""

    def writable(self) -> bool:
        """Return whether a message sent now is written without waiting for the client."""

    def abort(self) -> None:
        """Close the connection at once, without finishing the response."""


def get_connection(scope: Scope) -> Connection | None:
    """Return the connection of a request; None below a server that does not pass it."""
    connection: Connection | None = scope.get("extensions", {}).get(CONNECTION_EXTENSION)
    return connection
