"""Tables of agents, providers and dependencies, the columns they share, and the texts of their cells."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

import click

from registry.cli.output.terminal_safe import escape_terminal

Row = Mapping[str, Any]
Styles = Mapping[str, str]

STATUS_STYLES: Styles = MappingProxyType(
    {
        "healthy": "green",
        "degraded": "yellow",
        "expired": "red",
        "unhealthy": "red",
        "pending": "cyan",
        "deleted": "red",
    }
)
EVENT_STYLES: Styles = MappingProxyType({"ADDED": "green", "MODIFIED": "yellow", "DELETED": "red"})

_AGE_UNITS = ((120, 1, "s"), (7200, 60, "m"), (172_800, 3600, "h"))
_SECONDS_PER_DAY = 86_400
_COLUMN_GAP = "   "
_MAX_NAMES_PER_CELL = 3


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its title, its value for a row, and whether only wide tables show it.

    `styles` colours a cell by its first word on a terminal. `follow_width` is the minimum width in a `follow` table.
    """

    title: str
    cell: Callable[[Row], object]
    wide: bool = False
    styles: Styles = field(default_factory=dict)
    follow_width: int = 0


class Table:
    """Prints rows in columns; no cell is cut off, because a terminal wraps long lines.

    Rows added later align with the columns where they fit; a `follow` table reserves width for them.
    """

    def __init__(
        self, columns: Sequence[Column], *, wide: bool = False, follow: bool = False, indent: str = ""
    ) -> None:
        self._columns = [column for column in columns if wide or not column.wide]
        self._widths = [column.follow_width if follow else 0 for column in self._columns]
        self._indent = indent
        self._write = _line_writer()

    def show(self, rows: Iterable[Row]) -> None:
        """Print the titles and the rows of the table."""
        lines = [[column.title for column in self._columns], *(self._cells(row) for row in rows)]
        for line in lines:
            self._widen_columns(line)
        for index, line in enumerate(lines):
            self._write_line(line, title=index == 0)
        sys.stdout.flush()

    def add(self, row: Row) -> None:
        """Print one more row of the table immediately."""
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


def print_section(title: str, columns: Iterable[Column], rows: Iterable[Row]) -> None:
    """Print a table under its title; `-` if there are no rows."""
    row_list = list(rows)
    click.echo(f"\n{title}:{'' if row_list else '   -'}")
    if row_list:
        Table(list(columns), indent="  ").show(row_list)


def format_cell(value: object) -> str:
    """Return the text of a cell without control characters; `-` for an empty value."""
    return "-" if value is None or value == "" else escape_terminal(str(value))


def _line_writer() -> Callable[[Sequence[tuple[str, str]]], None]:
    """Return a function that prints a line of styled parts, with styles only on a terminal."""
    if not sys.stdout.isatty():
        return lambda parts: print("".join(text for text, _ in parts))  # noqa: T201 - the output of a command
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    return lambda parts: console.print(Text.assemble(*parts))


def print_fields(fields: Mapping[str, object]) -> None:
    """Print one line for each field with its value, `-` for an empty value."""
    width = max(map(len, fields)) + 3
    for name, value in fields.items():
        click.echo(f"{name + ':':<{width}}{format_cell(value)}")


def format_names(items: object, key: str = "name", max_names: int | None = None) -> str:
    """Return the distinct names of capabilities or tags; beyond `max_names`, only the number of further names."""
    if not isinstance(items, Sequence) or isinstance(items, str):
        return ""
    names = dict.fromkeys(str(item.get(key)) if isinstance(item, Mapping) else str(item) for item in items)
    shown = list(names)[:max_names]
    return ",".join(shown) + (f" +{len(names) - len(shown)}" if len(shown) < len(names) else "")


def format_pairs(mapping: object) -> str:
    """Return labels as `name=value`, separated by commas."""
    return ",".join(f"{name}={value}" for name, value in mapping.items()) if isinstance(mapping, Mapping) else ""


def format_status(row: Row, prefix: str = "") -> str:
    """Return an agent's status as a cell, with `draining` if out of service; `prefix` precedes both field names."""
    return f"{row.get(f'{prefix}status')}{',draining' if row.get(f'{prefix}draining') is True else ''}"


def age(timestamp: object, now: object) -> str | None:
    """Return the time between two timestamps as a short text such as `42s`; None without the first timestamp."""
    if not isinstance(timestamp, str) or not timestamp:
        return None
    try:
        seconds = (datetime.fromisoformat(str(now)) - datetime.fromisoformat(timestamp)).total_seconds()
    except (ValueError, TypeError):
        return timestamp
    return format_age(seconds)


