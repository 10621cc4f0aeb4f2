"""A blocking call in the middle of a running replica, as a bug in it would make one."""

import signal
from pathlib import Path

from tests.support.replica import Replica

STALL_SECONDS = 5.0
# The environment of a replica that can be stalled.
STALLING = {"PYTHONPATH": str(Path(__file__).with_name("blocking")), "STALL_SECONDS": str(STALL_SECONDS)}


def stall(replica: Replica) -> None:
    """Block the replica's event loop for a while."""
    replica.send_signal(signal.SIGUSR2)
