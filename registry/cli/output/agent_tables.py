"""Agents in tables."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from registry.cli.output.ages import age
from registry.cli.output.tables import EVENT_STYLES, STATUS_STYLES, Column, Row, Table

_MAX_NAMES_PER_CELL = 3


def format_names(items: object, key: str = "name", max_names: int | None = None) -> str:
    """Return the names of capabilities or tags, each once; of more than `max_names` how many more there are."""
    if not isinstance(items, Sequence) or isinstance(items, str):
        return ""
    names = dict.fromkeys(str(each.get(key)) if isinstance(each, Mapping) else str(each) for each in items)
    shown = list(names)[:max_names]
    return ",".join(shown) + (f" +{len(names) - len(shown)}" if len(shown) < len(names) else "")


def format_pairs(mapping: object) -> str:
    """Return labels as a selector would name them."""
    return ",".join(f"{name}={value}" for name, value in mapping.items()) if isinstance(mapping, Mapping) else ""


def format_status(agent: Row) -> str:
    """Return an agent's status, and that it drains, if it does."""
    return f"{agent.get('status')}{',draining' if agent.get('draining') is True else ''}"


def agent_table(*, wide: bool, follow: bool = False, event_column: bool = False) -> Table:
    """Return a table for rows of `listed` and `event_row`; of `event_column` with a column for what happened."""
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
    """Give the rows of agents as of a moment of the registry's clock."""
    return ({**agent, "state": format_status(agent), "now": now} for agent in agents)


def event_row(event: Mapping[str, Any]) -> Row:
    """Return the row of a change."""
    agent, gone = event["object"], event["type"] == "DELETED"
    state = "deleted" if gone else format_status(agent)
    return {**agent, "state": state, "now": event["timestamp"], "event": event["type"]}
