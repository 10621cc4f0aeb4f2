"""Markdown tables of results, which can be copied to the README."""

import statistics
from collections.abc import Sequence


class Table:
    """Rows under a title and a line of headers."""

    def __init__(self, title: str, headers: Sequence[str]) -> None:
        self._title = title
        self._rows: list[Sequence[str]] = [headers]

    def add(self, *cells: str) -> None:
        """Add a row: a cell for each header."""
        self._rows.append(cells)

    def add_times(
        self,
        label: str,
        size: int,
        figure: str,
        seconds: Sequence[float],
        constant_seconds: Sequence[float] | None,
        target: float | None,
    ) -> None:
        """Add a row to a `times_table`: measured times, times of the constant server, and the target."""
        median = statistics.median(seconds)
        constant = None if constant_seconds is None else statistics.median(constant_seconds)
        self.add(
            label,
            f"{size:,}",
            figure,
            milliseconds(median),
            milliseconds(max(seconds)),
            "" if constant is None else milliseconds(constant),
            "" if constant is None else f"{median / constant:.1f}",
            verdict(median * 1000, at_most=None if target is None else target * 1000),
        )

    def __str__(self) -> str:
        widths = [max(len(row[column]) for row in self._rows) for column in range(len(self._rows[0]))]
        head, *rows = (
            " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in self._rows
        )
        rule = " | ".join("-" * width for width in widths)
        return "\n".join([self._title, "", *(f"| {line} |" for line in (head, rule, *rows))])


def times_table() -> Table:
    """Return an empty table of durations, compared with those of the constant server."""
    return Table("Times in ms", ("case", "agents", "figure", "median", "worst", "constant", "ratio", "target"))


def milliseconds(seconds: float) -> str:
    """Format a duration in milliseconds, with about three digits."""
    value = seconds * 1000
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def verdict(value: float, *, at_least: float | None = None, at_most: float | None = None) -> str:
    """Format a target and whether the value meets it."""
    if at_least is not None:
        return f">= {at_least:,.0f} {'met' if value >= at_least else 'MISSED'}"
    if at_most is not None:
        return f"<= {at_most:,.0f} {'met' if value <= at_most else 'MISSED'}"
    return ""
