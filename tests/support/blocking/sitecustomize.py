"""Loaded by every Python that has this folder on its path: SIGUSR2 blocks whatever the main thread does for a while."""

import os
import signal
import time


def _block(_number: int, _frame: object) -> None:
    time.sleep(float(os.environ["BLOCK_SECONDS"]))


signal.signal(signal.SIGUSR2, _block)
