"""The table that `make compose-test` prints, a row as soon as there is one."""

import asyncio
import contextlib
import time
from collections.abc import Iterator

_WHAT, _CAME = 62, 58


class Row:
    """A row while it is worked on: `came` says what came of it."""

    came = ""


class Report:
    """Rows of what was tried, what came of it, and how long it took."""

    def __init__(self) -> None:
        print(f"| {'what':{_WHAT}} | {'what came of it':{_CAME}} | seconds |")
        print(f"| {'-' * _WHAT} | {'-' * _CAME} | ------: |", flush=True)

    @contextlib.contextmanager
    def row(self, what: str) -> Iterator[Row]:
        """Print a row at the end of the block: what its `came` says, or that it failed."""
        row, began = Row(), time.monotonic()
        try:
            yield row
        except asyncio.CancelledError:
            self._print(what, "broken off", began)
            raise
        except BaseException:
            self._print(what, "FAILED", began)
            raise
        self._print(what, row.came, began)

    @staticmethod
    def _print(what: str, came: str, began: float) -> None:
        print(f"| {what:{_WHAT}} | {came:{_CAME}} | {time.monotonic() - began:7.1f} |", flush=True)