def format_age(seconds: float) -> str:
    """Return a duration as a short text such as `3h`, rounded down to one unit."""
    whole = max(0, int(seconds))
    for limit, unit, letter in _AGE_UNITS:
        if whole < limit:
            return f"{whole // unit}{letter}"
    return f"{whole // _SECONDS_PER_DAY}d"


def agent_table(*, wide: bool, follow: bool = False, event_column: bool = False) -> Table:
    """Return an empty table for agents; with `event_column` it also shows the kind of each change."""
    columns = [
        Column("ID", lambda row: row.get("id"), follow_width=28),
        Column("NAMESPACE", lambda row: row.get("namespace"), follow_width=12),
        Column("STATUS", lambda row: row["state"], styles=STATUS_STYLES, follow_width=16),
        Column(
            "CAPABILITIES",
            lambda row: format_names(row.get("capabilities"), max_names=None if wide else _MAX_NAMES_PER_CELL),
            follow_width=28,
        ),
        Column("HEARTBEAT", lambda row: age(row.get("last_heartbeat"), row["now"])),
        Column("AGE", lambda row: age(row.get("created_at"), row["now"])),
        Column("NAME", lambda row: row.get("name"), wide=True, follow_width=16),
        Column("TYPE", lambda row: row.get("agent_type"), wide=True),
        Column("ENDPOINT", lambda row: row.get("endpoint"), wide=True, follow_width=32),
        Column("LABELS", lambda row: format_pairs(row.get("labels")), wide=True, follow_width=16),
        Column("VERSION", lambda row: row.get("resource_version"), wide=True),
    ]
    if event_column:
        columns.insert(0, Column("EVENT", lambda row: row["event"], styles=EVENT_STYLES, follow_width=8))
    return Table(columns, wide=wide, follow=follow)


def agent_rows(agents: Iterable[Row], now: str) -> Iterator[Row]:
    """Yield the table rows of agents, with ages relative to `now`, a time of the registry's clock."""
    return ({**agent, "state": f"{format_status(agent)}{_overdue(agent, now)}", "now": now} for agent in agents)


def _overdue(agent: Row, now: str) -> str:
    """Return how long an agent has been overdue that self-preservation keeps; empty for other agents."""
    overdue = age(agent.get("overdue_since"), now)
    return "" if overdue is None else f",overdue {overdue}"


def event_row(event: Mapping[str, Any]) -> Row:
    """Return the table row of a watch event."""
    agent, is_deleted = event["object"], event["type"] == "DELETED"
    state = "deleted" if is_deleted else format_status(agent)
    return {**agent, "state": state, "now": event["timestamp"], "event": event["type"]}


PROVIDER_COLUMNS = (
    Column("CAPABILITY", lambda row: row.get("name")),
    Column("VERSION", lambda row: row.get("version")),
    Column("AGENT", lambda row: row.get("agent_id")),
    Column("NAMESPACE", lambda row: row.get("agent_namespace")),
    Column("STATUS", lambda row: format_status(row, "agent_"), styles=STATUS_STYLES),
    Column("TAGS", lambda row: format_names(row.get("tags"))),
    Column("STABILITY", lambda row: row.get("stability"), wide=True),
    Column("CATEGORY", lambda row: row.get("category"), wide=True),
    Column("ENDPOINT", lambda row: row.get("agent_endpoint"), wide=True),
    Column("DESCRIPTION", lambda row: row.get("description"), wide=True),
)
DEPENDENCY_COLUMNS = (
    Column("FUNCTION", lambda row: row["function"]),
    Column("DEPENDENCY", lambda row: row["capability"]),
    Column("PROVIDER", lambda row: row.get("agent_id")),
    Column("TOOL", lambda row: row.get("tool_name")),
    Column("ENDPOINT", lambda row: row.get("endpoint")),
    Column("REASON", lambda row: row.get("reason")),
)


def dependency_rows(response: Mapping[str, Any]) -> Iterator[Row]:
    """Yield one table row for each dependency of a response, with its provider or why it is unresolved."""
    reasons = response.get("dependencies_unresolved") or {}
    for function, providers in (response.get("dependencies_resolved") or {}).items():
        for capability, provider in providers.items():
            reason = (reasons.get(function) or {}).get(capability)
            yield {"function": function, "capability": capability, "reason": reason, **(provider or {})}
