"""The table that `make compose-test` prints, a row as soon as there is one."""

import asyncio
import contextlib
import time
from collections.abc import Iterator

_STEP_WIDTH, _RESULT_WIDTH = 62, 58


class Row:
    """A row while it is worked on: `result` says what came of it."""

    result = ""


class Report:
    """Rows of what was tried, what came of it, and how long it took."""

    def __init__(self) -> None:
        print(f"| {'what':{_STEP_WIDTH}} | {'what came of it':{_RESULT_WIDTH}} | seconds |")
        print(f"| {'-' * _STEP_WIDTH} | {'-' * _RESULT_WIDTH} | ------: |", flush=True)

    @contextlib.contextmanager
    def row(self, step: str) -> Iterator[Row]:
        """Print a row at the end of the block: what its `result` says, or that it failed."""
        row, began = Row(), time.monotonic()
        try:
            yield row
        except asyncio.CancelledError:
            self._print_row(step, "broken off", began)
            raise
        except BaseException:
            self._print_row(step, "FAILED", began)
            raise
        self._print_row(step, row.result, began)

    @staticmethod
    def _print_row(step: str, result: str, started: float) -> None:
        print(f"| {step:{_STEP_WIDTH}} | {result:{_RESULT_WIDTH}} | {time.monotonic() - started:7.1f} |", flush=True)
