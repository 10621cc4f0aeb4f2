"""The client connection of a request, for streams that depend on whether the client reads."""

from typing import Final, Protocol

from starlette.types import Scope

CONNECTION_EXTENSION: Final = "mcp_mesh_registry.connection"
"""The key in `scope["extensions"]` under which the HTTP server passes the connection."""
NO_BUFFERING_HEADER: Final = (b"x-accel-buffering", b"no")
"""The header that makes nginx forward a stream at once; without it, nginx buffers the response."""


class Connection(Protocol):
    """Interface to a client connection, with operations for streams that ASGI does not offer."""

    def writable(self) -> bool:
        """Return whether the connection accepts data now, without waiting for the client to read."""

    def abort(self) -> None:
        """Close the client connection at once, without finishing the response."""


def get_connection(scope: Scope) -> Connection | None:
    """Return the client connection of a request; None if the HTTP server does not provide it."""
    connection: Connection | None = scope.get("extensions", {}).get(CONNECTION_EXTENSION)
    return connection
