"""Ports for processes that cannot tell which one they took, or that keep theirs over a restart."""

import contextlib
import secrets
import socket

# Below those that kernels give to outgoing connections, of which tests make many; above those of stores under test.
_PORTS = range(22_000, 32_000)


def free_port() -> int:
    """Return a loopback port nobody listens on now, and no outgoing connection takes later."""
    while True:
        # Not `random`: the suite seeds it alike in every worker, and all would try the same ports.
        port = secrets.choice(_PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
