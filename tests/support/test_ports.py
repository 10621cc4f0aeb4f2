"""Tests of port selection."""

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

from tests.support.ports import BUS_OFFSET, free_port
from tests.support.source_code import ROOT

MANY = 300
# Takes that many ports and says which, then keeps what it has claimed until it is told.
TAKER = f"from tests.support.ports import free_port; print(*(free_port() for _ in range({MANY})), flush=True); input()"


def a_taker() -> subprocess.Popen[str]:
    """Start one of several processes that take ports."""
    command = [sys.executable, "-c", TAKER]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def test_no_two_processes_are_given_the_same_port() -> None:
    """Eight of them ask at the same instant, for more than one block has: each port goes to one."""
    given: list[set[str]] = []
    with contextlib.ExitStack() as stack:
        takers = [stack.enter_context(a_taker()) for _ in range(8)]
        for taker in takers:
            assert taker.stdout is not None
            given.append(set(taker.stdout.readline().split()))
        for taker in takers:
            taker.communicate("\n", timeout=10)

    assert all(given)
    assert len(set.union(*given)) == sum(map(len, given))


def test_no_outgoing_connection_is_given_one() -> None:
    """Nor one of a cluster's bus: a server that was killed finds its own again."""
    kernel = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first = int(kernel.read_text().split()[0]) if kernel.exists() else 49_152  # what IANA leaves to connections

    assert free_port() + BUS_OFFSET < first


def test_a_port_is_not_given_again_soon() -> None:
    """Whoever was killed has time to come back to it, and a port that is taken is not given at all."""
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        given = [free_port() for _ in range(90)]

        assert len(set(given)) == len(given)
        assert taken.getsockname()[1] not in [*given, *(free_port() for _ in range(90))]
