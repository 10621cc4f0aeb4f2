"""Tables for people: columns that stay where they are, in a pipe as in a terminal, and rows that come later."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from registry.cli.output.terminal_safe import escape_terminal

# Everything that takes time to import is imported when the command runs, so that --help answers at once.
# ruff: noqa: PLC0415

Row = Mapping[str, Any]
Styles = Mapping[str, str]

STATUS_STYLES: Styles = MappingProxyType(
    {"healthy": "green", "degraded": "yellow", "expired": "red", "pending": "cyan", "deleted": "red"}
)
EVENT_STYLES: Styles = MappingProxyType({"ADDED": "green", "MODIFIED": "yellow", "DELETED": "red"})

_COLUMN_GAP = "   "


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its title, what a row has there, and whether it is in wide tables only.

    `styles` colours a cell by its first word, where there are colours. `follow_width` is its width where rows come
    later.
    """

    title: str
    cell: Callable[[Row], object]
    wide: bool = False
    styles: Styles = field(default_factory=dict)
    follow_width: int = 0


class Table:
    """Writes rows in columns, none cut off: a terminal wraps what is too long for it.

    Rows that are added after the table was shown keep to its columns where they fit; a `follow` one has room for them.
    """

    def __init__(
        self, columns: Sequence[Column], *, wide: bool = False, follow: bool = False, indent: str = ""
    ) -> None:
        self._columns = [column for column in columns if wide or not column.wide]
        self._widths = [column.follow_width if follow else 0 for column in self._columns]
        self._indent = indent
        self._write = _line_writer()

    def show(self, rows: Iterable[Row]) -> None:
        """Write the titles and the rows."""
        lines = [[column.title for column in self._columns], *(self._cells(row) for row in rows)]
        for line in lines:
            self._widen_columns(line)
        for at, line in enumerate(lines):
            self._write_line(line, title=at == 0)
        sys.stdout.flush()

    def add(self, row: Row) -> None:
        """Write one more row, at once."""
        cells = self._cells(row)
        self._widen_columns(cells)
        self._write_line(cells)
        sys.stdout.flush()

    def _cells(self, row: Row) -> list[str]:
        return [format_cell(column.cell(row)) for column in self._columns]

    def _widen_columns(self, cells: Sequence[str]) -> None:
        from rich.cells import cell_len

        self._widths = [max(width, cell_len(cell)) for width, cell in zip(self._widths, cells, strict=True)]

    def _write_line(self, cells: Sequence[str], *, title: bool = False) -> None:
        from rich.cells import cell_len

        parts: list[tuple[str, str]] = [(self._indent, "")]
        for column, cell, width in zip(self._columns, cells, self._widths, strict=True):
            style = "bold" if title else column.styles.get(cell.partition(",")[0], "")
            parts += [(cell, style), (" " * (width - cell_len(cell)) + _COLUMN_GAP, "")]
        self._write(parts[:-1])


def format_cell(value: object) -> str:
    """Return a cell's text, harmless; `-` where there is nothing."""
    return "-" if value is None or value == "" else escape_terminal(str(value))


def _line_writer() -> Callable[[Sequence[tuple[str, str]]], None]:
    """Return what writes a line of text and styles; styles only where a terminal shows them."""
    if not sys.stdout.isatty():
        return lambda parts: print("".join(text for text, _ in parts))  # noqa: T201 - it is a command's answer
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    return lambda parts: console.print(Text.assemble(*parts))
