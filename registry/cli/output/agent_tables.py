"""Agents in tables."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from registry.cli.output.ages import since
from registry.cli.output.tables import EVENTS, STATUSES, Column, Row, Table

_SHOWN = 3


def names_of(listed: object, key: str = "name", most: int | None = None) -> str:
    """Return the names of capabilities or tags, each once; of more than `most` how many more there are."""
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        return ""
    names = dict.fromkeys(str(each.get(key)) if isinstance(each, Mapping) else str(each) for each in listed)
    shown = list(names)[:most]
    return ",".join(shown) + (f" +{len(names) - len(shown)}" if len(shown) < len(names) else "")


def pairs_of(mapping: object) -> str:
    """Return labels as a selector would name them."""
    return ",".join(f"{name}={value}" for name, value in mapping.items()) if isinstance(mapping, Mapping) else ""


def status_of(agent: Row) -> str:
    """Return an agent's status, and that it drains, if it does."""
    return f"{agent.get('status')}{',draining' if agent.get('draining') is True else ''}"


def agent_table(*, wide: bool, follows: bool = False, events: bool = False) -> Table:
    """Return a table for rows of `listed` and `changed`; of `events` with a column for what happened."""
    columns = [
        Column("ID", lambda row: row.get("id"), room=28),
        Column("NAMESPACE", lambda row: row.get("namespace"), room=12),
        Column("STATUS", lambda row: row["state"], styles=STATUSES, room=16),
        Column("CAPABILITIES", lambda row: names_of(row.get("capabilities"), most=None if wide else _SHOWN), room=28),
        Column("HEARTBEAT", lambda row: since(row.get("last_heartbeat"), row["now"])),
        Column("AGE", lambda row: since(row.get("created_at"), row["now"])),
        Column("NAME", lambda row: row.get("name"), wide=True, room=16),
        Column("TYPE", lambda row: row.get("agent_type"), wide=True),
        Column("ENDPOINT", lambda row: row.get("endpoint"), wide=True, room=32),
        Column("LABELS", lambda row: pairs_of(row.get("labels")), wide=True, room=16),
        Column("VERSION", lambda row: row.get("resource_version"), wide=True),
    ]
    if events:
        columns.insert(0, Column("EVENT", lambda row: row["event"], styles=EVENTS, room=8))
    return Table(columns, wide=wide, roomy=follows)


def listed(agents: Iterable[Row], now: str) -> Iterator[Row]:
    """Give the rows of agents as of a moment of the registry's clock."""
    return ({**agent, "state": status_of(agent), "now": now} for agent in agents)


def changed(event: Mapping[str, Any]) -> Row:
    """Return the row of a change."""
    agent, gone = event["object"], event["type"] == "DELETED"
    state = "deleted" if gone else status_of(agent)
    return {**agent, "state": state, "now": event["timestamp"], "event": event["type"]}
