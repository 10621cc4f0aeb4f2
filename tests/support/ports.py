"""Free loopback ports, also for processes that reuse theirs after a restart."""

import contextlib
import itertools
import socket
from collections.abc import Iterator
from functools import cache

# All ports are below the range of outgoing connections. The bus port of a cluster node is its port plus this offset.
BUS_OFFSET = 10_000
_PORT_RANGE = range(11_000, 21_000)
_PORTS_PER_PROCESS = 100


def free_port() -> int:
    """Return a free port whose bus port is also free; no connection and no other test process takes it later."""
    _, ports = _reserved_ports()
    for port in itertools.islice(ports, _PORTS_PER_PROCESS):
        with contextlib.suppress(OSError), _listen(port), _listen(port + BUS_OFFSET):
            return port
    raise AssertionError(f"every port of this process is in use, up to {port}")


@cache
def _reserved_ports() -> tuple[socket.socket, Iterator[int]]:
    """Reserve a block of ports for this process, and iterate over them; a killed server finds its port still free.

    The listening socket on the first port is the reservation: only one process can have it, and the kernel closes it
    when the process ends.
    """
    for first in _PORT_RANGE[::_PORTS_PER_PROCESS]:
        with contextlib.suppress(OSError):
            return _listen(first), itertools.cycle(range(first + 1, first + _PORTS_PER_PROCESS))
    raise AssertionError(
        f"all ports from {_PORT_RANGE.start} on are reserved: are there test processes that do not end?"
    )


def _listen(port: int) -> socket.socket:
    return socket.create_server(("127.0.0.1", port))
