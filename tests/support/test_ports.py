"""Tests of port selection."""

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

from tests.support.ports import BUS_OFFSET, free_port
from tests.support.source_code import ROOT

PORT_COUNT = 300
# Prints that many free ports, then keeps its reservation until it receives a line.
PROGRAM = (
    f"from tests.support.ports import free_port; print(*(free_port() for _ in range({PORT_COUNT})), flush=True); "
    "input()"
)


def start_port_user() -> subprocess.Popen[str]:
    """Start a process that takes free ports."""
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def test_no_two_processes_receive_the_same_port() -> None:
    """Eight processes take more ports than one block has, all at the same time."""
    ports: list[set[str]] = []
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(start_port_user()) for _ in range(8)]
        for process in processes:
            assert process.stdout is not None
            ports.append(set(process.stdout.readline().split()))
        for process in processes:
            process.communicate("\n")

    assert all(ports)
    assert len(set.union(*ports)) == sum(map(len, ports))


def test_ports_are_below_the_range_of_outgoing_connections() -> None:
    """Bus ports are, too, so that a killed server finds its ports free when it restarts."""
    kernel = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first = int(kernel.read_text().split()[0]) if kernel.exists() else 49_152  # IANA's range for outgoing connections

    assert free_port() + BUS_OFFSET < first


def test_a_port_is_not_reused_soon() -> None:
    """A killed process can return to its port, and a port in use is never returned."""
    with socket.create_server(("127.0.0.1", free_port())) as used:
        ports = [free_port() for _ in range(90)]

        assert len(set(ports)) == len(ports)
        assert used.getsockname()[1] not in [*ports, *(free_port() for _ in range(90))]
