"""Block the event loop of a running replica, as a bug would (environment variable and SIGUSR2)."""

import signal
from pathlib import Path

from tests.support.machine_speed import scaled
from tests.support.replica import Replica

# Longer than a lease.
BLOCK_S = scaled(5)
# Environment of a replica whose event loop a test can block.
BLOCKABLE_ENV = {"PYTHONPATH": str(Path(__file__).with_name("blocking")), "BLOCK_SECONDS": str(BLOCK_S)}


def block_event_loop(replica: Replica) -> None:
    """Block the replica's event loop for `BLOCK_S` seconds."""
    replica.send_signal(signal.SIGUSR2)
