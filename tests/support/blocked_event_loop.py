"""Block the event loop of a running replica, as a bug would (environment variable and SIGUSR2)."""

import signal
from pathlib import Path

from tests.support.replica import Replica

BLOCK_S = 5.0
# The environment of a replica that can be stalled.
BLOCKABLE_ENV = {"PYTHONPATH": str(Path(__file__).with_name("blocking")), "BLOCK_SECONDS": str(BLOCK_S)}


def block_event_loop(replica: Replica) -> None:
    """Block the replica's event loop for a while."""
    replica.send_signal(signal.SIGUSR2)
