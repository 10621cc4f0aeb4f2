"""Loaded by every Python with this folder on its path: SIGUSR2 blocks the main thread for BLOCK_SECONDS."""

import os
import signal
import time


def _block(_number: int, _frame: object) -> None:
    time.sleep(float(os.environ["BLOCK_SECONDS"]))


signal.signal(signal.SIGUSR2, _block)
