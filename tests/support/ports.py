"""Ports for processes that cannot tell which one they took."""

import socket


def free_port() -> int:
    """Return a loopback port nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
