"""What agents need, in rows: whom they got for it, or why nobody."""

from collections.abc import Iterator, Mapping
from typing import Any

from registry.cli.output.tables import Column, Row

DEPENDENCY_COLUMNS = (
    Column("FUNCTION", lambda row: row["function"]),
    Column("NEEDS", lambda row: row["capability"]),
    Column("PROVIDER", lambda row: row.get("agent_id")),
    Column("TOOL", lambda row: row.get("tool_name")),
    Column("ENDPOINT", lambda row: row.get("endpoint")),
    Column("REASON", lambda row: row.get("reason")),
)


def dependency_rows(response: Mapping[str, Any]) -> Iterator[Row]:
    """Give a row for every dependency of an answer: its provider, or the reason why there is none."""
    reasons = response.get("dependencies_unresolved") or {}
    for function, providers in (response.get("dependencies_resolved") or {}).items():
        for capability, provider in providers.items():
            reason = (reasons.get(function) or {}).get(capability)
            yield {"function": function, "capability": capability, "reason": reason, **(provider or {})}
