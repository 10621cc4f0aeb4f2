"""Free loopback ports, also for processes that keep theirs over a restart."""

import contextlib
import itertools
import socket
from collections.abc import Iterator
from functools import cache

# All below those that kernels give to outgoing connections. As far above each as this is the bus of a cluster node.
BUS_OFFSET = 10_000
_PORT_RANGE = range(11_000, 21_000)
_PORTS_PER_PROCESS = 100


def free_port() -> int:
    """Return a port nobody listens on, nor on its bus: no connection and no other process of tests takes it later."""
    _, ports = _claimed_ports()
    for port in itertools.islice(ports, _PORTS_PER_PROCESS):
        with contextlib.suppress(OSError), _listen(port), _listen(port + BUS_OFFSET):
            return port
    raise AssertionError(f"somebody listens on every port of ours, up to {port}")


@cache
def _claimed_ports() -> tuple[socket.socket, Iterator[int]]:
    """Claim a block of ports for this process, to be given in turn: who is killed finds his own free for long.

    The socket on the first of them is the claim: the kernel grants it to one, and takes it back however that one ends.
    """
    for first in _PORT_RANGE[::_PORTS_PER_PROCESS]:
        with contextlib.suppress(OSError):
            return _listen(first), itertools.cycle(range(first + 1, first + _PORTS_PER_PROCESS))
    raise AssertionError(f"all ports from {_PORT_RANGE.start} on are claimed: are there tests that do not end?")


def _listen(port: int) -> socket.socket:
    return socket.create_server(("127.0.0.1", port))
