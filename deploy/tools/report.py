"""The table that `make compose-test` prints row by row."""

import asyncio
import contextlib
import time
from collections.abc import Iterator

_STEP_WIDTH, _RESULT_WIDTH = 62, 58


class Row:
    """One row; a step sets its `result`."""

    result = ""


class Report:
    """Prints rows with a step, its result and its duration."""

    def __init__(self) -> None:
        print(f"| {'step':{_STEP_WIDTH}} | {'result':{_RESULT_WIDTH}} | seconds |")
        print(f"| {'-' * _STEP_WIDTH} | {'-' * _RESULT_WIDTH} | ------: |", flush=True)

    @contextlib.contextmanager
    def row(self, step: str) -> Iterator[Row]:
        """Print the row of a step at the end of the block: its `result`, or that it failed."""
        row, started = Row(), time.monotonic()
        try:
            yield row
        except asyncio.CancelledError:
            self._print_row(step, "cancelled", started)
            raise
        except BaseException:
            self._print_row(step, "FAILED", started)
            raise
        self._print_row(step, row.result, started)

    @staticmethod
    def _print_row(step: str, result: str, started: float) -> None:
        print(f"| {step:{_STEP_WIDTH}} | {result:{_RESULT_WIDTH}} | {time.monotonic() - started:7.1f} |", flush=True)
